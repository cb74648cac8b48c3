"""`recon-search data`: a look at the data before anything is trained."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recon_search.cli.options import (
    FILE,
    check_picture,
    load_overridden,
    make_console,
    recipe_options,
    tell,
    tell_json,
)

if TYPE_CHECKING:
    from recon_search.recipe import Recipe
    from recon_search.stages.data import Looked
    from recon_search.stages.findings import Examination


@click.command()
@recipe_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON; draw images only with --out.")
@click.option("--out", type=FILE, help="Contact sheet to write [default: <recipe name>-data.png].")
def data(as_json: bool, out: Path | None, **options: Any) -> None:
    """Look at the data before anything is trained: counts, ranges, doubles, unreadable images.

    Every image is decoded once. The exit code is 2 where something would end a run.

    Example: recon-search data my.toml --data-root photos
    """
    if out is not None:
        check_picture(out, "--out")
    recipe = load_overridden(options)

    from recon_search.stages.data import Looked
    from recon_search.views.data import data_summary, data_tables, double_lines, fault_lines
    from recon_search.views.plots import save_figure
    from recon_search.views.sheet import contact_sheet

    looked = Looked(recipe)
    found = _examine(looked)
    if as_json:
        tell_json(data_summary(found))
    else:
        _show(recipe, found, data_tables(found), double_lines(found))
        out = out or Path(f"{Path(options['recipe_path']).stem}-data.png")
    if out is not None:
        save_figure(contact_sheet(looked), out)
        if not as_json:
            tell(f"Written: {out}")
    if found.unreadable:
        for line in fault_lines(found):
            click.echo(f"error: {line}", err=True)
        sys.exit(2)


def _examine(looked: Looked) -> Examination:
    """Examine data; on a terminal, a bar shows how many images have been looked at."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from recon_search.stages.data import examine

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        bar = progress.add_task("images", total=sum(looked.samples.values()))
        return examine(looked, lambda: progress.advance(bar))


def _show(recipe: Recipe, found: Examination, tables: Any, doubles: list[str]) -> None:
    from recon_search.stages.findings import advise

    config = recipe.data
    where = f" in {config.root}" if config.root else ""
    channels, height, width = found.shape
    n = len(found.unreadable)
    tell(
        f"{config.name}{where}: {sum(found.samples.values()):,} samples, brought to "
        f"{height} x {width} in {channels} channel{'s' * (channels > 1)}."
        + (f" The tables leave out {n:,}, named below, that cannot be read." if n else "")
    )
    console = make_console(minimum=100)
    for table in tables:
        console.print()
        console.print(table)
    console.print()
    for line in [*doubles, *(f"Warning: {line}" for line in advise(found))]:
        tell(line)
