"""Does the split help? Single-task baselines, joint training and controls over paired seeds."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recon_search.conflict.rules import count_layers
from recon_search.conflict.scores import ConflictScores
from recon_search.graph.split import Split
from recon_search.model.source import untrained
from recon_search.recipe import BackboneConfig, CopyConfig
from recon_search.runs.comparison import Comparison, Role
from recon_search.runs.judging import (
    Trained,
    best_on_validation,
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
from recon_search.stages.controls import (
    TUNED,
    choose_control,
    control_copies,
    control_name,
    weightings,
)
from recon_search.stages.during import SCORES, first_part, last_part, measure, split_of
from recon_search.stages.split import choose_by_budget, choose_by_rule
from recon_search.stages.wider import widen
from recon_search.tasks.task import directions, units

WIDER = "wider joint network"
FILE = "comparison.json"


@dataclass(frozen=True)
class Line:
    """What will be one line of the table: one training a seed.

    Attributes:
        name: what to call it.
        role: see `Row`; `single` for a baseline, `trial` for one of several of which the best on
            validation data becomes a row.
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

    With `split.when = "during"` every network with a split goes on with a first part, that of its
    method and seed, and the split rows choose by what theirs has measured, whatever `split` is:
    that gives controls their size.
    """
    if parts := first_parts(run):
        measure(run, [training for line in parts for training in line.trainings])
    lines = plan(run, split, scores)
    every = [training for line in lines for training in line.trainings]
    found = iter(train_all(every, run, "compare"))
    by_line = {line.name: [next(found) for _ in line.trainings] for line in lines}
    comparison = conclude(run, split, lines, by_line)
    comparison.save(run.out / FILE)
    return comparison


def conclude(
    run: Run, split: Split, lines: Sequence[Line], found: Mapping[str, Sequence[Result]]
) -> Comparison:
    """Judge what was trained.

    Args:
        run: whose tasks, seeds and threshold these are.
        split: gives controls their names.
        lines: of `plan`, and perhaps more after these.
        found: by name of each line its results, of the first seeds of the run or of all. A line
            that is not there becomes no row, but baselines and one of role `split` must be; of
            trials of one control all or none.
    """
    recipe, tasks, by_line = run.recipe, judged_tasks(run), dict(found)
    notes = [*_left_out(run), *_missing(run, lines)]
    lines = [line for line in lines if line.name in found]
    single = {
        task.name: by_line[line.name]
        for task, line in zip(tasks, lines, strict=False)  # the baselines come first
    }
    judged_by = directions(tasks)
    average = recipe.compare.delta_m
    trials = [line for line in lines if line.role == "trial"]
    trained = [
        Trained(line.name, line.role, by_line[line.name], _conflicts(by_line[line.name], run))  # type: ignore[arg-type]
        for line in lines[len(tasks) :]
        if line.role != "trial"
    ]
    if trials:
        results = [by_line.pop(line.name) for line in trials]
        place = best_on_validation(results, single, judged_by, average)
        tuned = control_name(TUNED, recipe, split)
        by_line[tuned] = results[place]
        row = Trained(tuned, "control", results[place], _conflicts(results[place], run))
        trained.insert(lines.index(trials[0]) - len(tasks), row)
        notes.append(_describe_weights(tuned, trials, place, len(results[place])))
    rows = make_rows(trained, single, judged_by, average)
    warnings = describe_unmeasured(single, judged_by), describe_doubts(doubts(single, judged_by))
    return Comparison(
        seeds=list(seeds_of(run))[: len(next(iter(single.values())))],
        threshold=recipe.split.threshold,
        directions=judged_by,
        single={task: collect(of, {task: ()})[task] for task, of in single.items()},
        single_parameters=sum(of[0].n_parameters for of in single.values()),
        rows=rows,
        verdict=" ".join([verdict(rows), *notes]),
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


def plan(run: Run, split: Split, scores: ConflictScores) -> list[Line]:
    """List what a comparison trains: the baselines first, one line a task.

    First parts that are not done yet are taken to choose `split`.
    """
    recipe, names = run.recipe, run.schema.names
    first, is_during = recipe.compare.methods[0], recipe.split.when == "during"

    def line(
        name: str,
        role: str,
        chosen: Split | Callable[[int], Split] | None = None,
        *,
        method: str = first,
        backbone: BackboneConfig = recipe.backbone,
        copies: CopyConfig = recipe.split.copies,
        **changes: Any,
    ) -> Line:
        config = recipe.train.model_copy(update={"method": method, **changes})
        if backbone != recipe.backbone and untrained(recipe.backbone) != recipe.backbone:
            config = config.model_copy(update={"freeze": []})  # drawn at random where it is wider
        trainings = []
        for seed in seeds_of(run):
            own = chosen(seed) if callable(chosen) else chosen
            if is_during and own is not None and copies.kind == "full":
                trainings.append(last_part(first_part(run, seed, method), own, run, name))
            else:
                trainings.append(Training(names, own, config, backbone, seed, name, copies=copies))
        return Line(name, role, tuple(trainings))

    def switched(name: str, role: str, method: str) -> Line:
        parts = [first_part(run, seed, method) for seed in seeds_of(run)]
        trainings = [last_part(part, split_of(part, run) or split, run, name) for part in parts]
        return Line(name, role, tuple(trainings))

    at = f"at {recipe.moments_of_split}"
    lines = single_lines(run)
    for method in recipe.compare.methods:
        lines.append(line(f"{method}, unsplit", "joint", method=method))
        if is_during:
            lines.append(switched(f"{method}, split {at}", "split", method))
        else:
            lines.append(line(f"{method}, split", "split", split, method=method))
    if recipe.compare.during:
        lines.append(switched(f"split during training, {at}", "during", first))
    for name, borrowed in borrowed_splits(run).items():
        lines.append(line(f"split from {name}", "borrowed", borrowed))
    for control in recipe.compare.controls:
        if control == "wider":
            wider = widen(recipe.backbone, split, run.schema.shape, recipe.split.copies)
            if wider not in (None, recipe.backbone):
                assert wider is not None
                lines.append(line(WIDER, "control", backbone=wider))
            continue
        name = control_name(control, recipe, split)
        copies = control_copies(control, recipe)
        if control == TUNED:
            tried = weightings(recipe, names)
            for number, weights in enumerate(tried, start=1):
                of = f"loss weighting {number} of {len(tried)}"
                lines.append(line(of, "trial", weights=weights))
        elif control == "sparse":
            lines.append(line(name, "control", update_share=recipe.compare.update_share))
        elif control == "low-rank":
            lines.append(line(name, "control", split, copies=copies))
        else:

            def draw(seed: int, control: str = control) -> Split:
                return choose_control(recipe, scores, control, split, seed, schema=run.schema)

            lines.append(line(name, "control", draw, copies=copies))
    for rule, k in itertools.product(recipe.compare.rules, recipe.compare.ks):

        def take(seed: int, rule: str = rule, k: int = k) -> Split:
            return choose_by_rule(recipe, scores, rule, k, seed)

        lines.append(line(f"rule {rule}, {count_layers(k)}", "rule", take))
    for rule, budget in itertools.product(recipe.compare.rules, recipe.compare.budgets):

        def fill(seed: int, rule: str = rule, budget: str = budget) -> Split:
            return choose_by_budget(recipe, scores, rule, budget, seed, run.schema)

        lines.append(line(f"rule {rule}, {budget} FLOPs", "rule", fill))
    return lines


def count_trainings(run: Run) -> int:
    """How many trainings a comparison takes: about, for splits may turn out to be equal."""
    config = run.recipe.compare
    lines = len(judged_tasks(run)) + 2 * len(config.methods) + len(config.splits)
    lines += len(config.controls) + len(config.rules) * len([*config.ks, *config.budgets])
    lines += config.weight_trials * (TUNED in config.controls) + config.during
    return (lines + len(first_parts(run))) * config.seeds


def single_lines(run: Run) -> list[Line]:
    """The baselines: a line for each task that has a single-task model."""
    config = run.recipe.train.model_copy(update={"method": "joint", "weights": {}})
    lines = []
    for task in judged_tasks(run):
        name = f"single {task.name}"
        trainings = [
            Training((task.name,), None, config, run.recipe.backbone, seed, name)
            for seed in seeds_of(run)
        ]
        lines.append(Line(name, "single", tuple(trainings)))
    return lines


def first_parts(run: Run) -> list[Line]:
    """What is trained before splits in the midst of training, a line a method; often nothing."""
    compare = run.recipe.compare
    methods = compare.methods if run.recipe.split.when == "during" else compare.methods[:1]
    if run.recipe.split.when == "before" and not compare.during:
        return []
    lines = []
    for method in methods:
        trainings = tuple(first_part(run, seed, method) for seed in seeds_of(run))
        lines.append(Line(trainings[0].label, "part", trainings))
    return lines


def probe_in_training(run: Run) -> ConflictScores:
    """Train the first parts of the first method and write what all seeds have measured."""
    scores = measure(run, first_parts(run)[0].trainings)
    scores.save(run.out / SCORES)
    return scores


def seeds_of(run: Run) -> range:
    """The seeds over which a run compares."""
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


def _describe_weights(name: str, trials: Sequence[Line], place: int, n_seeds: int) -> str:
    """Say what weights a row has, and among how many they were chosen."""
    weights = trials[place].trainings[0].train.weights
    said = ", ".join(f"{task} {weight:g}" for task, weight in weights.items()) or "those given"
    n = len(trials) * n_seeds
    return (
        f'"{name}" has the weights of the highest mean delta_m on validation data ({said}), and '
        f"took {n} trainings."
    )


def _conflicts(results: Sequence[Result], run: Run) -> float | None:
    """Share of measured triples in conflict, mean over seeds; None where none was measured."""
    shares = [
        scores.share(run.recipe.split.threshold)
        for result in results
        if (path := result.directory / "scores.safetensors").is_file()
        and (scores := ConflictScores.load(path)).steps
    ]
    return statistics.fmean(shares) if shares else None
