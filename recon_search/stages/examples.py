"""What a finished model says of test data: a few samples a task to look at, and its mistakes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recon_search import artefact
from recon_search.data.source import PARTS, PartName
from recon_search.errors import ArtefactError
from recon_search.model.files import load
from recon_search.runs.run import Run
from recon_search.tasks.mistakes import Mistakes, mistakes_of
from recon_search.tasks.registry import create_task
from recon_search.tasks.task import CellTask, PixelTask, Task
from recon_search.training.evaluation import answers
from recon_search.views.sheet import describe

FILE = "examples.safetensors"
FORMAT = "recon-search/examples/1"

IMAGES = 96
"""Of all tasks together; a task has its share, between `FEWEST` and `MOST`."""
FEWEST, MOST = 2, 12

MAPS = 4
"""Images of a task of pixels."""

SIDE = 96
"""Pixels of the longer side that are kept of an image of which something is said as a whole."""


@dataclass
class TaskExamples:
    """What is shown of a task.

    Attributes:
        task: it.
        part: of the data.
        images: uint8 (n, C, H, W), levels.
        truth: of each image, in words; of pixels empty.
        said: what the model says of it, likewise.
        right: whether that is the same; None where a task does not know right and wrong.
        maps: of pixels the labels and what the model says, float32 or whole (n, ...).
        mistakes: over the whole part; None of a kind of one's own.
        n_labelled: samples with a label.
    """

    task: Task
    part: PartName
    images: list[Tensor] = field(default_factory=list)
    truth: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    right: list[bool | None] = field(default_factory=list)
    maps: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    mistakes: Mistakes | None = None
    n_labelled: int = 0


def show_examples(run: Run) -> None:
    """Write the examples of the model that a run has handed over into its folder."""
    save_examples(make_examples(run, run.out / "model"), run.out / FILE)


def make_examples(run: Run, directory: Path, part: PartName = "test") -> list[TaskExamples]:
    """Show a model a part once, keep a few samples of each task, and add up its mistakes.

    Kept are the first that it gets right and the first that it gets wrong, as many of each; of
    numbers and of pixels the first there are. Outputs are not kept.

    Args:
        run: whose data it is.
        directory: of a model of these tasks.
        part: of the data.
    """
    model = load(directory).to(run.device).eval()
    names = tuple(name for name in model.tasks if name in run.schema.names)
    tasks = run.schema.select(names)
    n = min(MOST, max(FEWEST, IMAGES // len(tasks)))
    collectors = {
        task.name: _Collector(TaskExamples(task, part, mistakes=mistakes_of(task)), n)
        for task in tasks
    }
    with contextlib.closing(run.feed) as feed:
        for step, outputs in answers(model, feed, part, run.recipe.train):
            for batch in step:
                for name in outputs.keys() & batch.targets.keys():
                    collectors[name].add(
                        batch.inputs, outputs[name].float().cpu(), batch.targets[name].cpu()
                    )
    return [each.found for each in collectors.values()]


def save_examples(examples: list[TaskExamples], path: Path) -> None:
    """Write `examples.safetensors` atomically."""
    tensors: dict[str, Tensor] = {}
    rows: list[dict[str, Any]] = []
    for index, own in enumerate(examples):
        if own.images:
            tensors[f"{index}/images"] = torch.stack(own.images)
        for name, place in (("labels", 0), ("answers", 1)):
            if own.maps:
                tensors[f"{index}/{name}"] = torch.stack([each[place] for each in own.maps])
        if own.mistakes is not None:
            tensors[f"{index}/mistakes"] = own.mistakes.counts
        words = {"truth": own.truth, "said": own.said, "right": own.right}
        spec = {"task": own.task.spec(), "part": own.part, "n_labelled": own.n_labelled}
        rows.append({**spec, **words})
    artefact.write_tensors(path, tensors, {"format": FORMAT, "tasks": rows})


def load_examples(path: Path) -> list[TaskExamples]:
    """Read what `save_examples` wrote.

    Raises:
        ArtefactError: the file is missing, damaged or of another format.
    """
    tensors, metadata = artefact.read_tensors(path, "file of examples", FORMAT)
    try:
        return [_read(index, row, tensors) for index, row in enumerate(metadata["tasks"])]
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ArtefactError(
            f"Examples must hold the images and words of every task, {path} does not "
            f"({type(error).__name__}: {error}). Delete it to do without."
        ) from None


def _read(index: int, row: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> TaskExamples:
    task = create_task(row["task"])
    images, n = tensors.get(f"{index}/images", ()), len(row["right"])
    if len(images) != n or not all(right in (True, False, None) for right in row["right"]):
        raise ValueError(f"{len(images)} images for {n} answers")
    if isinstance(images, Tensor) and (
        images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3)
    ):
        raise ValueError(f"images of {images.dtype} and shape {tuple(images.shape)}")
    labels, answers = (tensors.get(f"{index}/{name}", ()) for name in ("labels", "answers"))
    mistakes = mistakes_of(task)
    if mistakes is not None:
        found = tensors[f"{index}/mistakes"]
        if found.shape != mistakes.counts.shape or found.dtype != mistakes.counts.dtype:
            raise ValueError(f"mistakes of {found.dtype} and shape {tuple(found.shape)}")
        if bool((found < 0).any()):
            raise ValueError("fewer than no mistakes")
        mistakes.counts = found
    return TaskExamples(
        task,
        _part(row["part"]),
        list(images),
        list(map(str, row["truth"])),
        list(map(str, row["said"])),
        list(row["right"]),
        list(zip(labels, answers, strict=True)),
        mistakes,
        int(row["n_labelled"]),
    )


def _part(name: Any) -> PartName:
    if name not in PARTS:
        raise ValueError(f"a part {name!r}")
    found: PartName = name
    return found


class _Collector:
    """Takes in batches of one task.

    Args:
        found: what is filled.
        n: samples to keep.
    """

    def __init__(self, found: TaskExamples, n: int) -> None:
        self.found = found
        is_dense = found.task.reads == "pyramid"
        self._n = min(n, MAPS) if is_dense else n
        self._left = {True: self._n - self._n // 2, False: self._n // 2}

    def add(self, inputs: Tensor, output: Tensor, target: Tensor) -> None:
        """Add up mistakes, and keep samples while some are wanted."""
        found, task = self.found, self.found.task
        errors = None if found.mistakes is None else found.mistakes.update(output, target)
        for row in range(len(target)):
            if not int(task.n_labels(target[row][None])):
                continue
            found.n_labelled += 1
            right = None
            if errors is not None and task.reads == "vector" and found.mistakes is not None:
                knows = found.mistakes.shape != "histogram"
                right = bool(errors[row] == 0) if knows else None
            if self._wants(right):
                self._keep(inputs[row].cpu(), output[row][None], target[row], right)

    def _wants(self, right: bool | None) -> bool:
        if right is None:
            return len(self.found.images) < self._n
        self._left[right] -= 1
        return self._left[right] >= 0

    def _keep(self, image: Tensor, output: Tensor, target: Tensor, right: bool | None) -> None:
        found, task = self.found, self.found.task
        if isinstance(task, PixelTask):
            found.maps.append((target, task.decode(output)[0].cpu()))
        is_dense = task.reads == "pyramid"
        found.images.append(_levels(image) if is_dense else _reduce(_levels(image)))
        found.truth.append("" if is_dense else describe(task, target))
        found.said.append("" if is_dense else _say(task, output))
        found.right.append(right)


def _say(task: Task, output: Tensor) -> str:
    """What an output means; of a kind that does not say, its numbers."""
    if not isinstance(task, CellTask):
        return ", ".join(f"{value:.4g}" for value in output.flatten()[:4].tolist())
    value = task.predict(output)[""][0]
    return f"{value:.4g} {getattr(task, 'unit', '')}".strip() if isinstance(value, float) else value


def _levels(image: Tensor) -> Tensor:
    """Levels from 0 to 255, uint8 (1 or 3, H, W); of numbers their own range."""
    if image.is_floating_point():
        least, most = image.min(), image.max()
        image = 255 * (image - least) / (most - least).clamp(min=1e-12)
    return image[: 3 if len(image) >= 3 else 1].to(torch.uint8)


def _reduce(image: Tensor) -> Tensor:
    height, width = image.shape[1:]
    factor = SIDE / max(height, width)
    if factor >= 1:
        return image
    size = max(1, round(height * factor)), max(1, round(width * factor))
    return F.interpolate(image[None].float(), size, mode="area")[0].round().to(torch.uint8)
