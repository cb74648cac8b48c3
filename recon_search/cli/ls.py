"""`recon-search ls`: what there is to choose from."""

from __future__ import annotations

from pathlib import Path

import click

from recon_search.cli.completion import complete_section
from recon_search.cli.options import FOLDER, make_console, tell, tell_json


@click.group()
def ls() -> None:
    """List what there is to choose from.

    Example: recon-search ls recipes
    """


@ls.command("recipes")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ls_recipes(as_json: bool) -> None:
    """List the recipes to run by name, or to copy with `init`.

    Example: recon-search ls recipes --json
    """
    from recon_search.recipe.shipped import describe, shipped_recipes

    rows = {name: describe(path) for name, path in shipped_recipes().items()}
    if as_json:
        tell_json([{"name": n, "what": what} for n, what in rows.items()])
        return
    width = max(map(len, rows))
    click.echo("\n".join(f"{name:<{width}}  {what}" for name, what in rows.items()))


@ls.command("methods")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ls_methods(as_json: bool) -> None:
    """List the gradient methods, what each needs, its options and its paper.

    Example: recon-search ls methods
    """
    from recon_search.views.methods import method_rows, method_table

    if as_json:
        tell_json(method_rows())
    else:
        console = make_console(minimum=150)
        console.print(method_table(console.width))


@ls.command("backbones")
@click.argument("pattern", default="*")
@click.option("--sizes", is_flag=True, help="Count parameters too: up to a second a model.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ls_backbones(pattern: str, sizes: bool, as_json: bool) -> None:
    """List timm's models whose name holds PATTERN, or matches it where it has wildcards.

    Example: recon-search ls backbones 'resnet*' --sizes
    """
    from recon_search.views.backbones import backbone_rows, backbone_table

    rows = backbone_rows(pattern, sizes=sizes)
    if as_json:
        tell_json(rows)
    elif sizes:
        make_console().print(backbone_table(rows))
    else:
        click.echo("\n".join(row["name"] for row in rows))


@ls.command("layers")
@click.argument("backbone")
@click.option("--args", "arguments", multiple=True, metavar="KEY=VALUE", help="timm argument.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ls_layers(backbone: str, arguments: tuple[str, ...], as_json: bool) -> None:
    """List the splittable layers of a timm model in order of first use.

    Example: recon-search ls layers resnet18 --args stem_type=deep
    """
    from recon_search.views.backbones import layer_rows, layer_table

    rows = layer_rows(backbone, arguments)
    if as_json:
        tell_json(rows)
    else:
        make_console(minimum=110).print(layer_table(backbone, rows))


@ls.command("keys")
@click.argument("section", required=False, shell_complete=complete_section)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--markdown", is_flag=True, help="Print all keys as a document.")
def ls_keys(section: str | None, as_json: bool, markdown: bool) -> None:
    """List the keys of a recipe, or of SECTION: type, default and what each says.

    Example: recon-search ls keys split
    """
    from recon_search.views.keys import key_document, key_rows, key_table

    if markdown and (section is not None or as_json):
        raise click.UsageError("--markdown is of all keys. Leave SECTION and --json out.")
    if markdown:
        click.echo(key_document(), nl=False)
        return
    rows = key_rows(section)
    if as_json:
        tell_json(rows)
    else:
        make_console(minimum=140).print(key_table(rows))


@ls.command("runs")
@click.argument("folder", type=FOLDER, default="runs")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ls_runs(folder: Path, as_json: bool) -> None:
    """List the runs and searches below FOLDER [default: runs], the best split first.

    Example: recon-search ls runs experiments
    """
    from recon_search.views.board import entry_rows, entry_table, find_entries

    is_unborn = folder == Path("runs") and not folder.exists()  # nobody has named it
    entries, faults = ([], []) if is_unborn else find_entries(folder)
    if as_json:
        tell_json(entry_rows(entries))
    elif entries:
        console = make_console(minimum=130)
        console.print(entry_table(entries, folder, console.width))
    else:
        tell(f"There is no run below {folder}. Make one: recon-search run quickstart")
    for fault in faults:
        click.echo(f"Warning: {fault}", err=True)
