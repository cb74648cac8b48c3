"""The whole story: recipe to report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from timm.optim import list_optimizers

from recon_search import artefact
from recon_search.conflict.rules import find_rule
from recon_search.conflict.scores import bins_below
from recon_search.errors import RecipeError, nearest
from recon_search.graph.layers import layers
from recon_search.methods.registry import check_method
from recon_search.model.backbone import create_backbone, dissect_recorded, feature_width
from recon_search.recipe import Recipe
from recon_search.runs.training import copy_model, data_on
from recon_search.search.space import check_space
from recon_search.stages.compare import compare
from recon_search.stages.export import export
from recon_search.stages.probe import probe
from recon_search.stages.report import write_report
from recon_search.stages.split import check_k, choose_split, reading_of
from recon_search.views.picture import picture
from recon_search.views.plots import heat_map, save_figure

COMPARED = ("split.json", "comparison.json")
"""What a run leaves in its folder once it has probed."""

SEARCHED = ("search.db", "search.json")
"""What a search leaves in its folder, the former where its database is a file."""


def run(
    recipe: Recipe,
    out: Path,
    device: torch.device,
    console: Console,
    workers: int | None = None,
) -> dict[str, Any]:
    """Probe, rank, split, retrain, compare, export and report.

    The recipe must have passed `check`. What a run directory already holds is not computed again,
    so running anew after an interruption goes on from the last epochs.

    Returns:
        The comparison (see `compare`).
    """
    data = data_on(recipe.data, device)
    scores = probe(recipe, out, device, console, workers)
    save_figure(heat_map(scores), out / "conflicts.png")
    split = choose_split(recipe, scores)
    split.save(out / "split.json")
    anatomy = dissect_recorded(recipe.backbone, split, data.shape)
    save_figure(picture(anatomy), out / "split.png")
    comparison = compare(recipe, split, scores, out, device, console, workers)
    copy_model(comparison["best"], out / "model")
    for task in data.tasks:
        export(out / "model", "timm", task, out / "export" / f"{task}.safetensors")
    write_report(out)
    return comparison


def check(recipe: Recipe) -> int:
    """Check what the recipe names against timm, the rules and the methods; returns the layer count.

    Raises:
        ReconSearchError: the first thing that does not fit.
    """
    searched = check_space(recipe)
    for each in (recipe, *searched):
        _check_names(each)
    with torch.device("meta"):
        backbone = create_backbone(recipe.backbone, in_chans=3)  # looks at its weights, too
    feature_width(backbone, recipe.backbone, (3,))
    n_layers = len(layers(backbone))
    for each in (recipe, *searched):
        check_k(each, n_layers)
    return n_layers


def _check_names(recipe: Recipe) -> None:
    """Check the methods, rules, window, threshold and optimiser that a recipe names."""
    reading_of(recipe).blocks()
    bins_below(recipe.split.threshold)
    check_method(recipe.train.method, recipe.train.options)
    for method in (recipe.probe.method, *recipe.compare.methods):
        check_method(method)
    for rule in (recipe.split.rule, *recipe.compare.rules):
        find_rule(rule)
    if recipe.train.optimizer not in (known := list_optimizers()):
        raise RecipeError(
            f"`train.optimizer` must be one of timm's, got '{recipe.train.optimizer}'."
            f"{nearest(recipe.train.optimizer, known)}"
        )


def open_run_directory(recipe: Recipe, out: Path, *, resume: bool, is_search: bool = False) -> None:
    """Make the run directory, or go on with one that the same recipe began.

    A folder in which nothing was computed yet is as good as new. One that holds a probe may become
    a run's or a search's.

    Raises:
        RecipeError: there is a run of another recipe, or one to be resumed explicitly, or a search
            where a run is asked for, or a run where a search is: each would report on the other.
    """
    found = None
    for kind, names in (("run", COMPARED), ("search", SEARCHED)):  # a search compares, too
        if any((out / name).exists() for name in names):
            found = kind
    wanted = "search" if is_search else "run"
    if found not in (None, wanted):
        raise RecipeError(
            f"--out must name a folder of its own for a {wanted}, found a {found} in {out}. Choose "
            "another --out. A search takes --scores from anywhere."
        )
    resolved = out / "recipe.json"
    content = recipe.model_dump(mode="json")
    if resolved.is_file() and {file.name for file in out.iterdir()} != {resolved.name}:
        if not resume:
            raise RecipeError(
                f"--out must name a new folder, found a run in {out}. Pass --resume to go on with "
                "it, or choose another --out."
            )
        known = artefact.read_json(resolved, "resolved recipe")
        # A search may be given more trials later.
        trials = {"trials": content["search"]["trials"]}
        if {**known, "search": {**known.get("search", {}), **trials}} != content:
            raise RecipeError(
                f"A run goes on with the recipe it began with, found another in {resolved}. "
                "Choose another --out."
            )
    artefact.write_json(resolved, content)
