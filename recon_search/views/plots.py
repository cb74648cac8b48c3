"""Plots: conflicts by layer and threshold; and figures, written as they are."""

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
    undated = {"Date": None} if kind == "svg" else None  # equal figures give equal bytes
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        with matplotlib.rc_context({"svg.hashsalt": "recon-search"}):
            figure.savefig(target, format=kind, dpi=dpi, metadata=undated)
