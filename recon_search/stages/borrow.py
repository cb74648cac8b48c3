"""Splits from elsewhere: another run, other data, the orders of layers that others published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recon_search import artefact
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import RecipeError, ReconSearchError, SplitError, nearest
from recon_search.graph.split import Split, load_counts
from recon_search.recipe import find_ranking
from recon_search.runs.run import Run
from recon_search.stages.split import choose_split, lacking, versions

SCORES = ".safetensors"
"""How the name of a file of scores ends."""


def borrowed_splits(run: Run) -> dict[str, Split]:
    """Read the splits that `compare.splits` names, for the run's tasks and backbone.

    Raises:
        ReconSearchError: as `load_split`; the line begins with the key.
    """
    found = {}
    for name, config in run.recipe.compare.splits.items():
        mapping = run.recipe.compare.map if config.map is None else config.map
        try:
            found[name] = load_split(config.file, run, mapping)
        except ReconSearchError as error:
            raise type(error)(f"`compare.splits.{name}`: {error}") from None
    return found


def load_split(source: str | Path, run: Run, mapping: Mapping[str, str] | None = None) -> Split:
    """Read a split, from whatever data set, for the run's tasks and backbone.

    A layer that is private to every task that the split was found with is private to every task of
    the run, whatever these are called, and needs no mapping. Where tasks share copies by groups, a
    task of the run is the split's task of the same name, or the one that `mapping` says.

    Args:
        source: a split; scores of a probe or a table of counts, of which the recipe's `[split]`
            says how many layers are taken; the folder of a run, for its split or else its scores;
            or `published:NAME`.
        run: the recipe with its tasks and backbone.
        mapping: the run's task to the split's. None or empty where the names are the same.

    Raises:
        SplitError: it was made for another backbone, or its groups do not carry over.
        RecipeError: the recipe gives no `split.k` for a table of counts.
        ArtefactError: there is no such file, or it is none of these.
    """
    path = find_ranking(source)
    if path.suffix == SCORES:
        split = _carry(_from_scores(path, run), run.schema.names, mapping)
    elif _is_table(path):
        split = split_by_counts(run, path)
    else:
        split = _carry(Split.load(path), run.schema.names, mapping)
    split.check_trace(run.facts.analysis.pooled)
    return split


def split_by_counts(run: Run, source: str | Path) -> Split:
    """Split the first `split.k` layers of a table of counts, as Recon's authors published them.

    Raises:
        RecipeError: the recipe gives no `split.k`.
        SplitError: a layer is unknown to the backbone.
    """
    recipe, path = run.recipe, find_ranking(source)
    if recipe.split.k is None:
        raise RecipeError(
            f"A table of counts such as {path.name} needs `split.k`, the recipe has none. Pass "
            "--set split.k=25."
        )
    split = Split.private(
        list(load_counts(path))[: recipe.split.k],
        run.schema.names,
        backbone=run.facts.identity,
        chosen={"rule": "published counts", "k": recipe.split.k, "table": path.stem},
        provenance=versions(),
    )
    split.check_trace(run.facts.analysis.pooled)
    return split


def _from_scores(path: Path, run: Run) -> Split:
    """Choose as the recipe says from the scores of other tasks, once their backbone is the run's.

    Raises:
        SplitError: it is another.
        RecipeError: the scores do not say of what they are.
    """
    scores = ConflictScores.load(path)
    if missing := lacking(scores):
        raise RecipeError(
            f"Scores to split by must be what `recon-search probe` wrote, those in {path} lack "
            f"{', '.join(missing)}. Probe, or choose layers with recon_search.Split.private."
        )
    ours, theirs = run.facts.identity, scores.metadata["backbone"]
    if theirs["digest"] != ours["digest"]:
        raise SplitError(
            f"Scores to split by must be of the recipe's backbone, {ours['name']} with digest "
            f"{ours['digest']}, those in {path} are of {theirs['name']} with {theirs['digest']}. "
            "Use the same timm name and arguments."
        )
    return choose_split(run.recipe, scores, schema=run.schema)


def _carry(split: Split, tasks: tuple[str, ...], mapping: Mapping[str, str] | None) -> Split:
    """Carry a split over to other tasks.

    Raises:
        SplitError: the mapping names a task that is not there, or groups lack one.
    """
    for new, old in (mapping or {}).items():
        for name, known, whose in ((new, tasks, "recipe"), (old, split.tasks, "split")):
            if name not in known:
                raise SplitError(
                    f"A mapping of tasks must be RECIPE'S=SPLIT'S, the {whose} has no task "
                    f"'{name}' but {', '.join(known)}.{nearest(name, known)}"
                )
    matched = {task: task for task in tasks if task in split.tasks} | dict(mapping or {})
    missing = [task for task in tasks if task not in matched]
    shared = [name for name, groups in split.layers.items() if len(groups) < len(split.tasks)]
    if shared and missing:
        groups = " | ".join(" ".join(group) for group in split.layers[shared[0]])
        raise SplitError(
            f"A split with grouped tasks needs to know which of {', '.join(split.tasks)} is "
            f"'{missing[0]}', since layer '{shared[0]}' has the groups {groups}. Pass --map "
            f"'{missing[0]}'=NAME, or set `compare.map`."
        )
    carried = split.for_tasks(tasks, None if missing else matched)
    if split.layers and not carried.layers:
        pairs = ", ".join(f"{task} = {matched.get(task, '?')}" for task in tasks)
        raise SplitError(
            "A split must leave some layer with two copies for the recipe's tasks, those that they "
            f"stand for share every copy ({pairs}). Map them otherwise."
        )
    return carried


def _is_table(path: Path) -> bool:
    """Whether a file holds an object of numbers, as published counts do, and no split."""
    values: Any = artefact.read_json(path, "split")
    return (
        isinstance(values, dict)
        and bool(values)
        and all(isinstance(value, int | float) for value in values.values())
    )
