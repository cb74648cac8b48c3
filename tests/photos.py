"""Photographs for tests: drawn shapes, and a table with a class, a number and a yes or no."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("disc", "square", "triangle")


def take_photos(
    root: Path, n: int = 200, *, side: int = 48, empty: float = 0.2, seed: int = 0
) -> Path:
    """Write `root/images/*.jpg` and `root/labels.csv`: file, shape, size, dark, scene, part.

    Args:
        root: made if needed.
        n: photographs, 6 of a scene.
        side: of each, in pixels.
        empty: share of the cells of shape, size and dark that are left empty.
        seed: same seed, same files.

    Returns:
        The table.
    """
    rng = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(n):
        shape, size, is_dark = SHAPES[rng.integers(3)], rng.uniform(10, 30), bool(rng.integers(2))
        file = f"images/{number:04d}.jpg"
        draw_photo(shape, size, is_dark, side, rng).save(root / file, quality=90)
        cells = [shape, f"{size:.1f}", "yes" if is_dark else "no"]
        cells = ["" if rng.random() < empty else cell for cell in cells]
        scene = number // 6
        part = ("train", "train", "train", "validation", "test")[scene % 5]
        rows.append([file, *cells, f"scene {scene}", part])
    table = root / "labels.csv"
    with table.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([["file", "shape", "size", "dark", "scene", "part"], *rows])
    return table


def draw_photo(
    shape: str, size: float, is_dark: bool, side: int, rng: np.random.Generator
) -> Image.Image:
    """Draw one shape, `size` percent of the side from its middle to its edge, on noisy ground."""
    ground = rng.integers(90, 170, 3) + rng.normal(0, 12, (side, side, 3))
    image = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    radius = size / 100 * side
    x, y = rng.uniform(radius, side - radius, 2)
    colour = tuple(int(c) for c in rng.integers(0, 60, 3) + (0 if is_dark else 190))
    pen = ImageDraw.Draw(image)
    if shape == "disc":
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)
    else:
        pen.regular_polygon((x, y, radius), 4 if shape == "square" else 3, 0, fill=colour)
    return image
