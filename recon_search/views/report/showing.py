"""Examples of what a model says, and what it gets wrong, as pictures, tables and histograms."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from recon_search.stages.examples import TaskExamples
from recon_search.tasks.mistakes import Mistakes
from recon_search.tasks.task import class_names
from recon_search.views.maps import paint
from recon_search.views.report.grid import Grid, Line
from recon_search.views.report.heat import level
from recon_search.views.report.svg import Scale, bottom_axis, drawing, number, reach, tag

MANY_CLASSES = 24
"""Above, the most frequent mistakes are named in place of a table of all."""

LARGEST = 176
"""Pixels of the longer side of a picture of an image or of pixels."""

NAMED = 10
"""Mistakes that are named."""


@dataclass(frozen=True)
class Shown:
    """One picture and what is said below it."""

    source: str
    alt: str
    caption: str
    mark: str = ""


@dataclass(frozen=True)
class Matrix:
    """Labels by answers.

    Attributes:
        names: of the classes.
        cells: of each label its answers: text and colour.
    """

    names: Sequence[str]
    cells: Sequence[Sequence[tuple[str, str]]]


@dataclass(frozen=True)
class TaskShown:
    """A task on the page.

    Attributes:
        name: of it.
        note: what is shown.
        examples: rows of pictures.
        open: whether it is unfolded.
        what: what the one of the following is that it has.
        matrix: confusion of few classes.
        grid: of labels, or the most frequent mistakes of many classes.
        plot: histogram of errors.
    """

    name: str
    note: str
    examples: list[list[Shown]]
    open: bool
    what: str = ""
    matrix: Matrix | None = None
    grid: Grid | None = None
    plot: Markup | None = None


def show(own: TaskExamples, *, is_open: bool = True) -> TaskShown:
    """Make pictures, tables and histograms of a task's examples."""
    is_dense = own.task.reads == "pyramid"
    rows = _dense(own) if is_dense else [_plain(own)]
    note = f"{own.n_labelled} labelled samples of the {own.part} part. "
    note += (
        "The first images: as the network sees them, the labels, the prediction."
        if is_dense
        else _which(own)
    )
    shown = TaskShown(own.task.name, note, [row for row in rows if row], is_open)
    if own.mistakes is None or not int(own.mistakes.counts.sum()):
        return shown
    return replace(shown, **_mistakes(own.mistakes))


