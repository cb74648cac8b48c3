"""From scores to a split: which layers get private copies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import timm
import torch

import recon_search
from recon_search.conflict.grouping import cluster_tasks, group_tasks
from recon_search.conflict.rules import Reading, n_parameters, rank, within_budget
from recon_search.conflict.scores import ConflictScores
from recon_search.data.source import Schema
from recon_search.errors import RecipeError
from recon_search.graph.split import Split
from recon_search.model.copies import surplus
from recon_search.model.facts import Facts, facts_of
from recon_search.recipe import Recipe, SplitConfig
from recon_search.runs.run import Run

FROM_PROBE = ("backbone", "layer_infos", "recipe", "seeds")
"""What a probe notes beside its scores."""


def reading_of(recipe: Recipe, seed: int = 0) -> Reading:
    """How the recipe reads scores."""
    return Reading(recipe.split.threshold, recipe.probe.window, seed)


def choose_split(
    recipe: Recipe,
    scores: ConflictScores,
    max_params: str | None = None,
    *,
    schema: Schema | None = None,
) -> Split:
    """Choose the layers as the recipe's `[split]` says.

    Args:
        recipe: the recipe.
        scores: of the probe.
        max_params: a budget beside `split.k`, as "1.2x" of the unsplit backbone; layers that do not
            fit are passed over.
        schema: of the data; `split.max_flops` needs its tasks and the shape of its images.

    Raises:
        RecipeError: `split.k` is larger than the number of layers, or the rule is unknown.
    """
    chosen = choose_layers(recipe, scores, max_params, schema=schema)
    return plan(chosen, scores, recipe.split.rule, recipe)


def choose_further(recipe: Recipe, scores: ConflictScores, before: Split | None, k: int) -> Split:
    """Choose what is split already, and after it the worst of the other layers: `k` in all.

    Args:
        recipe: the recipe; limits of its `[split]` are not looked at.
        scores: of the network that is split so far.
        before: how it is split; None where it is not.
        k: number of layers.
    """
    known = [] if before is None else list(before.chosen["ranking"])
    ranking = [layer for layer, _ in rank(scores, recipe.split.rule, reading_of(recipe))]
    further = [layer for layer in ranking if layer not in known]
    return plan([*known, *further][:k], scores, recipe.split.rule, recipe)


def first_layers(split: Split, k: int) -> Split:
    """The part of a split that was chosen first: `k` layers, or all where it has no more."""
    order = [name for name in split.chosen.get("ranking", split.layers) if name in split.layers]
    return replace(
        split, layers={name: of for name, of in split.layers.items() if name in order[:k]}
    )


def choose_layers(
    recipe: Recipe,
    scores: ConflictScores,
    max_params: str | None = None,
    *,
    schema: Schema | None = None,
) -> list[str]:
    """Choose the layers as the recipe's `[split]` says, worst first.

    Args:
        recipe: the recipe.
        scores: of the probe.
        max_params: as `choose_split` takes it; and so the others.
        schema: see `choose_split`.

    Raises:
        RecipeError: as `choose_split`.
    """
    ranking = [layer for layer, _ in rank(scores, recipe.split.rule, reading_of(recipe))]
    budget = recipe.split.max_params or max_params
    if budget is not None:
        whole = sum(n_parameters(scores)) + scores.metadata.get("n_frozen", 0)
        added = int(max(0.0, _factor(budget) - 1.0) * whole)
        ranking = within_budget(ranking, added_by(recipe, scores, schema), added)
    if recipe.split.k is not None:
        check_k(recipe, len(scores.layers))
    if recipe.split.max_flops is not None:
        return _within_flops(ranking, scores, recipe, schema, recipe.split.max_flops)
    return ranking[: recipe.split.k]


def added_by(
    recipe: Recipe, scores: ConflictScores, schema: Schema | None = None
) -> dict[str, int]:
    """Return the parameters that a private copy of each layer for every task adds."""
    further, copies = len(scores.tasks) - 1, recipe.split.copies
    sizes = dict(zip(scores.layers, n_parameters(scores), strict=True))
    whole = {layer: further * size for layer, size in sizes.items()}
    if copies.kind == "full":
        return whole
    analysis = facts_for(recipe, schema, "split.copy").analysis
    return {
        layer: size + surplus(analysis, Split.private([layer], scores.tasks), copies)
        for layer, size in whole.items()
    }


def facts_for(recipe: Recipe, schema: Schema | None, key: str) -> Facts:
    """Look up the backbone that a key needs to know beside the scores.

    Raises:
        RecipeError: there is no schema to tell the shape of its images.
    """
    if schema is None:
        raise RecipeError(f"`{key}` needs to know the data, got no schema. Pass schema=.")
    return facts_of(recipe.backbone, schema.shape, recipe.train.freeze, tasks=schema.tasks)


def _within_flops(
    ranking: list[str],
    scores: ConflictScores,
    recipe: Recipe,
    schema: Schema | None,
    max_flops: str,
) -> list[str]:
    """Take up to `split.k` layers in order while the network stays within `max_flops`.

    A layer that does not fit is passed over until one is taken that forks earlier: after a fork
    further layers cost nothing more.
    """
    analysis = facts_for(recipe, schema, "split.max_flops").analysis
    limit, most = _factor(max_flops), recipe.split.k
    chosen: list[str] = []
    n_before = -1
    while len(chosen) > n_before:
        n_before = len(chosen)
        for layer in [layer for layer in ranking if layer not in chosen]:
            if most is not None and len(chosen) >= most:
                return chosen
            more = [*chosen, layer]
            if recipe.split.grouping == "private":
                ratio = analysis.flops_of_private(more, len(scores.tasks))
            else:
                ratio = analysis.flops_of(plan(more, scores, recipe.split.rule, recipe))
            if ratio <= limit:
                chosen = more
    return chosen


def _factor(text: str) -> float:
    return float(text.removesuffix("x"))


def choose_by_rule(recipe: Recipe, scores: ConflictScores, rule: str, k: int, seed: int) -> Split:
    """Choose the first `k` layers by a rule, random orders drawn from `seed`."""
    ranking = [layer for layer, _ in rank(scores, rule, reading_of(recipe, seed))]
    return plan(ranking[:k], scores, rule, recipe)


def choose_by_budget(
    recipe: Recipe, scores: ConflictScores, rule: str, max_flops: str, seed: int, schema: Schema
) -> Split:
    """Choose the layers that a FLOPs budget as "1.3x" has room for, up to `split.k`, by a rule."""
    ranking = [layer for layer, _ in rank(scores, rule, reading_of(recipe, seed))]
    chosen = _within_flops(ranking, scores, recipe, schema, max_flops)
    split = plan(chosen, scores, rule, recipe)
    return replace(split, chosen={**split.chosen, "max_flops": max_flops})


def plan(chosen: list[str], scores: ConflictScores, rule: str, recipe: Recipe) -> Split:
    """Write down a split of the layers `chosen` and where it comes from.

    With `split.grouping = "colour"` tasks that do not conflict in a layer keep sharing a copy of
    it; a layer in which nobody conflicts often enough is then not split. With "affinity" the same
    groups share the copies of every layer.
    """
    config = recipe.split
    order = {layer: index for index, layer in enumerate(scores.layers)}
    groups = _group(sorted(chosen, key=order.__getitem__), scores, config)
    return Split(
        scores.tasks,
        {layer: parts for layer, parts in groups.items() if len(parts) > 1},
        backbone=scores.metadata["backbone"],
        chosen={
            "rule": rule,
            "k": len(chosen),
            "max_params": config.max_params,
            "threshold": config.threshold,
            "window": recipe.probe.window,
            "grouping": config.grouping,
            **({} if config.max_flops is None else {"max_flops": config.max_flops}),
            **({} if config.max_groups is None else {"max_groups": config.max_groups}),
            "ranking": chosen,
        },
        provenance=_provenance(scores),
    )


def _group(
    layers: list[str], scores: ConflictScores, config: SplitConfig
) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Who shares the copies of each layer, as `split.grouping` says."""
    if config.grouping == "affinity":
        groups = cluster_tasks(scores, layers, config.threshold, config.max_groups)
        return dict.fromkeys(layers, groups)
    if config.grouping == "colour":
        limits = config.threshold, config.group_share, config.max_groups
        return {layer: group_tasks(scores, layer, *limits) for layer in layers}
    return dict.fromkeys(layers, tuple((task,) for task in scores.tasks))


