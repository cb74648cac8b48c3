"""Does the split help? Single-task baselines, joint training and controls over paired seeds."""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from scipy.stats import ttest_rel

from recon_search import artefact
from recon_search.conflict.scores import ConflictScores
from recon_search.graph.split import Split
from recon_search.recipe import Recipe
from recon_search.runs.pool import train_all
from recon_search.runs.training import Training, data_on
from recon_search.stages.split import choose_by_rule, choose_control
from recon_search.stages.wider import widen
from recon_search.tasks.scoring import delta_m, mean_and_deviation

FORMAT = "recon-search/comparison/1"
SIGNIFICANCE = 0.05
WIDER = "wider joint network"


@dataclass(frozen=True)
class Row:
    """One line of the comparison: a way of training, over all seeds.

    Attributes:
        name: what was trained.
        role: `joint`, `split`, `rule` or `control`.
        accuracy: test accuracy by task, one value a seed, percent.
        delta_m: test delta_m against the single-task models of the same seed, one value a seed.
        n_parameters: mean over seeds, heads included.
        flops: of one forward pass for all tasks, mean over seeds.
        conflicts: share of (step, layer, pair) triples with cos < S, mean over seeds; nan if not
            measured.
        minus_split: mean and standard deviation over seeds of delta_m minus the split's.
        p_value: of the paired t test against the split; nan for fewer than 2 seeds.
    """

    name: str
    role: str
    accuracy: dict[str, list[float]]
    delta_m: list[float]
    n_parameters: float
    flops: float
    conflicts: float | None
    minus_split: tuple[float, float] | None
    p_value: float | None


def compare(
    recipe: Recipe,
    split: Split,
    scores: ConflictScores,
    out: Path,
    device: torch.device,
    console: Console,
    workers: int | None = None,
) -> dict[str, Any]:
    """Train everything the recipe's `[compare]` names and write `comparison.json`.

    The first method's split network is *the split*: controls are trained by that method and
    differences are taken to it. The model to export is chosen on validation data among the split
    networks.

    Returns:
        The content of `comparison.json`: `rows`, `single`, `verdict`, `best` and how it was chosen.
    """
    data = data_on(recipe.data, device)
    trainings = plan_trainings(recipe, split, scores, data.tasks, data.shape[0])
    results = train_all(
        trainings, recipe, out, device, title="compare", console=console, workers=workers
    )
    by_label: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        by_label.setdefault(result["label"], []).append(result)
    single = {task: by_label.pop(f"single {task}") for task in data.tasks}
    rows = _make_rows(by_label, single, recipe, out)
    comparison = {
        "format": FORMAT,
        "seeds": [recipe.seed + index for index in range(recipe.compare.seeds)],
        "threshold": recipe.split.threshold,
        "single": {
            task: [result["test"][task]["accuracy"] for result in runs]
            for task, runs in single.items()
        },
        "single_parameters": sum(runs[0]["n_parameters"] for runs in single.values()),
        "rows": [row.__dict__ for row in rows],
        "verdict": " ".join([verdict(rows), *_missing(recipe, by_label)]),
        "best": _choose_best(by_label, single),
    }
    artefact.write_json(out / "comparison.json", comparison)
    return comparison


def plan_trainings(
    recipe: Recipe, split: Split, scores: ConflictScores, tasks: tuple[str, ...], in_chans: int
) -> list[Training]:
    """List every training of a comparison."""
    trainings = []
    for seed in range(recipe.seed, recipe.seed + recipe.compare.seeds):

        def add(
            label: str,
            split: Split | None = None,
            method: str = recipe.compare.methods[0],
            *,
            of: tuple[str, ...] = tasks,
            backbone: Any = recipe.backbone,
            seed: int = seed,
        ) -> None:
            config = recipe.train.model_copy(update={"method": method})
            trainings.append(Training(label, of, split, config, backbone, seed))

        for task in tasks:
            add(f"single {task}", method="joint", of=(task,))
        for method in recipe.compare.methods:
            add(f"{method}, unsplit", method=method)
            add(f"{method}, split", split, method)
        for control in recipe.compare.controls:
            if control == "wider":
                wider = widen(recipe.backbone, split, in_chans)
                if wider not in (None, recipe.backbone):
                    add(WIDER, backbone=wider)
            else:
                chosen = choose_control(recipe, scores, control, split, seed)
                add(_control_label(control, split), chosen)
        for rule, k in itertools.product(recipe.compare.rules, recipe.compare.ks):
            add(_rule_label(rule, k), choose_by_rule(recipe, scores, rule, k, seed))
    return trainings


