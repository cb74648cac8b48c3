"""`recon-search init` and `validate`: a recipe of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from recon_search.cli.completion import complete_recipe
from recon_search.cli.options import FILE, load_overridden, recipe_options


@click.command()
@click.argument("name", metavar="[RECIPE]", default="photos", shell_complete=complete_recipe)
@click.option("--out", type=FILE, help="File to write [default: RECIPE.toml].")
@click.option("--force", is_flag=True, help="Overwrite the file.")
def init(name: str, out: Path | None, force: bool) -> None:
    """Copy a commented recipe, to be made one's own; `ls recipes` lists them.

    Example: recon-search init photos --out my.toml
    """
    from recon_search import artefact
    from recon_search.errors import FileError, RecipeError, nearest
    from recon_search.recipe.shipped import files_of, shipped_recipes

    recipes = shipped_recipes()
    if name not in recipes:
        raise RecipeError(
            f"RECIPE must be one of {', '.join(recipes)}, got '{name}'.{nearest(name, recipes)}"
        )
    out = out or Path(f"{name}.toml")
    recipe, *modules = files_of(recipes[name])
    copies = {out: recipe} | {out.with_name(module.name): module for module in modules}
    for copy in copies:
        if copy.exists() and not force:
            raise RecipeError(
                f"--out must name a new file, found one at {copy}. Choose another, or add --force."
            )
    written: list[Path] = []
    try:
        for copy, original in copies.items():
            artefact.write_text(copy, original.read_text(encoding="utf-8"))
            written.append(copy)
    except FileError:
        for copy in () if force else written:  # else the same command would be refused
            copy.unlink()
        raise
    click.echo(f"Written: {', '.join(map(str, copies))}")
    click.echo(f"Edit it, then: recon-search validate {out}")


@click.command()
@recipe_options
@click.option("--quick", is_flag=True, help="Take no training steps.")
def validate(quick: bool, **options: Any) -> None:
    """Check a recipe without running it: its names, its files, and steps on random images.

    Example: recon-search validate my.toml --set backbone.name=resnet34
    """
    recipe = load_overridden(options)

    from recon_search.runs.run import Run
    from recon_search.stages.check import check, remark
    from recon_search.stages.rehearsal import check_measured, rehearse

    run = Run(recipe, Path())
    n_layers = check(run)
    check_measured(run)
    untried = "" if quick else rehearse(run)
    click.echo(f"Valid. {recipe.backbone.name} has {n_layers} splittable layers.")
    for line in filter(None, (untried, remark(recipe))):
        click.echo(line)
