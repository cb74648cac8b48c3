"""How a split network is drawn: a row a layer, a lane a task, colour where weights are private.

What is drawn on is a canvas: a figure for files, or inline SVG on a page. All lengths are inches,
downwards from the top left.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

from recon_search.graph.anatomy import Anatomy
from recon_search.graph.naming import name_of, short
from recon_search.graph.partition import Group

ROW, GAP, FORK, MARGIN = 0.21, 0.035, 0.26, 0.25
LETTER = 0.068  # width of a letter of the small print
LONGEST = 20  # letters of a task's name that is written aslant

Face = Group | Literal["trunk", "reused"]
"""Whose weights: of some tasks, of all before any fork, of all after one."""

Ink = Group | Literal["ink", "pale", "inside"]
"""Of the colour of tasks, plain, less important, or on the colour of tasks."""

Align = Literal["left", "center", "right"]


class Canvas(Protocol):
    """What a network is drawn on."""

    def box(self, start: float, end: float, y: float, height: float, face: Face) -> None:
        """Draw a box; one whose weights are reused is dashed."""

    def line(self, x: Sequence[float], y: Sequence[float]) -> None:
        """Draw a line behind all boxes."""

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 8,
        ink: Ink = "ink",
        align: Align = "left",
        bold: bool = False,
        italic: bool = False,
        slanted: bool = False,
    ) -> None:
        """Write text around the height y; what is slanted begins at (x, y) and rises."""


class Lanes:
    """The places of everything in the picture of a network.

    Tasks stand in the order that puts those that share side by side.

    Args:
        anatomy: what is drawn.

    Attributes:
        width: of the whole.
        height: likewise.
        order: of the tasks, from left to right.
    """

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.order = _lane_order(anatomy)
        self._rows = anatomy.rows()
        longest = max([len(row.label) for row in self._rows], default=0)
        self._left = MARGIN + LETTER * max(22, min(60, longest)) + 0.1
        self._lane = min(2.6, max(0.3, 5.2 / len(anatomy.tasks)))
        self._right = self._left + self._lane * len(anatomy.tasks)
        self._names = [name_of((task,)) for task in self.order]
        longest = min(LONGEST, max(map(len, self._names)))
        self._fits = longest * LETTER < self._lane
        self._top = 1.0 if self._fits else 0.9 + longest * LETTER * 0.75
        runs = [(anatomy.tasks,), *(row.runs for row in self._rows)]
        forks = sum(above != below for above, below in itertools.pairwise(runs))
        self._stacked = _stacked(anatomy.groups, self.order)
        self.width = self._right + 1.55
        n_rows, n_costs = len(self._rows), len(self._stacked)
        self.height = self._top + ROW * n_rows + FORK * forks + 0.42 * n_costs + 1.55

    def draw(self, canvas: Canvas) -> None:
        """Draw which layers are computed how often, with whose weights, and at what cost."""
        self._head(canvas)
        y = self._network(canvas, self._top)
        y = self._costs(canvas, y + 0.3)
        self._legend(canvas, y + 0.12)

    def _head(self, canvas: Canvas) -> None:
        anatomy, y = self.anatomy, self._top - 0.14
        size = " x ".join(map(str, anatomy.size))
        title = f"{anatomy.title}, split for {len(anatomy.tasks)} tasks"
        canvas.text(MARGIN, 0.25, title, size=13)
        canvas.text(
            MARGIN,
            0.52,
            f"{anatomy.n_split} of {len(anatomy.layers)} layers have private copies; "
            f"input {size}; data flows downwards",
            ink="pale",
        )
        for index, (task, name) in enumerate(zip(self.order, self._names, strict=True)):
            x = self._left + self._lane * (index + 0.5)
            if self._fits:
                canvas.text(x, y, name, ink=(task,), align="center", bold=True)
            else:
                name = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
                canvas.text(x, y + 0.06, name, ink=(task,), bold=True, slanted=True)
        canvas.text(MARGIN, y, "layers", ink="pale")
        canvas.text(self._right + 0.12, y, "parameters x copies", ink="pale")

    def _network(self, canvas: Canvas, y: float) -> float:
        before: tuple[Group, ...] = (self.anatomy.tasks,)
        finest = before
        for row in self._rows:
            if row.runs != before:
                self._fork(canvas, before, row.runs, finest, y)
                y += FORK
                finest = max(finest, row.runs, key=len)
            middle = y + ROW / 2
            split = len(row.copies) > 1
            canvas.text(self._left - 0.1, middle, row.label, align="right", bold=split)
            for run in row.runs:
                self._cells(canvas, run, _holder(row.copies, run), len(row.runs) > 1, y)
            times = f" x {len(row.copies)}" if split else ""
            canvas.text(self._right + 0.12, middle, short(row.n_parameters) + times, bold=split)
            before = row.runs
            y += ROW
        return y

    def _cells(self, canvas: Canvas, run: Group, copy: Group, forked: bool, y: float) -> None:
        """Draw what is computed once for the tasks of `run` with the weights of `copy`."""
        everyone = len(copy) == len(self.order)
        face: Face = copy
        if everyone:
            face = "reused" if forked else "trunk"
        for start, end in self._spans(run):
            canvas.box(start, end, y + GAP, ROW - 2 * GAP, face)
            name = name_of(copy)
            if not everyone and len(name) * LETTER < end - start:
                middle = (start + end) / 2
                canvas.text(middle, y + ROW / 2, name, size=7, ink="inside", align="center")

    def _fork(
        self,
        canvas: Canvas,
        above: Sequence[Group],
        below: Sequence[Group],
        finest: Sequence[Group],
        y: float,
    ) -> None:
        """Draw lines from a block of tasks to those it falls into, and a word beside them."""
        if len(below) > len(finest):
            word = "forks"
            for group in below:
                ends = [self._middle(_holder(above, group)), self._middle(group)]
                canvas.line(ends, [y - GAP, y + FORK + GAP])
        elif len(below) < len(above):
            word = "side path, not forked"
        else:
            word = "back in the branches"
        canvas.text(self._left - 0.1, y + FORK / 2, word, ink="pale", align="right", italic=True)

    def _costs(self, canvas: Canvas, y: float) -> float:
        """Draw what each group of tasks has and computes, under its lanes."""
        cost = self.anatomy.cost
        canvas.text(self._left - 0.1, y + 0.3, "what it costs", align="right", bold=True)
        y += 0.12
        for groups in self._stacked:
            for group in groups:
                self._cost(canvas, group, y)
            y += 0.42
        parameters = cost.total_parameters / cost.base_parameters
        work = cost.total_flops / max(1, cost.base_flops)
        canvas.text(
            self._left + GAP,
            y + 0.08,
            f"total: {parameters:.2f} x the parameters and {work:.2f} x the FLOPs of the unsplit "
            f"backbone ({short(cost.base_parameters)}, {short(cost.base_flops, 'FLOPs')})",
        )
        return y + 0.3

    def _cost(self, canvas: Canvas, group: Group, y: float) -> None:
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
            canvas.box(start, end, y, 0.36, "trunk" if everyone else group)
        for before, after in itertools.pairwise(spans):
            canvas.line([before[1], after[0]], [y + 0.18, y + 0.18])
        ink: Ink = "ink" if everyone else "inside"
        for text, (start, end) in itertools.product(texts, spans):
            size = 6 if text == tiny else 7.5
            if max(map(len, text.split("\n"))) * LETTER * size / 8 < end - start:
                middle = (start + end) / 2
                canvas.text(middle, y + 0.18, text, size=size, ink=ink, align="center")
                return

    def _legend(self, canvas: Canvas, y: float) -> None:
        left, entries = self._left, (
            ("trunk", "trunk: computed once, for all tasks"),
            ("reused", "after a fork: computed once per branch, all with the same weights"),
            (None, "private: weights of its own for one task, or for the group named"),
        )  # fmt: skip
        for face, text in entries:
            if face is None:
                for place, task in enumerate(self.order[:2]):
                    canvas.box(left + 0.2 * place, left + 0.2 * (place + 1), y, 0.13, (task,))
            else:
                canvas.box(left, left + 0.4, y, 0.13, face)  # type: ignore[arg-type]
            canvas.text(left + 0.5, y + 0.07, text)
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
        left, lane = self._left, self._lane
        return [(left + lane * a + GAP, left + lane * b - GAP) for a, b in spans]

    def _middle(self, group: Group) -> float:
        start, end = self._spans(group)[0]
        return (start + end) / 2


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
