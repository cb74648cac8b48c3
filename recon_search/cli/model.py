"""`recon-search export` and `convert`: weights in another form."""

from __future__ import annotations

from pathlib import Path

import click

from recon_search.cli.options import ANYTHING, FILE, FOLDER


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
@click.option("--out", type=ANYTHING, help="File to write [default: by task].")
def export(model: Path, task: str | None, kind: str, out: Path | None) -> None:
    """Write a model directory for deployment, and check what was written.

    Example: recon-search export runs/mine/model --format onnx --out mine.onnx
    """
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
