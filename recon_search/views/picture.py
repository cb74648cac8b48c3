"""The picture of a split network: a row a layer, a lane a task, colour where weights are private.

All lengths are inches: the axes fill the figure and one unit of data is one inch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from recon_search.graph.anatomy import Anatomy
from recon_search.graph.naming import name_of, short
from recon_search.graph.partition import Group

PALETTE = ("#c44e52", "#4c72b0", "#55a868", "#dd8452", "#8172b3", "#937860", "#da8bc3", "#64b5cd")
TRUNK, REUSED, INK, PALE = "#c3c9d1", "#f1f3f5", "#2b2f36", "#7c858f"
ROW, GAP, FORK, TOP, MARGIN = 0.21, 0.035, 0.26, 1.0, 0.25
LETTER = 0.068  # width of a letter of the small print


def picture(anatomy: Anatomy) -> Figure:
    """Draw which layers are computed how often, with whose weights, and at what cost.

    Tasks stand in the order that puts those that share side by side.
    """
    return _Drawing(anatomy).figure


class _Drawing:
    """A figure under way, from top to bottom."""

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.rows = anatomy.rows()
        self.order = _lane_order(anatomy)
        self.colours = {task: PALETTE[i % len(PALETTE)] for i, task in enumerate(anatomy.tasks)}
        longest = max([len(row.label) for row in self.rows], default=0)
        self.left = MARGIN + LETTER * max(22, min(60, longest)) + 0.1
        self.lane = min(2.6, max(0.3, 5.2 / len(anatomy.tasks)))
        self.right = self.left + self.lane * len(anatomy.tasks)
        runs = [(anatomy.tasks,), *(row.runs for row in self.rows)]
        forks = sum(above != below for above, below in itertools.pairwise(runs))
        costs = _stacked(anatomy.groups, self.order)
        width = self.right + 1.55
        height = TOP + ROW * len(self.rows) + FORK * forks + 0.42 * len(costs) + 1.55
        self.figure = Figure(figsize=(width, height), facecolor="white")
        self.axes: Axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(height, 0))
        self.axes.set_axis_off()
        self._head()
        y = self._network(TOP)
        y = self._costs(costs, y + 0.3)
        self._legend(y + 0.12)

    def _head(self) -> None:
        anatomy = self.anatomy
        size = " x ".join(map(str, anatomy.size))
        self._text(MARGIN, 0.25, f"{anatomy.title}, split for {len(anatomy.tasks)} tasks", size=13)
        self._text(
            MARGIN,
            0.52,
            f"{anatomy.n_split} of {len(anatomy.layers)} layers have private copies; "
            f"input {size}; data flows downwards",
            colour=PALE,
        )
        names = [name_of((task,)) for task in self.order]
        fits = max(len(name) for name in names) * LETTER < self.lane
        for index, name in enumerate(names):
            x = self.left + self.lane * (index + 0.5)
            shown = name if fits else name[: max(1, int(self.lane / LETTER))]
            colour = self.colours[self.order[index]]
            self._text(x, TOP - 0.14, shown, colour=colour, align="center", bold=True)
        self._text(MARGIN, TOP - 0.14, "layers", colour=PALE)
        self._text(self.right + 0.12, TOP - 0.14, "parameters x copies", colour=PALE)

    def _network(self, y: float) -> float:
        before: tuple[Group, ...] = (self.anatomy.tasks,)
        finest = before
        for row in self.rows:
            if row.runs != before:
                self._fork(before, row.runs, finest, y)
                y += FORK
                finest = max(finest, row.runs, key=len)
            middle = y + ROW / 2
            split = len(row.copies) > 1
            self._text(self.left - 0.1, middle, row.label, align="right", bold=split)
            for run in row.runs:
                self._cells(run, _holder(row.copies, run), len(row.runs) > 1, y)
            times = f" x {len(row.copies)}" if split else ""
            self._text(self.right + 0.12, middle, short(row.n_parameters) + times, bold=split)
            before = row.runs
            y += ROW
        return y

    def _cells(self, run: Group, copy: Group, forked: bool, y: float) -> None:
        """Draw what is computed once for the tasks of `run` with the weights of `copy`."""
        everyone = len(copy) == len(self.order)
        face = self._colour(copy)
        if everyone:
            face = REUSED if forked else TRUNK
        for start, end in self._spans(run):
            self._box(start, end, y + GAP, ROW - 2 * GAP, face, dashed=everyone and forked)
            name = name_of(copy)
            if not everyone and len(name) * LETTER < end - start:
                self._text((start + end) / 2, y + ROW / 2, name, 7, "white", "center")

    def _fork(
        self, above: Sequence[Group], below: Sequence[Group], finest: Sequence[Group], y: float
    ) -> None:
        """Draw lines from a block of tasks to those it falls into, and a word beside them."""
        if len(below) > len(finest):
            word = "forks"
            for group in below:
                ends = [self._middle(_holder(above, group)), self._middle(group)]
                self._line(ends, [y - GAP, y + FORK + GAP])
        elif len(below) < len(above):
            word = "side path, not forked"
        else:
            word = "back in the branches"
        self._text(self.left - 0.1, y + FORK / 2, word, colour=PALE, align="right", italic=True)

    def _costs(self, stacked: list[list[Group]], y: float) -> float:
        """Draw what each group of tasks has and computes, under its lanes."""
        cost = self.anatomy.cost
        self._text(self.left - 0.1, y + 0.3, "what it costs", align="right", bold=True)
        y += 0.12
        for groups in stacked:
            for group in groups:
                self._cost(group, y)
            y += 0.42
        parameters = cost.total_parameters / cost.base_parameters
        work = cost.total_flops / max(1, cost.base_flops)
        self._text(
            self.left + GAP,
            y + 0.08,
            f"total: {parameters:.2f} x the parameters and {work:.2f} x the FLOPs of the unsplit "
            f"backbone ({short(cost.base_parameters)}, {short(cost.base_flops, 'FLOPs')})",
        )
        return y + 0.3

    def _cost(self, group: Group, y: float) -> None:
        """Draw the cost of one group: once, in the first of its lanes that has room for it."""
        cost, everyone = self.anatomy.cost, len(group) == len(self.order)
        n_parameters, n_flops = cost.parameters.get(group, 0), cost.flops.get(group, 0)
        counts = [f"{short(n_parameters)} parameters"] if n_parameters else []
        counts += [short(n_flops, "FLOPs")] if n_flops else []
        tiny = f"{short(n_parameters)}\n{short(n_flops)}"
        texts = [", ".join(counts), "\n".join(counts).replace("parameters", "par.")]
        if everyone:
            texts[0] = f"shared by all: {texts[0]}"
            if reused := self.anatomy.reused_parameters:
                texts[0] += f"\n({short(reused)} of the parameters are used after a fork)"
        elif len(group) > 1:
            texts = [f"{name_of(group)}: {text}" for text in texts]
        else:  # many tasks, narrow lanes
            texts.append(tiny)
        spans = self._spans(group)
        for start, end in spans:
            self._box(start, end, y, 0.36, TRUNK if everyone else self._colour(group))
        for before, after in itertools.pairwise(spans):
            self._line([before[1], after[0]], [y + 0.18, y + 0.18])
        for text, (start, end) in itertools.product(texts, spans):
            size = 6 if text == tiny else 7.5
            if max(map(len, text.split("\n"))) * LETTER * size / 8 < end - start:
                ink = INK if everyone else "white"
                self._text((start + end) / 2, y + 0.18, text, size, ink, "center")
                return

    def _line(self, x: Sequence[float], y: Sequence[float]) -> None:
        self.axes.plot(x, y, color=PALE, linewidth=1.3, zorder=0)

    def _legend(self, y: float) -> None:
        entries = (
            (TRUNK, False, "trunk: computed once, for all tasks"),
            (REUSED, True, "after a fork: computed once per branch, all with the same weights"),
            (None, False, "private: weights of its own for one task, or for the group named"),
        )
        for face, dashed, text in entries:
            if face is None:
                edges = np.linspace(self.left, self.left + 0.4, 3)
                for task, start, end in zip(self.order, edges, edges[1:], strict=False):
                    self._box(start, end, y, 0.13, self.colours[task])
            else:
                self._box(self.left, self.left + 0.4, y, 0.13, face, dashed=dashed)
            self._text(self.left + 0.5, y + 0.07, text, colour=INK)
            y += 0.2

    def _spans(self, group: Group) -> list[tuple[float, float]]:
        """Return left and right edges of the lanes of a group, neighbours joined."""
        spans: list[tuple[int, int]] = []
        for index, task in enumerate(self.order):
            if task in group:
                if spans and spans[-1][1] == index:
                    spans[-1] = (spans[-1][0], index + 1)
                else:
                    spans.append((index, index + 1))
        left, lane = self.left, self.lane
        return [(left + lane * a + GAP, left + lane * b - GAP) for a, b in spans]

    def _middle(self, group: Group) -> float:
        start, end = self._spans(group)[0]
        return (start + end) / 2

    def _colour(self, group: Group) -> str:
        """A task's colour, or the mixture of a group's."""
        mixture = np.mean([to_rgb(self.colours[task]) for task in group], axis=0)
        return to_hex(mixture * (0.9 if len(group) > 1 else 1))

    def _box(
        self, start: float, end: float, y: float, height: float, face: str, dashed: bool = False
    ) -> None:
        self.axes.add_patch(
            FancyBboxPatch(
                (start, y),
                end - start,
                height,
                boxstyle="round,pad=0,rounding_size=0.03",
                facecolor=face,
                edgecolor=PALE if dashed else face,
                linestyle="--" if dashed else "-",
                linewidth=0.7,
            )
        )

    def _text(
        self,
        x: float,
        y: float,
        text: str,
        size: float = 8,
        colour: str = INK,
        align: str = "left",
        bold: bool = False,
        italic: bool = False,
    ) -> None:
        self.axes.text(
            x,
            y,
            text,
            fontsize=size,
            color=colour,
            ha=align,
            va="center",
            weight="bold" if bold else "normal",
            style="italic" if italic else "normal",
        )


def _holder(groups: Iterable[Group], members: Group) -> Group:
    """Return the group that the tasks `members` belong to."""
    return next(group for group in groups if members[0] in group)


def _lane_order(anatomy: Anatomy) -> list[str]:
    """Order the tasks so that those that part late stand side by side."""

    def path(task: str) -> list[int]:
        partitions = [row.runs for row in anatomy.layers] + [row.copies for row in anatomy.layers]
        return [next(i for i, g in enumerate(groups) if task in g) for groups in partitions]

    return sorted(anatomy.tasks, key=path)


def _stacked(groups: Sequence[Group], order: Sequence[str]) -> list[list[Group]]:
    """Put groups that do not lie over each other in one line, single tasks in one of their own."""
    lines: list[list[Group]] = []
    taken: list[set[int]] = []
    for group in groups:
        places = [order.index(task) for task in group]
        span = set(range(min(places), max(places) + 1))
        alike = lines and (len(lines[-1][0]) == 1) == (len(group) == 1)
        fits = alike and not taken[-1] & span
        if fits:
            lines[-1].append(group)
            taken[-1] |= span
        else:
            lines.append([group])
            taken.append(span)
    return lines