def verdict(rows: list[Row]) -> str:
    """Say in a sentence whether the split beats joint training and each control."""
    split = next(row for row in rows if row.role == "split")
    sentences = []
    against = {"joint": "joint training", "rule": "splits by rule", "control": "controls"}
    for role, what in against.items():
        others = [row for row in rows if row.role == role]
        beaten = [row.name for row in others if _outcome(row) == "beaten"]
        better = [row.name for row in others if _outcome(row) == "better"]
        level = [row.name for row in others if _outcome(row) == "level"]
        if not others:
            continue
        parts = []
        if beaten:
            parts.append(f"beats {', '.join(beaten)}")
        if level:
            parts.append(f"cannot be told from {', '.join(level)}")
        if better:
            parts.append(f"loses to {', '.join(better)}")
        sentences.append(f"Against {what}: {split.name} {'; '.join(parts)}.")
    if all(_outcome(row) == "beaten" for row in rows if row.role != "split"):
        head = "Success: the split beats everything it was compared with."
    else:
        head = "Not a success by this tool's standard: a split must beat all it is compared with."
    return " ".join([head, *sentences])


def _missing(recipe: Recipe, by_label: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Say which control could not be made."""
    if "wider" in recipe.compare.controls and WIDER not in by_label:
        return [
            f"There is no {WIDER}: no argument of {recipe.backbone.name} sets its width, or the "
            "split adds too little for a wider one."
        ]
    return []


def _outcome(row: Row) -> str:
    """Whether a row is beaten by the split, better than it, or level with it."""
    if row.minus_split is None or row.p_value is None or row.p_value >= SIGNIFICANCE:
        return "level"
    return "beaten" if row.minus_split[0] < 0 else "better"


def _make_rows(
    by_label: dict[str, list[dict[str, Any]]],
    single: dict[str, list[dict[str, Any]]],
    recipe: Recipe,
    out: Path,
) -> list[Row]:
    deltas = {
        label: [
            delta_m(
                result["test"], {task: runs[seed]["test"][task] for task, runs in single.items()}
            )
            for seed, result in enumerate(results)
        ]
        for label, results in by_label.items()
    }
    reference = deltas[f"{recipe.compare.methods[0]}, split"]
    rows = []
    for label, results in by_label.items():
        differences = [value - ours for value, ours in zip(deltas[label], reference, strict=True)]
        is_reference = deltas[label] is reference
        rows.append(
            Row(
                name=label,
                role=_role(label, recipe),
                accuracy={
                    task: [result["test"][task]["accuracy"] for result in results]
                    for task in single
                },
                delta_m=deltas[label],
                n_parameters=statistics.fmean(result["n_parameters"] for result in results),
                flops=statistics.fmean(result["flops"] for result in results),
                conflicts=_conflicts(results, recipe.split.threshold),
                minus_split=None if is_reference else mean_and_deviation(differences),
                p_value=None if is_reference else _p_value(deltas[label], reference),
            )
        )
    return rows


def _p_value(values: list[float], reference: list[float]) -> float | None:
    if len(values) < 2 or len({a - b for a, b in zip(values, reference, strict=True)}) == 1:
        return None
    return float(ttest_rel(values, reference).pvalue)


def _conflicts(results: list[dict[str, Any]], threshold: float) -> float | None:
    shares = [
        scores.share(threshold)
        for result in results
        if (path := Path(result["directory"]) / "scores.safetensors").is_file()
        and (scores := ConflictScores.load(path)).steps
    ]
    return statistics.fmean(shares) if shares else None


def _role(label: str, recipe: Recipe) -> str:
    for method in recipe.compare.methods:
        if label == f"{method}, unsplit":
            return "joint"
        if label == f"{method}, split":
            return "split"
    rules = itertools.product(recipe.compare.rules, recipe.compare.ks)
    return "rule" if label in itertools.starmap(_rule_label, rules) else "control"


def _rule_label(rule: str, k: int) -> str:
    return f"rule {rule}, {k} layers"


def _control_label(control: str, split: Split) -> str:
    return {
        "norm-only": "norm layers only",
        "random": f"random {len(split.layers)} layers",
        "random-params": "random, same parameters",
        "first-k": f"first {len(split.layers)} layers",
        "least": f"least conflict {len(split.layers)}",
        "smallest-first": f"smallest {len(split.layers)} layers",
    }[control]


def _choose_best(
    by_label: dict[str, list[dict[str, Any]]], single: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """The split network with the highest validation delta_m."""
    candidates = [
        (
            delta_m(
                result["validation"],
                {task: runs[seed]["validation"][task] for task, runs in single.items()},
            ),
            result,
        )
        for label, results in by_label.items()
        if label.endswith(", split")
        for seed, result in enumerate(results)
    ]
    value, result = max(candidates, key=lambda candidate: candidate[0])
    return {
        "label": result["label"],
        "seed": result["seed"],
        "validation_delta_m": value,
        "directory": result["directory"],
    }
