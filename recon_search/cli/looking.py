"""The commands that look at things, check them, or write them in another form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from recon_search.cli.options import FILE, FOLDER, load_overridden, make_console, recipe_options


@click.command()
@click.argument("model", type=FOLDER)
@click.option("--task", help="Export this task alone; without it, all of them.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["timm", "safetensors", "torch-export", "onnx"]),
    default="timm",
    show_default=True,
)
@click.option("--out", type=click.Path(path_type=Path), help="File to write [default: by task].")
def export(model: Path, task: str | None, kind: str, out: Path | None) -> None:
    """Write a model directory for deployment, and check what was written."""
    from recon_search.stages.export import default_target
    from recon_search.stages.export import export as stage

    target = out or default_target(kind, task)
    difference = stage(model, kind, task, target)
    click.echo(f"Written: {target}. Largest difference to the model: {difference:.3g}")


@click.command()
@click.argument("source", type=FILE)
@click.argument("target", type=FILE)
def convert(source: Path, target: Path) -> None:
    """Convert a .pth checkpoint to .safetensors, for backbone.weights; nothing is unpickled.

    Example: recon-search convert resnet18.pth resnet18.safetensors
    """
    from recon_search.model.convert import convert_checkpoint

    n_tensors = convert_checkpoint(source, target)
    click.echo(f"Written: {target}, {n_tensors} tensors")


@click.command()
@click.argument("run_directory", metavar="RUN", type=FOLDER)
def report(run_directory: Path) -> None:
    """Write report.html of a finished run anew."""
    from recon_search.stages.report import write_report

    click.echo(f"Written: {write_report(run_directory)}")


@click.command()
@recipe_options
@click.option("--quick", is_flag=True, help="Take no training steps.")
def validate(quick: bool, **options: Any) -> None:
    """Check a recipe without running it: its names, its files, and steps on random images."""
    recipe = load_overridden(options)

    from recon_search.runs.run import Run
    from recon_search.stages.check import check
    from recon_search.stages.rehearsal import rehearse

    run = Run(recipe, Path())
    n_layers = check(run)
    untried = "" if quick else rehearse(run)
    click.echo(f"Valid. {recipe.backbone.name} has {n_layers} splittable layers.")
    if untried:
        click.echo(untried)


@click.group()
def ls() -> None:
    """List what there is to choose from."""


@ls.command("methods")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ls_methods(as_json: bool) -> None:
    """List the gradient methods, what each needs, its options and its paper."""
    from recon_search.views.methods import method_rows, method_table

    if as_json:
        click.echo(json.dumps(method_rows(), indent=2))
    else:
        make_console(minimum=150).print(method_table())


@ls.command("backbones")
@click.argument("pattern", default="*")
@click.option("--sizes", is_flag=True, help="Count parameters too: up to a second a model.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ls_backbones(pattern: str, sizes: bool, as_json: bool) -> None:
    """List timm's models whose name holds PATTERN, or matches it where it has wildcards."""
    from recon_search.views.backbones import backbone_rows, backbone_table

    rows = backbone_rows(pattern, sizes=sizes)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif sizes:
        make_console().print(backbone_table(rows))
    else:
        click.echo("\n".join(row["name"] for row in rows))


@ls.command("layers")
@click.argument("backbone")
@click.option("--args", "arguments", multiple=True, metavar="KEY=VALUE", help="timm argument.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ls_layers(backbone: str, arguments: tuple[str, ...], as_json: bool) -> None:
    """List the splittable layers of a timm model in order of first use."""
    from recon_search.views.backbones import layer_rows, layer_table

    rows = layer_rows(backbone, arguments)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        make_console(minimum=110).print(layer_table(backbone, rows))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Show versions, devices and which optional packages are missing."""
    from recon_search.views.doctor import OPTIONAL, examine

    found = examine()
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for name in ("recon-search", "python", "platform", "cores"):
        click.echo(f"{name:<14} {found[name]}")
    click.echo(
        f"{'cuda devices':<14} {', '.join(found['cuda devices']) or 'none; training on the CPU'}"
    )
    for name, version in found["packages"].items():
        click.echo(f"{name:<14} {version}")
    for name, version in found["optional packages"].items():
        click.echo(f"{name:<14} {version or f'missing: pip install {OPTIONAL[name]!r}'}")


COMMANDS = (export, report, convert, validate, ls, doctor)