def check_scores(scores: ConflictScores, run: Run) -> None:
    """Refuse scores that `recon-search probe` did not measure for the run's tasks and backbone.

    Raises:
        RecipeError: naming both.
    """
    if missing := lacking(scores):
        raise RecipeError(
            f"--scores must be what `recon-search probe` wrote, these lack {', '.join(missing)}. "
            "Probe, or choose layers with recon_search.Split.private."
        )
    names, facts = run.schema.names, run.facts
    ours = facts.identity
    theirs = {"name": "an unknown backbone", "digest": None, **scores.metadata["backbone"]}
    is_same = theirs["digest"] == ours["digest"] and scores.layers == tuple(facts.analysis.layers)
    if scores.tasks != names or not is_same:
        raise RecipeError(
            f"--scores must be of the recipe's tasks ({', '.join(names)}) and backbone "
            f"({ours['name']}, {len(facts.analysis.layers)} layers to split, digest "
            f"{ours['digest']}), these are of {', '.join(scores.tasks)} and {theirs['name']} "
            f"({len(scores.layers)} layers, digest {theirs['digest']}). Probe with this recipe."
        )


def lacking(scores: ConflictScores) -> list[str]:
    """What scores do not say of themselves, which `recon-search probe` notes."""
    return [key for key in FROM_PROBE if key not in scores.metadata]


def check_k(recipe: Recipe, n_layers: int) -> None:
    """Refuse a k larger than the number of splittable layers.

    Raises:
        RecipeError: names the range and the value.
    """
    ks = {"split.k": [recipe.split.k or 0], "compare.ks": recipe.compare.ks}
    for key, values in ks.items():
        if (k := max(values, default=0)) > n_layers:
            raise RecipeError(
                f"`{key}` must be between 0 and {n_layers} (splittable layers of "
                f"{recipe.backbone.name}), got {k}. Lower it in the recipe."
            )


def _provenance(scores: ConflictScores) -> dict[str, Any]:
    return {
        **versions(),
        "recipe": scores.metadata["recipe"],
        "probe_seeds": scores.metadata["seeds"],
        "probe_steps": scores.steps,
    }


def versions() -> dict[str, str]:
    """What a split was made with."""
    return {
        "recon-search": recon_search.__version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
    }
