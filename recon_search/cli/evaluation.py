"""`recon-search evaluate`: a finished model on a recipe's data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from recon_search.cli.options import (
    FOLDER,
    choose_device,
    device_option,
    load_overridden,
    make_console,
    map_option,
    recipe_options,
    tell_json,
)


@click.command()
@click.argument("model", type=FOLDER)
@recipe_options
@click.option(
    "--part",
    type=click.Choice(["test", "validation", "train"]),
    default="test",
    show_default=True,
    help="Of the recipe's data.",
)
@map_option("The recipe's task NEW is what the model calls OLD.")
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(
    model: Path, part: Any, renamed: dict[str, str], device: str, as_json: bool, **options: Any
) -> None:
    """Measure a model directory on a recipe's data, task by task.

    Images are made ready as the model was trained, whatever the recipe's data looks like. All tasks
    of the recipe are measured; the model may have more.

    Example: recon-search evaluate runs/mine/model other.toml --part validation --map species=kind
    """
    recipe = load_overridden(options)

    from recon_search.runs.run import Run
    from recon_search.stages.evaluate import evaluate_model
    from recon_search.views.counting import counting
    from recon_search.views.tables import metrics_table

    run = Run(recipe, Path(), choose_device(device))
    with counting("evaluate", "images") as tell:
        found = evaluate_model(model, run, part, renamed, tell)
    if not as_json:
        title = f"{model}, {part} data, {found.n_samples:,} images"
        make_console().print(metrics_table(title, found.metrics, found.units))
        return
    tell_json({"model": str(model), **asdict(found)})
