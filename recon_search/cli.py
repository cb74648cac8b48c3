"""The command line. Heavy imports happen inside commands; nothing imports this module."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recon_search import __version__
from recon_search.errors import ReconSearchError

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from rich.console import Console

    from recon_search.recipe import Recipe

FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit code 2."""
    debug = "--debug" in sys.argv[1:]
    try:
        cli.main(standalone_mode=True)
    except ReconSearchError as error:
        if debug:
            raise
        click.echo(f"error: {error}", err=True)
        sys.exit(2)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="recon-search")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """Find the layers in which tasks' gradients conflict, split them, retrain, and prove it."""


def recipe_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the recipe and everything that can override it."""
    options = [
        click.argument("recipe_path", metavar="RECIPE", type=FILE),
        click.option(
            "--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Override a recipe key."
        ),
        click.option("--data-root", type=FOLDER, help="Folder with the data set's files."),
        click.option("--seed", type=click.IntRange(min=0), help="Override the recipe's seed."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a run directory, a device and workers."""
    options = [
        click.option("--out", type=FOLDER, help="Run directory [default: runs/<recipe name>]."),
        click.option("--resume", is_flag=True, help="Go on with the run in --out."),
        click.option(
            "--device",
            type=click.Choice(["auto", "cpu", "cuda"]),
            default="auto",
            show_default=True,
        ),
        click.option(
            "--workers", type=click.IntRange(min=1), help="Trainings at once [default: one a core]."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@cli.command()
@recipe_options
@run_options
def run(**options: Any) -> None:
    """Run a recipe from data to report."""
    recipe, out, device, console = _open(options)

    from recon_search.stages import run as stage
    from recon_search.stages.tables import comparison_table

    comparison = stage.run(recipe, out, device, console, options["workers"])
    wide = _console(minimum=150)
    wide.print(comparison_table(comparison))
    wide.print(comparison["verdict"], highlight=False)
    best = comparison["best"]
    wide.print(
        f"\nExported: {best['label']}, seed {best['seed']} (best on validation data).",
        highlight=False,
    )
    for name, what in (
        ("report.html", "the report"),
        ("split.json", "the split, for `recon-search train RECIPE --split`"),
        ("scores.safetensors", "the conflict scores, for `recon-search rank`"),
        ("model", "the model directory, for `recon_search.load`"),
        ("export", "one plain timm state dict a task"),
    ):
        wide.print(f"  {out / name}  {what}", highlight=False, soft_wrap=True)


@cli.command()
@recipe_options
@run_options
def probe(**options: Any) -> None:
    """Measure conflicts and write scores.safetensors."""
    recipe, out, device, console = _open(options)

    from recon_search.stages.probe import probe as stage
    from recon_search.stages.split import reading_of
    from recon_search.stages.tables import ranking_table

    scores = stage(recipe, out, device, console, options["workers"])
    _console(minimum=110).print(ranking_table(scores, recipe.split.rule, reading_of(recipe)))
    console.print(f"Written: {out / 'scores.safetensors'}", highlight=False, soft_wrap=True)


@cli.command()
@click.argument("scores_path", metavar="SCORES", type=FILE)
@click.option("--threshold", type=float, default=0.0, show_default=True, help="S in (-1, 0].")
@click.option("--rule", default="count", show_default=True, help="How layers are ranked.")
@click.option(
    "--window",
    type=float,
    nargs=2,
    default=(0.0, 1.0),
    show_default=True,
    help="Part of the probe.",
)
@click.option("--plot", type=FILE, help="Heat map to write [default: beside SCORES].")
@click.option("--json", "as_json", is_flag=True, help="Print JSON and write no plot.")
def rank(
    scores_path: Path,
    threshold: float,
    rule: str,
    window: tuple[float, float],
    plot: Path | None,
    as_json: bool,
) -> None:
    """Show the layers in order of conflict, and draw layers x thresholds."""
    from recon_search.conflict.rules import Reading
    from recon_search.conflict.scores import ConflictScores
    from recon_search.stages.plots import heat_map, save_figure
    from recon_search.stages.tables import ranking_rows, ranking_table

    scores = ConflictScores.load(scores_path)
    reading = Reading(threshold, window)
    if as_json:
        click.echo(json.dumps(ranking_rows(scores, rule, reading), indent=2))
        return
    console = _console(minimum=110)
    console.print(ranking_table(scores, rule, reading))
    plot = plot or scores_path.with_name("conflicts.png")
    save_figure(heat_map(scores), plot)
    console.print(f"Written: {plot}", highlight=False, soft_wrap=True)


@cli.command()
@recipe_options
@click.option("--scores", "scores_path", type=FILE, help="What the probe wrote.")
@click.option("--counts", "counts_path", type=FILE, help="Recon's published {layer: count} JSON.")
@click.option("--out", type=FILE, default="split.json", show_default=True, help="File to write.")
def split(scores_path: Path | None, counts_path: Path | None, out: Path, **options: Any) -> None:
    """Choose the layers to split, as the recipe's [split] says, and write split.json."""
    if (scores_path is None) == (counts_path is None):
        raise click.UsageError("Give one of --scores and --counts.")
    recipe = _recipe(options)

    from recon_search.conflict.scores import ConflictScores
    from recon_search.stages.split import choose_split, split_by_counts

    if scores_path is not None:
        chosen = choose_split(recipe, ConflictScores.load(scores_path))
    else:
        assert counts_path is not None
        chosen = split_by_counts(recipe, counts_path)
    chosen.save(out)
    click.echo(f"{len(chosen.layers)} layers: {', '.join(chosen.layers)}\nWritten: {out}")


@cli.command()
@recipe_options
@run_options
@click.option("--split", "split_path", type=FILE, help="Split to train with, from any data set.")
@click.option("--method", help="Override train.method.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def train(split_path: Path | None, method: str | None, as_json: bool, **options: Any) -> None:
    """Train one network, unsplit or with a saved split, and test it once."""
    if method is not None:
        options["overrides"] = (*options["overrides"], f'train.method="{method}"')
    recipe, out, device, console = _open(options)

    from recon_search.stages.train import copy_model, train_with

    result = train_with(recipe, split_path, out, device, console)
    copy_model(result, out / "model")
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    for task, metrics in result["test"].items():
        console.print(f"{task}: test accuracy {metrics['accuracy']:.2f} %", highlight=False)
    console.print(
        f"{result['n_parameters']:,} parameters. Model directory: {out / 'model'}",
        highlight=False,
        soft_wrap=True,
    )


@cli.command()
@recipe_options
@run_options
@click.option("--scores", "scores_path", type=FILE, required=True, help="For the controls.")
@click.option("--split", "split_path", type=FILE, required=True, help="The split to judge.")
def compare(scores_path: Path, split_path: Path, **options: Any) -> None:
    """Judge a split: baselines, joint training and controls over paired seeds."""
    recipe, out, device, console = _open(options)

    from recon_search.conflict.scores import ConflictScores
    from recon_search.graph.split import Split
    from recon_search.stages.compare import compare as stage
    from recon_search.stages.tables import comparison_table

    scores, chosen = ConflictScores.load(scores_path), Split.load(split_path)
    comparison = stage(recipe, chosen, scores, out, device, console, options["workers"])
    wide = _console(minimum=150)
    wide.print(comparison_table(comparison))
    wide.print(comparison["verdict"], highlight=False)


@cli.command()
@click.argument("model", type=FOLDER)
@click.option("--task", required=True, help="The task to export.")
@click.option("--format", "kind", type=click.Choice(["timm"]), default="timm", show_default=True)
@click.option("--out", type=FILE, help="File to write [default: <task>.safetensors].")
def export(model: Path, task: str, kind: str, out: Path | None) -> None:
    """Write one task of a model directory for deployment."""
    from recon_search.stages.export import export_timm

    target = out or Path(f"{task}.safetensors")
    difference = export_timm(model, task, target)
    click.echo(
        f"Written: {target}, with its head and create_model arguments beside it. "
        f"Largest difference to the model: {difference:.3g}"
    )


@cli.command()
@click.argument("run_directory", metavar="RUN", type=FOLDER)
def report(run_directory: Path) -> None:
    """Write report.html of a finished run anew."""
    from recon_search.stages.report import write_report

    click.echo(f"Written: {write_report(run_directory)}")


@cli.command()
@recipe_options
def validate(**options: Any) -> None:
    """Check a recipe without running it."""
    recipe = _recipe(options)

    from recon_search.stages.run import check

    n_layers = check(recipe)
    click.echo(f"Valid. {recipe.backbone.name} has {n_layers} splittable layers.")


def _recipe(options: dict[str, Any]) -> Recipe:
    """Load the recipe with every override a command was given."""
    from recon_search.recipe import load_recipe

    overrides = list(options["overrides"])
    if options.get("seed") is not None:
        overrides.append(f"seed={options['seed']}")
    if options.get("data_root") is not None:
        overrides.append(f"data.root={json.dumps(str(options['data_root']))}")
    return load_recipe(options["recipe_path"], overrides)


def _open(options: dict[str, Any]) -> tuple[Recipe, Path, torch.device, Console]:
    """Load the recipe, open its run directory, choose the device."""
    recipe = _recipe(options)  # before the heavy imports, so that its errors come at once

    from recon_search.stages.run import check, open_run_directory

    check(recipe)
    out = options["out"] or Path("runs") / options["recipe_path"].stem
    open_run_directory(recipe, out, resume=options["resume"])
    return recipe, out, _device(options["device"]), _console()


def _device(name: str) -> torch.device:
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise click.UsageError("--device cuda needs a CUDA device, found none. Use --device cpu.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _console(minimum: int = 0) -> Console:
    """A console; tables get at least `minimum` columns where output is piped."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal and console.width < minimum:
        return Console(width=minimum)
    return console
