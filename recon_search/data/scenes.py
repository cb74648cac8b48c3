"""`scenes`: digits that stand on a floor before a wall, and four tasks of their pixels.

scikit-learn's 1,797 real 8x8 digits are cut out and put up like cards, some before others, turned
and tilted. A pinhole camera looks at them; every label is what its rays hit. Needs no network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recon_search.data.compose import Pool, check_room, divide
from recon_search.data.digits import read_digits
from recon_search.data.resident import Part, ResidentFeed
from recon_search.data.source import PARTS, PartName, Say, Schema, silent
from recon_search.tasks.depth import Depth
from recon_search.tasks.edges import Edges
from recon_search.tasks.normals import Normals
from recon_search.tasks.segments import Segments

TASKS = (
    Segments("what", 11, class_names=("background", *map(str, range(10)))),
    Depth("depth", unit="m"),
    Normals("normals"),
    Edges("edges"),
)
"""Which digit; how far along the camera's axis, and facing where (x right, y up, z to the camera),
both unknown of the sky; and the borders of what stands before something else, on its own side."""

SMALLEST = 32
"""Side of the smallest canvas on which digits can be told apart."""

MOST_ITEMS = 3
TEXTURE = 32
"""Side of an item's cut-out, from which the canvas is sampled."""

INK = 0.3
"""Share of the full ink from which on a digit's pixel is part of the item."""

LIGHT = np.array([-0.5, 0.6, 0.62], np.float32)
"""Direction to the light: the same in all scenes, so that shading tells how a surface lies."""

PIXEL = 3 + 8 + 4 + 12 + 8
"""Bytes of a pixel: of the image, and of the targets of all tasks."""

CHUNK = 200
"""Scenes that are rendered at once."""

Floats = NDArray[Any]
"""Of single precision."""


@dataclass(frozen=True)
class Scenes:
    """Rendered scenes as a source.

    Attributes:
        schema: its tasks and the canvas.
        sizes: how many scenes each part has.
        seed: of the items' parts and of the scenes; same seed, same bytes.
    """

    schema: Schema
    sizes: Mapping[PartName, int]
    seed: int

    def __post_init__(self) -> None:
        _, height, width = self.schema.shape
        check_room(self.sizes, self.schema.shape, PIXEL * height * width)

    def open(self, device: torch.device, say: Say = silent) -> ResidentFeed:
        """Render all scenes and move them to a device."""
        pools = divide(read_digits(TEXTURE), (0.6, 0.2, 0.2), self.seed)
        side = self.schema.shape[1]
        return ResidentFeed(
            self.schema,
            {
                name: render(pool, self.sizes[name], side, [self.seed, index]).to(device)
                for index, (name, pool) in enumerate(zip(PARTS, pools, strict=True))
            },
        )


def scenes(sizes: Mapping[PartName, int], canvas: int, seed: int) -> Scenes:
    """Scenes of digits from disjoint pools: 60 % of the digits for train, 20 %, 20 %."""
    return Scenes(Schema(TASKS, (3, canvas, canvas), frozenset(["what", "edges"])), sizes, seed)


def render(pool: Pool, size: int, side: int, seed: list[int]) -> Part:
    """Render the scenes of one part.

    Args:
        pool: of the items.
        size: how many scenes.
        side: of the canvas.
        seed: same seed, same bytes.
    """
    rng = np.random.default_rng(seed)
    starts = range(0, size, CHUNK)
    chunks = [_Renderer(pool, min(CHUNK, size - start), side, rng).render() for start in starts]
    image, what, depth, normals, edges = (
        torch.from_numpy(np.concatenate(each)) for each in zip(*chunks, strict=True)
    )
    targets = {"what": what, "depth": depth, "normals": normals, "edges": edges}
    return Part(image, targets)


