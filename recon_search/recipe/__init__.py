"""Recipes: TOML into typed, frozen configuration."""

from recon_search.recipe.choice import (
    DEFAULT_K,
    WHOLE,
    BorrowedConfig,
    CompareConfig,
    CopyConfig,
    SplitConfig,
)
from recon_search.recipe.data import DataConfig, TaskConfig
from recon_search.recipe.network import BackboneConfig, HeadConfig, HeadsConfig, NeckConfig
from recon_search.recipe.reading import Recipe, load_recipe, parse_recipe
from recon_search.recipe.search import Range, SearchConfig, Value
from recon_search.recipe.shipped import find_ranking, find_recipe, shipped_recipes
from recon_search.recipe.training import LEAST_SEEDS, LEAST_SKETCH, ProbeConfig, TrainConfig

__all__ = [
    "DEFAULT_K",
    "LEAST_SEEDS",
    "LEAST_SKETCH",
    "WHOLE",
    "BackboneConfig",
    "BorrowedConfig",
    "CompareConfig",
    "CopyConfig",
    "DataConfig",
    "HeadConfig",
    "HeadsConfig",
    "NeckConfig",
    "ProbeConfig",
    "Range",
    "Recipe",
    "SearchConfig",
    "SplitConfig",
    "TaskConfig",
    "TrainConfig",
    "Value",
    "find_ranking",
    "find_recipe",
    "load_recipe",
    "parse_recipe",
    "shipped_recipes",
]
