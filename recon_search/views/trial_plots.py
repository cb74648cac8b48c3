"""Plots of a search: delta_m over k and S, the front, importances, history."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from recon_search.search.importance import importances
from recon_search.search.measure import measure_of
from recon_search.search.rungs import last_value

COLOURS = (
    *("#c44e52", "#4c72b0", "#55a868", "#8172b3", "#dd8452", "#937860"),
    *("#da8bc3", "#8c8c8c", "#ccb974", "#64b5cd"),
)


WORDS = {"delta_m": "delta_m", "loss": "gain in loss"}
"""What a study's values are called."""

N_OF_VALUES = 4
"""Panels that show values of trials; the one after them shows shares."""


def search_plot(study: Study) -> Figure:
    """Draw four panels: delta_m over k, over S, against parameters, and as the search went on.

    Of a study that is judged by the loss, the gain in it stands for delta_m. A fifth shows which
    keys mattered, by Optuna's fANOVA, where four trials or more are complete.
    """
    trials = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if "same_as" not in trial.user_attrs
    ]
    panels: list[Callable[[Axes], None]] = [
        lambda axes: _over(axes, trials, "split.k", "k, the number of layers asked for"),
        lambda axes: _over(axes, trials, "split.threshold", "S, of rules that count"),
        lambda axes: _front(axes, study, trials),
        lambda axes: _history(axes, study),
    ]
    what = WORDS[measure_of(study)]
    if found := importances(study):
        panels.append(lambda axes: _bars(axes, found, what))
    figure = Figure(figsize=(11, 3.4 * -(-len(panels) // 2)), layout="constrained")
    for index, draw in enumerate(panels, start=1):
        axes = figure.add_subplot(-(-len(panels) // 2), 2, index)
        draw(axes)
        if index <= N_OF_VALUES:
            axes.set_ylabel(f"validation {what}, %")
        axes.grid(alpha=0.3)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return figure


def _over(axes: Axes, trials: list[FrozenTrial], path: str, label: str) -> None:
    """delta_m over one key, a colour a rule."""
    drawn = [trial for trial in trials if path in trial.params]
    rules = list(dict.fromkeys(trial.params.get("split.rule", "") for trial in trials))
    for rule, colour in zip(rules, itertools.cycle(COLOURS), strict=False):
        mine = [trial for trial in drawn if trial.params.get("split.rule", "") == rule]
        if mine:
            x = [trial.params[path] for trial in mine]
            axes.plot(x, [t.values[0] for t in mine], "o", color=colour, alpha=0.7, label=rule)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=path == "split.k"))
    axes.set_xlabel(label)
    if drawn:
        axes.legend(fontsize=8, frameon=False)


def _front(axes: Axes, study: Study, trials: list[FrozenTrial]) -> None:
    """delta_m against parameters, and the trials that no other beats in both."""
    cost = "flops" if _minimises_flops(study) else "n_parameters"
    known = [trial for trial in trials if cost in trial.user_attrs]
    points = [(trial.user_attrs[cost] / 1e6, trial.values[0]) for trial in known]
    axes.plot(*zip(*points, strict=True) if points else ([], []), "o", color="#4c72b0", alpha=0.6)
    front = pareto(points)
    axes.step(*zip(*front, strict=True) if front else ([], []), where="post", color="#c44e52")
    axes.set_xlabel("FLOPs of one image, millions" if cost == "flops" else "parameters, millions")


def _minimises_flops(study: Study) -> bool:
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return any(
        len(trial.values) > 1 and trial.values[1] == trial.user_attrs.get("flops")
        for trial in complete
    )


def pareto(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (cost, value) that none beats, cheapest first."""
    front: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or value > front[-1][1]:
            front.append((cost, value))
    return front


def _history(axes: Axes, study: Study) -> None:
    """delta_m of every trial in order, and the best so far."""
    best = float("-inf")
    line: list[tuple[int, float]] = []
    for trial in study.get_trials(deepcopy=False):
        if trial.state == TrialState.COMPLETE:
            same = "same_as" in trial.user_attrs
            style = "o" if not same else "."
            axes.plot(trial.number, trial.values[0], style, color="#7f7f7f", alpha=0.7)
            best = max(best, trial.values[0])
            line.append((trial.number, best))
        elif trial.state == TrialState.PRUNED and (last := last_value(trial)) is not None:
            axes.plot(trial.number, last, "x", color="#7f7f7f", alpha=0.7)
    if line:
        axes.step(*zip(*line, strict=True), where="post", color="#c44e52", label="best so far")
        axes.legend(fontsize=8, frameon=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trial (x: pruned, small: deduplicated)")


def _bars(axes: Axes, shares: dict[str, float], what: str) -> None:
    names = list(shares)[::-1]
    axes.barh(names, [shares[name] for name in names], color="#4c72b0")
    axes.set_xlabel(f"importance for {what} (fANOVA, keys drawn in every trial)")
