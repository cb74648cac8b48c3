"""Gradients kept as seeded random projections, where T full gradients take too much memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recon_search.artefact import digest
from recon_search.errors import RecipeError
from recon_search.recipe import LEAST_SKETCH

PIECE = 2**15
"""Elements of a gradient that are projected at once: so many stay in a CPU's cache."""

PIECE_ON_GPU = 2**21
"""So many keep a GPU busy."""

_SIGNS = torch.tensor([[1.0 - 2.0 * (byte >> bit & 1) for bit in range(8)] for byte in range(256)])
"""The eight signs that a byte stands for, (256, 8)."""


class Sketch:
    """A random projection of gradients to at most `size` numbers a layer and task.

    A count sketch (Charikar, Chen and Farach-Colton 2002): each element goes, with a random sign,
    into one of n = `size` buckets, and what meets in a bucket adds up. It is linear, so that
    sketches of batches and of processes add up to that of the sum. A layer of at most n elements is
    kept as it is, exactly.

    **Error.** Over seeds an inner product of sketches has the mean x . y, and the variance

        1/n (|x|^2 |y|^2 + (x . y)^2 - 2 sum_i x_i^2 y_i^2)

    at most (feature hashing, arXiv 0902.2206, Lemma 2, for buckets that two elements share with
    probability 1/n; here those of one row of n never do). The standard error is thus at most
    |x| |y| sqrt((1 + cos^2) / n), and that of a cosine about (1 - cos^2) / sqrt(n), to first order,
    for gradients that no few elements make up: 0.03 for 1,024 numbers. Cosines nearer to a
    threshold than that fall on either side of it.

    No matrix is stored: signs and buckets are drawn from the seed, on the CPU, so that all devices
    and processes have the same, and take a bit an element until the next step. Each step has its
    own, so that errors of different steps are independent and means over steps err less.

    Args:
        size: numbers a layer and task.
        seed: of the projections.

    Attributes:
        step: the number of the step, which counts on by itself; set it to repeat or to resume.

    Raises:
        RecipeError: the size is below 16.

    Examples:
        >>> sketch = Sketch(1024)
        >>> x, y = torch.randn(2, 50_000, generator=torch.Generator().manual_seed(0))
        >>> y = x + y  # at 45 degrees
        >>> a, b = sketch.project(x, 0), sketch.project(y, 0)
        >>> len(a), abs(float(F.cosine_similarity(a, b, dim=0)) - 0.7071) < 0.06
        (1024, True)
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        if size < LEAST_SKETCH:
            raise RecipeError(
                f"A sketch must have at least {LEAST_SKETCH} numbers a layer, got {size}. The "
                "error of a cosine is about 1 / sqrt(size): 1,024 are a good start."
            )
        self.size = size
        self.seed = seed
        self.step = 0
        self._drawn_at = 0
        self._drawn: dict[tuple[int, tuple[int, ...], torch.device], tuple[Tensor, Tensor]] = {}

    def project(self, gradient: Tensor, *place: int) -> Tensor:
        """Project one parameter's gradient.

        Args:
            gradient: of any shape.
            place: of the parameter; other places have other signs and buckets.

        Returns:
            Sums of buckets (size,), of the gradient's type.
        """
        n, flat = self.size, gradient.reshape(-1)
        n_rows = -(-flat.numel() // n)
        shifts, drawn = self._draw(n_rows, place, flat.device)
        signs = _SIGNS.to(flat)
        # Row s holds s, s + 1, ... modulo n: where the buckets of a row shifted by s come from.
        rolled = (torch.arange(2 * n - 1, device=flat.device) % n).unfold(0, n, 1)
        total = flat.new_zeros(n)
        at_once = max(1, (PIECE if flat.device.type == "cpu" else PIECE_ON_GPU) // n)
        for first in range(0, n_rows, at_once):
            values = flat[first * n : (first + at_once) * n]
            rows = F.pad(values, (0, -len(values) % n)).view(-1, n)
            own = signs[drawn[first : first + at_once].int()].flatten(1)[:, :n]
            total += (rows * own).gather(1, rolled[shifts[first : first + at_once]]).sum(0)
        return total

    def _draw(
        self, n_rows: int, place: tuple[int, ...], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """The shift of each row, (rows,), and its signs, eight a byte, (rows, size / 8)."""
        if self._drawn_at != self.step:
            self._drawn_at, self._drawn = self.step, {}
        key = n_rows, place, device
        if key not in self._drawn:
            seed = int(digest([self.seed, "sketch", self.step, *place])[:12], 16)
            generator = torch.Generator().manual_seed(seed)
            shifts = torch.randint(self.size, (n_rows,), generator=generator, dtype=torch.int32)
            n_bytes = -(-self.size // 8)
            n_words = -(-n_rows * n_bytes // 8)
            words = torch.randint(-(2**63), 2**63 - 1, (n_words,), generator=generator)
            drawn = words.view(torch.uint8)[: n_rows * n_bytes].view(n_rows, n_bytes)
            self._drawn[key] = shifts.to(device), drawn.to(device)
        return self._drawn[key]


class Sketches:
    """The tasks' gradients of one step, sketched a block of parameters at a time.

    A block is a layer, or one copy of a split layer: tasks of different copies then have inner
    product zero, exactly.

    Args:
        sketch: projects them.
        blocks: by layer, L in all, the parameters of each block.
        n_tasks: T.

    Attributes:
        kept: the sums of buckets by number of the block and of the task.
    """

    def __init__(
        self, sketch: Sketch, blocks: Sequence[Iterable[Sequence[nn.Parameter]]], n_tasks: int
    ) -> None:
        self.sketch = sketch
        self.n_tasks = n_tasks
        self.n_layers = len(blocks)
        self._layers: list[int] = []  # by block
        self._sizes: list[int] = []
        # Block, first element in it:
        self._places: dict[Tensor, list[tuple[int, int]]] = defaultdict(list)
        for layer, own in enumerate(blocks):
            for block in own:
                size = 0
                for parameter in block:
                    if any(self._layers[other] == layer for other, _ in self._places[parameter]):
                        continue  # copies may share it
                    self._places[parameter].append((len(self._sizes), size))
                    size += parameter.numel()
                self._layers.append(layer)
                self._sizes.append(size)
        self.clear()

    @torch.no_grad()
    def take(self, task: int, parameter: Tensor, gradient: Tensor) -> None:
        """Add a gradient of a task's loss; one of a parameter of no block is not looked at."""
        if gradient.dtype in (torch.float16, torch.bfloat16):
            gradient = gradient.float()
        for block, start in self._places.get(parameter, ()):
            size = self._sizes[block]
            if (block, task) not in self.kept:
                self.kept[block, task] = gradient.new_zeros(min(size, self.sketch.size))
            total = self.kept[block, task]
            if size <= self.sketch.size:
                total[start : start + gradient.numel()] += gradient.reshape(-1)
            else:
                total += self.sketch.project(gradient, block, start)

    def take_all(self, task: int, gradients: Mapping[nn.Parameter, Tensor]) -> None:
        """Add a task's gradients."""
        for parameter, gradient in gradients.items():
            self.take(task, parameter, gradient)

    def gramians(self, like: Tensor) -> Tensor:
        """Compute (L, T, T) Gramians of the sketches, as `layer_gramians` does of gradients.

        Args:
            like: of the type and on the device that zeros have where no loss reached a layer.
        """
        users: dict[int, list[int]] = defaultdict(list)
        for block, task in sorted(self.kept):
            users[block].append(task)
        found = like.new_zeros(self.n_layers, self.n_tasks, self.n_tasks)
        for block, tasks in users.items():
            jacobian = torch.stack([self.kept[block, task] for task in tasks])  # (n, size)
            index = torch.tensor(tasks, device=jacobian.device)
            found[self._layers[block], index[:, None], index] += jacobian @ jacobian.T
        return found

    def clear(self) -> None:
        """Forget everything."""
        self.kept: dict[tuple[int, int], Tensor] = {}