def data_uri(image: NDArray[np.uint8] | Image.Image, *, photograph: bool = False) -> str:
    """Return an image as the address of itself."""
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    kind = "jpeg" if photograph else "png"
    picture.save(buffer, kind, **({"quality": 85} if photograph else {"optimize": True}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _which(own: TaskExamples) -> str:
    if all(right is None for right in own.right):
        return "The first samples."
    n = sum(bool(right) for right in own.right)
    return f"The first that are right ({n}) and the first that are wrong ({len(own.right) - n})."


def _plain(own: TaskExamples) -> list[Shown]:
    rows = zip(own.images, own.truth, own.said, own.right, strict=True)
    # What is right comes first.
    found = []
    for image, truth, said, right in sorted(rows, key=lambda row: row[3] is False):
        mark = "" if right is None else "right" if right else "wrong"
        caption = said if right else f"{said} (label {truth})"
        alt = f"predicted {said}, label {truth}"
        found.append(Shown(_uri(image), alt, caption, mark))
    return found


def _dense(own: TaskExamples) -> list[list[Shown]]:
    found = []
    for index, (image, (labels, answer)) in enumerate(
        zip(own.images, own.maps, strict=True), start=1
    ):
        name = own.task.name
        shown = [Shown(_uri(image), f"test image {index}", "image")]
        for what, picture in (("label", labels), ("prediction", answer)):
            flat = picture[0] if picture.ndim == 3 and len(picture) == 1 else picture
            painted = _fit(Image.fromarray(paint(own.task, flat)), smooth=False)
            shown.append(Shown(data_uri(painted), f"{name}, {what} of image {index}", what))
        found.append(shown)
    return found


def _uri(image: Tensor) -> str:
    pixels = image.numpy().transpose(1, 2, 0)
    is_colour = pixels.shape[2] == 3
    picture = Image.fromarray(pixels if is_colour else pixels[..., 0])
    return data_uri(_fit(picture, smooth=True), photograph=is_colour and max(pixels.shape) > 64)


def _fit(picture: Image.Image, *, smooth: bool) -> Image.Image:
    """Make what is too large smaller; browsers enlarge what is small."""
    factor = LARGEST / max(picture.size)
    if factor >= 1:
        return picture
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    how = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
    return picture.resize(size, how)


def _mistakes(own: Mistakes) -> dict[str, Any]:
    if own.shape == "histogram":
        return {"what": f"Errors: {own.what}", "plot": _histogram(own)}
    names = list(class_names(own.task)) or [str(i) for i in range(len(own.counts))]
    counts = own.counts.numpy()
    unit = "pixels" if own.task.reads == "pyramid" else "samples"
    if own.shape == "labels":
        return {"what": "Labels: right and wrong", "grid": _label_grid(names, counts)}
    if len(names) > MANY_CLASSES:
        return {"what": "The most frequent mistakes", "grid": _named(names, counts, unit)}
    sums = counts.sum(1, keepdims=True)
    shares = counts / np.maximum(sums, 1)
    cells = [
        [
            (f"{100 * share:.0f}" if n else "", level(float(share), 1.0))
            for share, n in zip(row, numbers, strict=True)
        ]
        for row, numbers in zip(shares, counts, strict=True)
    ]
    what = f"Confusion: of the {unit} of a label (row), % answered so (column)"
    return {"what": what, "matrix": Matrix(names, cells)}


def _named(names: Sequence[str], counts: NDArray[np.int64], unit: str) -> Grid:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:NAMED]
    sums = counts.sum(1)
    lines = []
    for a, b in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[a, b]:
            share = f"{100 * wrong[a, b] / sums[a]:.1f}"
            lines.append(Line([names[a], names[b], f"{wrong[a, b]}", share]))
    headings = ["label", "answer", unit, "% of the label"]
    return Grid("The most frequent mistakes", headings, lines, frozenset({0, 1}))


def _label_grid(names: Sequence[str], counts: NDArray[np.int64]) -> Grid:
    """Of each label how often it is found, and how often it is right where it is said."""
    wrong = counts[:, 1] + counts[:, 2]
    order = np.argsort(-wrong, kind="stable").tolist()
    lines = []
    for place, index in enumerate(order):
        hit, false, missed, _ = counts[index].tolist()
        lines.append(
            Line(
                [
                    names[index], str(hit + missed), str(missed), str(false),
                    _share(hit, hit + missed), _share(hit, hit + false),
                ],
                extra=len(order) > 16 and place >= 12,
            )
        )  # fmt: skip
    headings = ["label", "has it", "missed", "said wrongly", "recall, %", "precision, %"]
    return Grid("Labels, those with most mistakes first", headings, lines)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else ""


def _histogram(own: Mistakes) -> Markup:
    counts = own.counts.double() / own.counts.sum()
    low, high = own.edges[0], own.edges[-1]
    width, bottom = 340, 130
    x = Scale(low, high, 14, width - 14)
    y = Scale(0, reach(counts.tolist(), 0.0)[1], bottom, 12)
    bars = [
        tag("rect", tag("title", f"{number(a)} to {number(b)}: {share:.1%}"), x=x(a) + 0.5,
            width=max(x(b) - x(a) - 1, 0.5), y=y(share), height=bottom - y(share), class_="column")
        for (a, b), share in zip(itertools.pairwise(own.edges), counts.tolist(), strict=True)
    ]  # fmt: skip
    most = int(own.counts.argmax())
    label = (
        f"Histogram of the {own.what}: most frequent between {number(own.edges[most])} and "
        f"{number(own.edges[most + 1])}; those beyond the ends stand in the outermost bars."
    )
    return drawing(width, bottom + 24, bottom_axis(x, (12, bottom)), *bars, label=label)
