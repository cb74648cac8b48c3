"""`recon-search validate`: what a recipe says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from recon_search.cli.options import load_overridden, recipe_options


@click.command()
@recipe_options
def validate(**options: Any) -> None:
    """Check a recipe without running it."""
    recipe = load_overridden(options)

    from recon_search.runs.run import Run
    from recon_search.stages.check import check

    n_layers = check(Run(recipe, Path()))
    click.echo(f"Valid. {recipe.backbone.name} has {n_layers} splittable layers.")