class _Renderer:
    """A camera over n scenes at once; arrays are (n, side, side) or broadcast to that.

    Places are x to the right, y up, z away from the camera, in metres; directions of surfaces have
    z towards it. A ray has length 1 in z, so that its length is depth.
    """

    def __init__(self, pool: Pool, n: int, side: int, rng: np.random.Generator) -> None:
        self.pool, self.n, self.rng = pool, n, rng
        shape = (n, side, side)
        places = (np.arange(side, dtype=np.float32) + 0.5) / side
        self.x = places[None, None, :] - 0.5
        self.y = self._draw(0.3, 0.4) - places[None, :, None]  # 0 on the horizon
        self.eye = self._draw(1.3, 1.8)  # above the floor
        self.n_items = rng.integers(2, MOST_ITEMS + 1, (n, 1, 1))
        self.depth = np.full(shape, np.inf, np.float32)
        self.object = np.zeros(shape, np.int64)  # 0 is the sky, 1 floor and wall
        self.what = np.zeros(shape, np.int64)
        self.normal = np.zeros((n, 3, side, side), np.float32)
        self.colour = np.ones((n, 3, side, side), np.float32)
        self.colour *= self._colours(0.2, 0.5, 0.9) * (0.8 + 0.5 * places[None, None, :, None])

    def render(self) -> tuple[NDArray[Any], ...]:
        """Return image, what, depth, normals and edges."""
        self._put_floor_and_wall()
        for index in range(MOST_ITEMS):
            self._put_item(index)
        is_sky = self.object == 0
        lit = np.einsum("ncij,c->nij", self.normal, LIGHT / np.linalg.norm(LIGHT))
        shade = np.where(is_sky, 1, 0.3 + 0.7 * lit.clip(0))[:, None]
        noise = self.rng.normal(0, 0.02, self.colour.shape).astype(np.float32)
        image = (255 * (self.colour * shade + noise)).clip(0, 255).astype(np.uint8)
        depth = np.where(is_sky, np.float32(np.nan), self.depth)
        return image, self.what, depth, self.normal, self._find_edges()

    def _put_floor_and_wall(self) -> None:
        distance, top = self._draw(8, 12), self._draw(2.4, 3.4)
        below = np.maximum(-self.y, np.float32(1e-3))  # rays above the horizon end behind the wall
        floor = self.eye / below
        wall = np.broadcast_to(distance, self.depth.shape)
        above = self.eye + self.y * distance  # the floor, where a ray meets the wall
        for is_floor in (False, True):
            ray = floor if is_floor else wall
            hit = ray < distance if is_floor else (above < top) & (floor >= distance)
            second = ray if is_floor else above
            pattern = self._pattern(self.x * ray, np.broadcast_to(second, ray.shape))
            colour = self._colours(0.35, 0.45, 0.8) * (1 + 0.25 * pattern[:, None])
            normal = np.array([0, 1, 0] if is_floor else [0, 0, 1], np.float32)
            self._put(hit, ray, normal[None, :, None, None], colour, 1, 0)

    def _put_item(self, index: int) -> None:
        """Put up one more digit, where a scene has so many."""
        z = self._draw(2.0, 5.5)
        foot = self._draw(-0.38, 0.38) * z, -self.eye, z
        height = self._draw(1.3, 2.1)
        turn, lean = (self._draw(-limit, limit) for limit in (0.85, 0.4))  # radians
        (st, ct), (sl, cl) = ((np.sin(each), np.cos(each)) for each in (turn, lean))
        normal, right, up = (st * cl, sl, -ct * cl), (ct, 0 * ct, st), (-st * sl, cl, ct * sl)
        slope = self.x * normal[0] + self.y * normal[1] + normal[2]
        facing = slope < -0.05
        ray = _dot(foot, normal) / np.where(facing, slope, -1)
        place = self.x * ray - foot[0], self.y * ray - foot[1], ray - foot[2]
        column = TEXTURE * (_dot(place, right) / (0.9 * height) + 0.5)
        row = TEXTURE * (1 - _dot(place, up) / height)
        hit = facing & (ray > 0) & (index < self.n_items)
        for each in (column, row):
            hit &= (each >= 0) & (each < TEXTURE)
        picked = self.rng.integers(len(self.pool.classes), size=(self.n, 1, 1))
        cell = [np.where(hit, each, 0).astype(np.int64) for each in (row, column)]
        ink = self.pool.images[picked, cell[0], cell[1]] / np.float32(255)
        hit &= (ink > INK) & (ray < self.depth)
        direction = np.stack([normal[0], normal[1], -normal[2]], 1)
        colour = self._colours(0.75, 0.95, 1.0) * (0.7 + 0.3 * ink[:, None])
        self._put(hit, ray, direction, colour, index + 2, 1 + self.pool.classes[picked])

    def _put(
        self,
        hit: NDArray[np.bool_],
        ray: Floats,
        normal: Floats,
        colour: Floats,
        number: int,
        what: NDArray[np.int64] | int,
    ) -> None:
        """Let rays that hit a surface see it."""
        self.depth = np.where(hit, ray, self.depth).astype(np.float32)
        self.object = np.where(hit, number, self.object)
        self.what = np.where(hit, what, self.what)
        self.normal = np.where(hit[:, None], normal, self.normal).astype(np.float32)
        self.colour = np.where(hit[:, None], colour, self.colour).astype(np.float32)

    def _find_edges(self) -> NDArray[np.int64]:
        """Where an object's pixel has a neighbour of another one that is farther away."""
        found = np.zeros(self.depth.shape, bool)
        for axis in (1, 2):
            for step in (1, -1):
                other, far = (np.roll(each, step, axis) for each in (self.object, self.depth))
                own = (self.object != other) & (self.depth < far)
                outside = [slice(None)] * 3
                outside[axis] = slice(0, 1) if step == 1 else slice(-1, None)
                own[tuple(outside)] = False
                found |= own
        return found.astype(np.int64)

    def _pattern(self, first: Floats, second: Floats) -> Floats:
        """A chequered pattern of squares in metres, from -1 to 1."""
        angle, scale = self._draw(0, 1.5), self._draw(2.5, 6.0)
        waves = [
            np.sin(scale * (np.cos(turned) * first + np.sin(turned) * second) + self._draw(0, 6))
            for turned in (angle, angle + np.float32(np.pi / 2))
        ]
        found: Floats = np.tanh(4 * waves[0] * waves[1])
        return found

    def _colours(self, low: float, high: float, value: float) -> Floats:
        """Draw a colour of some saturation for every scene, (n, 3, 1, 1)."""
        hue = self.rng.uniform(0, 1, (self.n, 1)) + np.arange(3) / 3
        pure = np.abs(6 * (hue % 1) - 3) - 1
        saturation = self.rng.uniform(low, high, (self.n, 1))
        colour: Floats = (value * (1 - saturation * (1 - pure.clip(0, 1)))).astype(np.float32)
        return colour[:, :, None, None]

    def _draw(self, low: float, high: float) -> Floats:
        """Draw a number for every scene, (n, 1, 1)."""
        return self.rng.uniform(low, high, (self.n, 1, 1)).astype(np.float32)


def _dot(first: tuple[Floats, ...], second: tuple[Floats, ...]) -> Floats:
    x, y, z = (one * other for one, other in zip(first, second, strict=True))
    total: Floats = x + y + z
    return total
