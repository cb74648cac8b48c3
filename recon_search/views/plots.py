"""Plots: conflicts by layer and threshold, and the comparison over seeds."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text

from recon_search import artefact
from recon_search.conflict.scores import ConflictScores
from recon_search.graph.naming import one_line
from recon_search.runs.comparison import Comparison

COLOURS = {
    "joint": "#7f7f7f",
    "split": "#c44e52",
    "borrowed": "#8172b3",
    "during": "#937860",
    "rule": "#dd8452",
    "control": "#4c72b0",
    "separate": "#55a868",
}
MARKERS = {
    "joint": "s",
    "split": "*",
    "borrowed": "X",
    "during": "v",
    "rule": "o",
    "control": "D",
    "separate": "P",
}


def heat_map(scores: ConflictScores, thresholds: Sequence[float] | None = None) -> Figure:
    """Draw the share of measured steps with cos < S for every layer (rows) and S (columns)."""
    columns = list(thresholds or np.round(np.arange(-0.5, 0.001, 0.02), 2))
    shares = np.stack(
        [scores.shares(float(s)).nanmean(-1).cpu().numpy() for s in columns], axis=1
    )  # (L, thresholds)
    n_layers = len(scores.layers)
    figure = Figure(figsize=(8, 1.5 + 0.19 * n_layers), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(100 * shares, aspect="auto", cmap="magma_r", interpolation="nearest")
    axes.set_yticks(range(n_layers), map(one_line, scores.layers), fontsize=7)
    ticks = range(0, len(columns), 5)
    axes.set_xticks(ticks, [f"{columns[tick]:.2f}" for tick in ticks])
    axes.set_xlabel("threshold S")
    axes.set_title("How often the tasks' gradients conflict: cos < S", fontsize=10)
    figure.colorbar(image, label="% of measured steps and pairs", shrink=0.6)
    return figure


def comparison_plot(comparison: Comparison) -> Figure:
    """Draw delta_m of every row: one dot a seed, the mean as a bar."""
    rows = [row for row in comparison.rows[::-1] if row.role != "separate"]
    figure = Figure(figsize=(8, 1.2 + 0.36 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for height, row in enumerate(rows):
        colour = COLOURS[row.role]
        values = row.delta_m
        axes.plot(values, [height] * len(values), "o", color=colour, alpha=0.55, markersize=5)
        axes.plot([np.mean(values)] * 2, [height - 0.3, height + 0.3], color=colour, linewidth=3)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [one_line(row.name) for row in rows])
    axes.set_xlabel("delta_m on test data, % (0: single-task models; right is better)")
    axes.grid(axis="x", alpha=0.3)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return figure


def trade_off_plot(comparison: Comparison) -> Figure:
    """Draw mean delta_m against parameters and against FLOPs, relative to the unsplit network.

    The dashed line is what mixtures of joint training and separate networks would give.
    """
    rows = comparison.rows
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    colours = matplotlib.colormaps["tab20"](np.arange(len(rows)) % 20)
    for axes, cost in zip(panels, ("n_parameters", "flops"), strict=True):
        for row, colour in zip(rows, colours, strict=True):
            x = getattr(row, cost) / getattr(rows[0], cost)
            y = float(np.mean(row.delta_m))
            marker = MARKERS[row.role]
            axes.plot(
                x, y, marker, color=colour, markersize=8, alpha=0.85, label=one_line(row.name)
            )
        ends = [rows[0], *(row for row in rows if row.role == "separate")]
        axes.plot(
            [getattr(row, cost) / getattr(rows[0], cost) for row in ends],
            [float(np.mean(row.delta_m)) for row in ends],
            "--",
            color="grey",
            linewidth=0.9,
            zorder=0,
        )
        axes.margins(x=0.1, y=0.1)
        axes.grid(alpha=0.3)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    panels[0].set_ylabel("mean delta_m, %")
    panels[0].set_xlabel("parameters, relative to the unsplit network")
    panels[1].set_xlabel("FLOPs, relative to the unsplit network")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG, or an SVG where `path` ends in .svg, atomically."""
    kind = "svg" if path.suffix == ".svg" else "png"
    content = io.BytesIO()
    draw(figure, content, kind, dpi=120)
    artefact.write_bytes(path, content.getvalue())


def draw(figure: Figure, target: Path | BinaryIO, kind: str, *, dpi: int) -> None:
    """Draw a figure, names of tasks and layers as they are: dollars are no mathematics.

    Characters that the font does not have are drawn as boxes, without a word.
    """
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(target, format=kind, dpi=dpi)
