"""What `validate` looks at, and every command before it begins."""

from __future__ import annotations

import torch
from timm.optim import list_optimizers

from recon_search.conflict.rules import find_rule
from recon_search.conflict.scores import bins_below
from recon_search.errors import RecipeError, nearest
from recon_search.graph.layers import layers
from recon_search.methods.registry import check_method
from recon_search.model.backbone import create_backbone
from recon_search.recipe import Recipe
from recon_search.search.space import check_space
from recon_search.stages.split import check_k, reading_of


def check(recipe: Recipe) -> int:
    """Check what the recipe names against timm, the rules and the methods; returns the layer count.

    Raises:
        ReconSearchError: the first thing that does not fit.
    """
    searched = check_space(recipe)
    for each in (recipe, *searched):
        _check_names(each)
    with torch.device("meta"):
        backbone = create_backbone(recipe.backbone.model_copy(update={"weights": None}), in_chans=1)
    n_layers = len(layers(backbone))
    for each in (recipe, *searched):
        check_k(each, n_layers)
    return n_layers


def _check_names(recipe: Recipe) -> None:
    """Check the methods, rules, window, threshold and optimiser that a recipe names."""
    reading_of(recipe).blocks()
    bins_below(recipe.split.threshold)
    check_method(recipe.train.method, recipe.train.options, where="train.options")
    for method in (recipe.probe.method, *recipe.compare.methods):
        check_method(method)
    for rule in (recipe.split.rule, *recipe.compare.rules):
        find_rule(rule)
    if recipe.train.optimizer not in (known := list_optimizers()):
        raise RecipeError(
            f"`train.optimizer` must be one of timm's, got '{recipe.train.optimizer}'."
            f"{nearest(recipe.train.optimizer, known)}"
        )
