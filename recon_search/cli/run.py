"""`recon-search run`: from data to report."""

from __future__ import annotations

from typing import Any

import click

from recon_search.cli.options import (
    make_console,
    map_splits,
    open_run,
    recipe_options,
    run_options,
    seeds_option,
    tell,
)


@click.command()
@recipe_options
@run_options
@seeds_option
@map_splits
def run(**options: Any) -> None:
    """Run a recipe from data to report.

    Example: recon-search run quickstart --out runs/mine --resume
    """
    this = open_run(options)

    from recon_search.stages.run import run_all
    from recon_search.views.exported import describe_export
    from recon_search.views.markup import escape
    from recon_search.views.narrow import comparison_tables

    comparison = run_all(this)
    wide = make_console(minimum=190)
    for table in comparison_tables(comparison, wide.width):
        wide.print(table)
    for text in filter(None, (comparison.verdict, comparison.warning)):
        wide.print(escape(text), highlight=False)
    wide.print()
    for text in describe_export(comparison, this.out):
        wide.print(escape(text), highlight=False)
    left = {
        "report.html": "the report: open it first",
        "split.json": "the split, for `recon-search train RECIPE --split`",
        "scores.safetensors": "the conflict scores, for `recon-search rank`",
        "model": "the model directory, for `recon-search predict` and `recon_search.load`",
        "export": "one plain timm state dict a task",
    }
    width = max(len(str(this.out / name)) for name in left)
    for name, what in left.items():
        tell(f"  {this.out / name!s:<{width}}  {what}")
