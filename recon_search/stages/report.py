"""One self-contained HTML page that a person would rather look at than read logs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recon_search import artefact
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import ArtefactError, in_one_line
from recon_search.graph.anatomy import dissect
from recon_search.graph.split import Split
from recon_search.model.facts import facts_of
from recon_search.model.files import read_config
from recon_search.model.foreign import backbone_of
from recon_search.model.inputs import input_of
from recon_search.recipe import Recipe
from recon_search.runs.comparison import Comparison
from recon_search.runs.folder import read_recipe
from recon_search.runs.result import HISTORY, Result
from recon_search.stages.examples import FILE as EXAMPLES
from recon_search.stages.examples import load_examples
from recon_search.stages.origin import read_origin
from recon_search.stages.split import reading_of
from recon_search.tasks.registry import create_task
from recon_search.views.exported import describe_export
from recon_search.views.outline import cost_table
from recon_search.views.ranking import ranking_table
from recon_search.views.report.answer import answer, its_joint, networks, the_split
from recon_search.views.report.comparing import (
    BESIDE,
    comparison_grid,
    dot_plot,
    legend,
    task_grid,
)
from recon_search.views.report.costs import cost_grid, cost_plot
from recon_search.views.report.curves import conflict_plot, loss_plot, task_plots
from recon_search.views.report.grid import FEW, Grid, Line, from_rich
from recon_search.views.report.heat import heat_maps
from recon_search.views.report.network import network_plot
from recon_search.views.report.page import render
from recon_search.views.report.showing import show
from recon_search.views.report.trials import search_plots
from recon_search.views.trials import describe_outcome, read_summary, trial_table

FEW_TASKS = 6
"""Tasks whose examples are unfolded."""


def write_report(out: Path) -> Path:
    """Write `report.html` from the artefacts of a run directory.

    Of a search that found no split better than none, there is no comparison to show. What earlier
    versions did not keep (examples, which training belongs to which row) is left out.

    Raises:
        ArtefactError: an artefact of the run is missing or damaged.
    """
    best = out / "best.json"  # where a search chose it
    resolved = best if best.is_file() else out / "recipe.json"
    recipe = read_recipe(resolved)
    scores = ConflictScores.load(out / "scores.safetensors")
    split = comparison = None
    if (out / "split.json").is_file() or not (out / "search.json").is_file():
        split = Split.load(out / "split.json")
        comparison = Comparison.load(out / "comparison.json")
    marked = tuple(split.layers) if split else ()
    switch = recipe.moments_of_split if recipe.split.when == "during" else ""
    trained = {} if comparison is None else _results(out, comparison)
    values = {
        "title": read_origin(out).get("recipe") or out.resolve().name,
        "lead": _lead(recipe, scores, split),
        "switch": switch,
        "judged": comparison and _judged(comparison, out, len(marked), len(scores.layers), switch),
        "heat": heat_maps(scores, recipe.split.threshold, marked),
        "any_marked": bool(marked),
        "ranking": _ranking(recipe, scores, max(1, len(marked))),
        "network": split and _network(out, recipe, split),
        "unmeasured": comparison is not None and recipe.train.measure_every == 0,
        "change": comparison and _change(comparison, trained, marked),
        "curves": comparison and _curves(recipe, comparison, trained),
        "examples": _examples(out),
        "search": _search(out, recipe),
        "origin": _origin(out, trained),
        "recipe": recipe.model_dump_json(indent=2),
    }
    artefact.write_text(out / "report.html", render(values))
    return out / "report.html"


def _lead(recipe: Recipe, scores: ConflictScores, split: Split | None) -> str:
    reading = f"by rule {recipe.split.rule}, S = {recipe.split.threshold:g}"
    choice = "no layer is split"
    if split is not None:
        choice = f"{len(split.layers)} of {len(scores.layers)} layers split {reading}"
        if recipe.split.when == "during":
            choice = (
                f"each network splits itself after {recipe.moments_of_split} of "
                f"{recipe.train.epochs} by what it has measured, all together {choice}"
            )
    names = scores.tasks
    more = f" and {len(names) - 6} more" if len(names) > 8 else ""
    tasks = ", ".join(names[:6] if more else names) + more
    return (
        f"{recipe.backbone.name} on {recipe.data.name}: tasks {tasks}; {choice}, from "
        f"{scores.steps} measured steps."
    )


def _judged(
    comparison: Comparison, out: Path, n_split: int, n_layers: int, switch: str
) -> dict[str, Any]:
    """Whether the split helped, and at what price."""
    columns = sum(map(len, comparison.directions.values()))
    return {
        "answer": answer(comparison, n_split, n_layers, switch),
        "exported": describe_export(comparison, out),
        "verdict": re.split(r"(?<=\.) (?=[A-Z])", comparison.verdict),
        "warning": comparison.warning,
        "several": len(comparison.seeds) > 1,
        "grid": comparison_grid(comparison),
        "tasks": task_grid(comparison) if columns > BESIDE else None,
        "dots": dot_plot(comparison),
        "costs": cost_grid(comparison),
        "flops": cost_plot(comparison, "flops"),
        "parameters": cost_plot(comparison, "parameters"),
        "legend": legend(networks(comparison)),
    }


def _ranking(recipe: Recipe, scores: ConflictScores, k: int) -> Grid:
    table = ranking_table(scores, recipe.split.rule, reading_of(recipe), k)
    found = from_rich(table, str(table.title), head=1)
    # Without bars; what layers are ranked by stands beside their names, where a telephone shows it.
    order = [0, 1, len(found.headings) - 2, *range(2, len(found.headings) - 2)]
    lines = [Line([line.cells[n] for n in order], line.style, line.extra) for line in found.lines]
    headings = [found.headings[n] for n in order]
    for first, second in scores.pairs:  # below each other, as names may hold what joins them
        joined = f"conflicts\n{first}-{second}"
        headings = [h.replace(joined, f"conflicts\n{first},\n{second}") for h in headings]
    left = frozenset(place for place, n in enumerate(order) if n in found.left)
    return Grid(found.caption, headings, lines, left, found.head, found.note)


def _network(out: Path, recipe: Recipe, split: Split) -> dict[str, Any]:
    """The network that the split makes."""
    model = read_config(out / "model")
    known = model.get("tasks")  # models of the first format have numbers of classes there
    tasks = [create_task(spec) for spec in known] if isinstance(known, list) else []
    shape, frozen = input_of(model)["shape"], recipe.train.freeze
    backbone = backbone_of(model.get("backbone") or {}, out / "model" / "config.json")
    facts = facts_of(backbone, shape, frozen, tasks=tasks)
    anatomy = dissect(facts.analysis, split, title=facts.config.name)
    table = cost_table(anatomy)
    return {
        "plot": network_plot(anatomy),
        "costs": from_rich(
            table,
            "What the split costs, without heads",
            is_extra=lambda row: FEW < row < table.row_count - 3,
        ),
    }


def _results(out: Path, comparison: Comparison) -> dict[str, list[Result]]:
    """Results of the trainings of every row that the folder holds."""
    found = {}
    for name, folders in comparison.trainings.items():
        results = [Result.load(out / folder) for folder in folders]
        known = [each for each in results if each is not None]
        if known and len(known) == len(results):
            found[name] = known
    return found


def _change(
    comparison: Comparison, trained: Mapping[str, Sequence[Result]], marked: Sequence[str]
) -> dict[str, Any] | None:
    """Conflicts before and after, where both trainings measured them."""
    joint, split = its_joint(comparison), the_split(comparison)
    before, after = (_measured(trained.get(row.name, ())) for row in (joint, split))
    if before is None or after is None:
        return None
    s = comparison.threshold
    words = (
        f"With S = {s:g}, {100 * before.share(s):.1f} % of steps, layers and pairs conflict in "
        f"joint training, and {100 * after.share(s):.1f} % in training of the split network."
    )
    return {"words": words, "plot": conflict_plot(before, after, s, marked)}


def _measured(results: Sequence[Result]) -> ConflictScores | None:
    """Scores of some trainings, added up."""
    paths = [result.directory / "scores.safetensors" for result in results]
    found = [ConflictScores.load(path) for path in paths if path.is_file()]
    total = None
    for each in found:
        if each.steps:
            total = each if total is None else total + each
    return total


def _curves(
    recipe: Recipe, comparison: Comparison, trained: Mapping[str, Sequence[Result]]
) -> dict[str, Any] | None:
    histories = {
        name: [own.history() for own in results if (own.directory / HISTORY).is_file()]
        for name, results in trained.items()
    }
    if not all(histories.get(row.name) for row in networks(comparison)):
        return None
    is_switched = recipe.split.when == "during" or recipe.compare.during
    switches = recipe.epochs_of_split if is_switched else ()
    return {
        "loss": loss_plot(comparison, histories, switches),
        "tasks": task_plots(comparison, histories),
    }


def _examples(out: Path) -> list[Any] | None:
    if not (out / EXAMPLES).is_file():
        return None
    found = load_examples(out / EXAMPLES)
    try:
        return [show(own, is_open=place < FEW_TASKS) for place, own in enumerate(found)]
    except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ArtefactError(
            f"Examples must be such as can be drawn, those of {out / EXAMPLES} cannot "
            f"({in_one_line(error)}). Delete it to do without."
        ) from None


def _search(out: Path, recipe: Recipe) -> dict[str, Any] | None:
    """What was tried, if a search chose the split."""
    if not (out / "search.json").is_file():
        return None
    summary = read_summary(out / "search.json")
    cost = "flops" if recipe.search.objective == "delta_m-flops" else "n_parameters"
    return {
        "words": f"{summary['tally']}; {describe_outcome(summary)}.",
        **search_plots(summary, cost),
        "trials": from_rich(trial_table(summary), "Trials, the best first; validation data"),
    }


def _origin(out: Path, trained: Mapping[str, Sequence[Result]]) -> dict[str, Any]:
    """Command, versions, machine and times."""
    found = read_origin(out)
    facts = []
    if found:
        environment = found["environment"]
        facts = [
            ("begun", found["begun"]),
            ("recon-search", environment["recon-search"]),
            ("Python", environment["python"]),
            *environment["packages"].items(),
            ("machine", f"{environment['platform']}, {environment['cores']} cores"),
            ("trained on", ", ".join(environment["cuda devices"]) or found["device"]),
        ]
    times = None
    if trained:
        seconds = {name: [own.seconds for own in results] for name, results in trained.items()}
        lines = [
            Line([name, str(len(own)), f"{sum(own) / len(own):,.1f}", f"{sum(own):,.1f}"])
            for name, own in seconds.items()
        ]
        total = sum(map(sum, seconds.values()))
        facts.append(("trainings", f"{sum(map(len, seconds.values()))} in {total:,.0f} s"))
        headings = ["network", "trainings", "seconds each", "seconds"]
        times = Grid("Seconds of training, as they passed", headings, lines)
    return {"command": found.get("command", ""), "facts": facts, "times": times}
