"""What a split is held against: controls of its size, its cost, or none of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import torch

from recon_search.artefact import digest
from recon_search.conflict.rules import count_layers, find_rule, rank, within_budget
from recon_search.conflict.scores import ConflictScores
from recon_search.data.source import Schema
from recon_search.graph.split import Split
from recon_search.recipe import CopyConfig, Recipe
from recon_search.stages.split import added_by, facts_for, plan, reading_of

RANDOM_PARAMS = "random-params"
"""The control that draws layers until they hold as many parameters as the split's."""

RANDOM_FLOPS = "random-flops"
"""The control that draws as many layers as the split's, until they cost as many FLOPs."""

GATED = "norm-gates"
"""The control that splits every norm, and gates it."""

TUNED = "tuned-weights"
"""The control that tries several fixed loss weights."""

DRAWS, COUNTED = 200, 8
"""Sets of layers that are drawn for as many FLOPs; and those of them whose FLOPs are counted one by
one where tasks share copies."""


def choose_control(
    recipe: Recipe,
    scores: ConflictScores,
    control: str,
    like: Split,
    seed: int,
    *,
    schema: Schema | None = None,
) -> Split:
    """Choose the layers of a control of the same size as `like`.

    `random-params` draws layers until they hold as many parameters as the split's; `random-flops`
    draws as many layers as the split's that cost nearly as many FLOPs; `norm-only` and `norm-gates`
    split every normalisation layer; every other control takes as many layers as the split has.

    Args:
        recipe: the recipe.
        scores: of the probe.
        control: one of those, or a rule.
        like: the split.
        seed: of what is drawn.
        schema: of the data; FLOPs, and copies that are not whole, need its tasks and shape.
    """
    if control == RANDOM_FLOPS:
        return _random_flops(recipe, scores, like, seed, schema)
    if control == GATED:
        control = "norm-only"
    rule = "random" if control == RANDOM_PARAMS else control
    ranking = [layer for layer, _ in rank(scores, rule, reading_of(recipe, seed))]
    if control == RANDOM_PARAMS:
        costs = added_by(recipe, scores, schema)
        chosen = within_budget(ranking, costs, sum(costs[layer] for layer in like.layers))
    elif control == "norm-only":
        chosen = ranking
    else:
        chosen = ranking[: len(like.layers)]
    return plan(chosen, scores, control, recipe)


def _random_flops(
    recipe: Recipe, scores: ConflictScores, like: Split, seed: int, schema: Schema | None
) -> Split:
    """Draw as many layers as `like` has whose network's FLOPs are nearest to its own."""
    analysis = facts_for(recipe, schema, "compare.controls random-flops").analysis
    target, k = analysis.flops_of(like), len(like.layers)
    order = random.Random(int(digest([seed, RANDOM_FLOPS])[:12], 16))
    drawn = [order.sample(scores.layers, k) for _ in range(DRAWS)]

    def distance(layers: list[str]) -> float:
        return abs(analysis.flops_of_private(layers, len(scores.tasks)) - target)

    if recipe.split.grouping != "private":  # then that is no more than a guess
        drawn = sorted(drawn, key=distance)[:COUNTED]
        distances = [
            abs(analysis.flops_of(plan(each, scores, "", recipe)) - target) for each in drawn
        ]
        drawn = [drawn[distances.index(min(distances))]]
    best = plan(min(drawn, key=distance), scores, RANDOM_FLOPS, recipe)
    ratio = analysis.flops_of(best)
    chosen = {**best.chosen, "flops": round(ratio, 4), "wanted_flops": round(target, 4)}
    return replace(best, chosen=chosen)


def control_name(control: str, recipe: Recipe, split: Split) -> str:
    """What to call a control of a split."""
    k = len(split.layers)
    names = {
        RANDOM_PARAMS: "random, same parameters",
        RANDOM_FLOPS: f"random {count_layers(k)}, nearly the same FLOPs",
        GATED: "norm layers only, gated",
        "sparse": f"unsplit, {recipe.compare.update_share:.0%} of the weights trained",
        "low-rank": f"the split, low-rank copies of rank {recipe.split.rank}",
        TUNED: f"unsplit, best of {recipe.compare.weight_trials} loss weightings",
    }
    return names[control] if control in names else find_rule(control).describe(k)


def control_copies(control: str, recipe: Recipe) -> CopyConfig:
    """What the copies of a control are: those of the split, where it is not about them."""
    kinds = {GATED: CopyConfig(kind="gates")}
    kinds["low-rank"] = CopyConfig(kind="low-rank", rank=recipe.split.rank)
    return kinds.get(control, recipe.split.copies)


def weightings(recipe: Recipe, tasks: Sequence[str]) -> list[dict[str, float]]:
    """Draw the loss weights that are tried: the recipe's own first, then from the simplex.

    Those drawn are uniform over all weights of mean 1 (Dirichlet of concentration 1), equal for all
    seeds of the comparison; a weight is at least 0.01, for training takes none of 0.
    """
    seed = int(digest([recipe.seed, "weights"])[:12], 16)
    generator = torch.Generator().manual_seed(seed)
    found = [dict(recipe.train.weights)]
    for _ in range(recipe.compare.weight_trials - 1):
        drawn = -torch.rand(len(tasks), generator=generator, dtype=torch.float64).log()
        shares = (len(tasks) * drawn / drawn.sum()).clamp(min=0.01)
        found.append({t: round(w, 4) for t, w in zip(tasks, shares.tolist(), strict=True)})
    return found
