"""Does the split help? Single-task baselines, joint training and controls over paired seeds."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recon_search.conflict.rules import find_rule
from recon_search.conflict.scores import ConflictScores
from recon_search.graph.split import Split
from recon_search.model.source import untrained
from recon_search.recipe import BackboneConfig
from recon_search.runs.comparison import Comparison, Role
from recon_search.runs.judging import (
    Trained,
    choose_best,
    collect,
    describe_unmeasured,
    make_rows,
)
from recon_search.runs.pool import train_all
from recon_search.runs.result import Result
from recon_search.runs.run import Run
from recon_search.runs.training import Training
from recon_search.runs.verdict import verdict
from recon_search.stages.baselines import describe_doubts, doubts, judged_tasks
from recon_search.stages.borrow import borrowed_splits
from recon_search.stages.split import RANDOM_PARAMS, choose_by_rule, choose_control
from recon_search.stages.wider import widen
from recon_search.tasks.task import directions, units

WIDER = "wider joint network"
FILE = "comparison.json"


@dataclass(frozen=True)
class Line:
    """What will be one line of the table: one training a seed.

    Attributes:
        name: what to call it.
        role: see `Row`; `single` for a baseline.
        trainings: in the order of the seeds.
    """

    name: str
    role: Role | str
    trainings: tuple[Training, ...]


def compare(run: Run, split: Split, scores: ConflictScores) -> Comparison:
    """Train everything the recipe's `[compare]` names and write `comparison.json`.

    The first method's split network is *the split*: controls are trained by that method and
    differences are taken to it. The model to export is chosen on validation data among the split
    networks.
    """
    recipe, tasks = run.recipe, judged_tasks(run)
    lines = plan(run, split, scores)
    every = [training for line in lines for training in line.trainings]
    results = iter(train_all(every, run, "compare"))
    by_line = {line.name: [next(results) for _ in line.trainings] for line in lines}
    single = {
        task.name: by_line[line.name]
        for task, line in zip(tasks, lines, strict=False)  # the baselines come first
    }
    trained = [
        Trained(line.name, line.role, by_line[line.name], _conflicts(by_line[line.name], run))  # type: ignore[arg-type]
        for line in lines[len(tasks) :]
    ]
    judged_by = directions(tasks)
    average = recipe.compare.delta_m
    rows = make_rows(trained, single, judged_by, average)
    warnings = describe_unmeasured(single, judged_by), describe_doubts(doubts(single, judged_by))
    comparison = Comparison(
        seeds=list(_seeds(run)),
        threshold=recipe.split.threshold,
        directions=judged_by,
        single={task: collect(of, {task: ()})[task] for task, of in single.items()},
        single_parameters=sum(of[0].n_parameters for of in single.values()),
        rows=rows,
        verdict=" ".join([verdict(rows), *_left_out(run), *_missing(run, lines)]),
        best=choose_best(trained, single, judged_by, average),
        warning=" ".join(filter(None, warnings)),
        units=units(tasks),
        average=average,
        single_flops=sum(of[0].flops for of in single.values()),
        trainings={
            name: [f"{of.directory.parent.name}/{of.directory.name}" for of in each]
            for name, each in by_line.items()
        },
    )
    comparison.save(run.out / FILE)
    return comparison


def plan(run: Run, split: Split, scores: ConflictScores) -> list[Line]:
    """List what a comparison trains: the baselines first, one line a task."""
    recipe, names = run.recipe, run.schema.names
    first = recipe.compare.methods[0]

    def line(
        name: str,
        role: str,
        chosen: Split | Callable[[int], Split] | None = None,
        *,
        method: str = first,
        tasks: tuple[str, ...] = names,
        backbone: BackboneConfig = recipe.backbone,
    ) -> Line:
        config = recipe.train.model_copy(update={"method": method})
        if backbone != recipe.backbone and untrained(recipe.backbone) != recipe.backbone:
            config = config.model_copy(update={"freeze": []})  # drawn at random where it is wider
        splits = [chosen(seed) if callable(chosen) else chosen for seed in _seeds(run)]
        return Line(
            name,
            role,
            tuple(
                Training(tasks, own, config, backbone, seed, name)
                for seed, own in zip(_seeds(run), splits, strict=True)
            ),
        )

    lines = [
        line(f"single {task.name}", "single", method="joint", tasks=(task.name,))
        for task in judged_tasks(run)
    ]
    for method in recipe.compare.methods:
        lines.append(line(f"{method}, unsplit", "joint", method=method))
        lines.append(line(f"{method}, split", "split", split, method=method))
    for name, borrowed in borrowed_splits(run).items():
        lines.append(line(f"split from {name}", "borrowed", borrowed))
    for control in recipe.compare.controls:
        if control == "wider":
            wider = widen(recipe.backbone, split, run.schema.shape)
            if wider not in (None, recipe.backbone):
                assert wider is not None
                lines.append(line(WIDER, "control", backbone=wider))
            continue

        def draw(seed: int, control: str = control) -> Split:
            return choose_control(recipe, scores, control, split, seed)

        lines.append(line(control_name(control, split), "control", draw))
    for rule, k in itertools.product(recipe.compare.rules, recipe.compare.ks):

        def take(seed: int, rule: str = rule, k: int = k) -> Split:
            return choose_by_rule(recipe, scores, rule, k, seed)

        lines.append(line(f"rule {rule}, {k} layers", "rule", take))
    return lines


def count_trainings(run: Run) -> int:
    """How many trainings a comparison takes: about, for splits may turn out to be equal."""
    config = run.recipe.compare
    lines = len(judged_tasks(run)) + 2 * len(config.methods) + len(config.splits)
    lines += len(config.controls) + len(config.rules) * len(config.ks)
    return lines * config.seeds


def control_name(control: str, split: Split) -> str:
    """What to call a control of a split."""
    if control == RANDOM_PARAMS:
        return "random, same parameters"
    return find_rule(control).describe(len(split.layers))


def _seeds(run: Run) -> range:
    return range(run.recipe.seed, run.recipe.seed + run.recipe.compare.seeds)


def _left_out(run: Run) -> list[str]:
    """Say of which tasks delta_m is, where it is not of all."""
    judged = [task.name for task in judged_tasks(run)]
    if len(judged) == len(run.schema.names):
        return []
    few = ", ".join(f'"{name}"' for name in judged)
    return [f"delta_m is of {len(judged)} of the {len(run.schema.names)} tasks: {few}."]


def _missing(run: Run, lines: Sequence[Line]) -> list[str]:
    """Say which control could not be made."""
    if "wider" in run.recipe.compare.controls and all(line.name != WIDER for line in lines):
        return [
            f"There is no {WIDER}: no argument of {run.recipe.backbone.name} sets its width, or "
            "the split adds too little for a wider one."
        ]
    return []


def _conflicts(results: Sequence[Result], run: Run) -> float | None:
    """Share of measured triples in conflict, mean over seeds; None where none was measured."""
    shares = [
        scores.share(run.recipe.split.threshold)
        for result in results
        if (path := result.directory / "scores.safetensors").is_file()
        and (scores := ConflictScores.load(path)).steps
    ]
    return statistics.fmean(shares) if shares else None
