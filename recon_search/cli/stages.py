"""The commands that do a run's work, one a stage."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recon_search.cli.options import (
    FILE,
    choose_device,
    load_overridden,
    make_console,
    open_run,
    recipe_options,
    run_directory,
    run_options,
)
from recon_search.errors import ArtefactError

if TYPE_CHECKING:
    import torch

    from recon_search.recipe import Recipe

TOP = 10
"""Layers whose order is judged where nothing says how many are split."""


@click.command()
@recipe_options
@run_options
def run(**options: Any) -> None:
    """Run a recipe from data to report."""
    recipe, out, device, console = open_run(options)

    from recon_search.stages import run as stage
    from recon_search.views.tables import comparison_table

    comparison = stage.run(recipe, out, device, console, options["workers"])
    wide = make_console(minimum=150)
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


@click.command()
@recipe_options
@run_options
@click.option("--continue", "more", is_flag=True, help="Add seeds to the scores in --out.")
@click.option(
    "--seeds", type=click.IntRange(min=1), help="With --continue: how many seeds [default: 1]."
)
def probe(more: bool, seeds: int | None, **options: Any) -> None:
    """Measure conflicts and write scores.safetensors."""
    if seeds is not None and not more:
        raise click.UsageError("--seeds needs --continue. Add it, or pass --set probe.seeds=N.")
    scores_path = run_directory(options) / "scores.safetensors"
    if more and not scores_path.is_file():
        raise ArtefactError(
            f"--continue needs the scores of a finished probe, found no file at {scores_path}. "
            "Leave --continue out, or check --out."
        )
    options["resume"] |= more
    recipe, out, device, console = open_run(options)

    from recon_search.stages.probe import continue_probe
    from recon_search.stages.probe import probe as stage
    from recon_search.stages.split import reading_of
    from recon_search.views.tables import ranking_table

    if more:
        scores = continue_probe(recipe, out, device, console, options["workers"], seeds or 1)
    else:
        scores = stage(recipe, out, device, console, options["workers"])
    k = recipe.split.k or TOP
    make_console(minimum=110).print(ranking_table(scores, recipe.split.rule, reading_of(recipe), k))
    console.print(f"Written: {scores_path}", highlight=False, soft_wrap=True)


@click.command()
@click.argument("scores_path", metavar="SCORES", type=FILE)
@click.option("--threshold", type=float, default=0.0, show_default=True, help="S in (-1, 0].")
@click.option("--rule", default="projection", show_default=True, help="How layers are ranked.")
@click.option(
    "--window",
    type=float,
    nargs=2,
    default=(0.6, 1.0),
    show_default=True,
    help="Part of the probe.",
)
@click.option(
    "--k", type=click.IntRange(min=1), default=TOP, show_default=True, help="Top k to judge."
)
@click.option("--plot", type=FILE, help="Heat map to write [default: beside SCORES].")
@click.option("--json", "as_json", is_flag=True, help="Print JSON and write no plot.")
def rank(
    scores_path: Path,
    threshold: float,
    rule: str,
    window: tuple[float, float],
    k: int,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Show the layers in order of conflict, and draw layers x thresholds."""
    from recon_search.conflict.rules import Reading
    from recon_search.conflict.scores import ConflictScores
    from recon_search.views.plots import heat_map, save_figure
    from recon_search.views.tables import ranking_summary, ranking_table

    scores = ConflictScores.load(scores_path)
    reading = Reading(threshold, window)
    if as_json:
        click.echo(json.dumps(ranking_summary(scores, rule, reading, k), indent=2))
        return
    console = make_console(minimum=110)
    console.print(ranking_table(scores, rule, reading, k))
    plot = plot or scores_path.with_name("conflicts.png")
    save_figure(heat_map(scores), plot)
    console.print(f"Written: {plot}", highlight=False, soft_wrap=True)


@click.command()
@functools.partial(recipe_options, required=False)
@click.option("--scores", "scores_path", type=FILE, help="What the probe wrote.")
@click.option("--counts", "counts_path", type=FILE, help="Recon's published {layer: count} JSON.")
@click.option("--show", "show_path", type=FILE, help="Show this split instead of choosing one.")
@click.option(
    "--image",
    type=click.IntRange(min=1),
    nargs=3,
    metavar="C H W",
    help="With --show: size of an image [default: the backbone's].",
)
@click.option("--json", "as_json", is_flag=True, help="With --show: print JSON.")
@click.option(
    "--out", type=FILE, help="File to write [default: split.json]; with --show, a .png or .svg."
)
def split(
    scores_path: Path | None,
    counts_path: Path | None,
    show_path: Path | None,
    image: tuple[int, int, int] | None,
    as_json: bool,
    out: Path | None,
    **options: Any,
) -> None:
    """Choose the layers to split, as the recipe's [split] says, and write split.json.

    With --show, no recipe is needed: print the network that a split file gives as a tree, and what
    it costs in parameters, FLOPs and latency; with --out, draw it.
    """
    if show_path is not None:
        if options["recipe_path"] or scores_path or counts_path:
            raise click.UsageError("--show takes no RECIPE, --scores or --counts. Leave them out.")
        _show_split(show_path, image, as_json, out)
        return
    if options["recipe_path"] is None:
        raise click.UsageError("Give a RECIPE to choose a split, or --show to look at one.")
    if image or as_json:
        raise click.UsageError("--image and --json need --show. Add it, or leave them out.")
    if (scores_path is None) == (counts_path is None):
        raise click.UsageError("Give one of --scores and --counts.")
    recipe = load_overridden(options)

    from recon_search.conflict.scores import ConflictScores
    from recon_search.stages.split import check_scores, choose_split, split_by_counts

    if scores_path is not None:
        scores = ConflictScores.load(scores_path)
        check_scores(scores, recipe, choose_device("cpu"))
        chosen = choose_split(recipe, scores)
    else:
        assert counts_path is not None
        chosen = split_by_counts(recipe, counts_path)
    out = out or Path("split.json")
    chosen.save(out)
    click.echo(f"{len(chosen.layers)} layers: {', '.join(chosen.layers)}\nWritten: {out}")


@click.command()
@recipe_options
@run_options
@click.option("--split", "split_path", type=FILE, help="Split to train with, from any data set.")
@click.option("--method", help="Override train.method.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def train(split_path: Path | None, method: str | None, as_json: bool, **options: Any) -> None:
    """Train one network, unsplit or with a saved split, and test it once."""
    if method is not None:
        options["overrides"] = (*options["overrides"], f'train.method="{method}"')
    from recon_search.runs.training import copy_model, load_split, train_with

    def check_inputs(recipe: Recipe, device: torch.device) -> None:
        if split_path is not None:
            load_split(split_path, recipe, device)

    recipe, out, device, console = open_run(options, check_inputs)
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


@click.command()
@recipe_options
@run_options
@click.option("--scores", "scores_path", type=FILE, required=True, help="For the controls.")
@click.option("--split", "split_path", type=FILE, required=True, help="The split to judge.")
def compare(scores_path: Path, split_path: Path, **options: Any) -> None:
    """Judge a split: baselines, joint training and controls over paired seeds."""
    from recon_search.conflict.scores import ConflictScores
    from recon_search.runs.training import load_split
    from recon_search.stages.compare import compare as stage
    from recon_search.stages.split import check_scores
    from recon_search.views.tables import comparison_table

    def check_inputs(recipe: Recipe, device: torch.device) -> None:
        check_scores(ConflictScores.load(scores_path), recipe, device)
        load_split(split_path, recipe, device)

    recipe, out, device, console = open_run(options, check_inputs)
    chosen, scores = load_split(split_path, recipe, device), ConflictScores.load(scores_path)
    comparison = stage(recipe, chosen, scores, out, device, console, options["workers"])
    wide = make_console(minimum=150)
    wide.print(comparison_table(comparison))
    wide.print(comparison["verdict"], highlight=False)


def _show_split(
    path: Path, image: tuple[int, int, int] | None, as_json: bool, out: Path | None
) -> None:
    """Print the network that a split gives, and draw it where `out` says so."""
    if out is not None and out.suffix not in (".png", ".svg"):
        raise click.UsageError(f"--out must end in .png or .svg, got '{out}'. Change the ending.")

    from recon_search.graph.split import Split
    from recon_search.model.backbone import dissect_recorded, recorded_backbone
    from recon_search.views.outline import as_json as rows
    from recon_search.views.outline import cost_table, outline

    saved = Split.load(path)
    anatomy = dissect_recorded(recorded_backbone(saved, path), saved, image, timed=True)
    if out is not None:
        from recon_search.views.picture import picture
        from recon_search.views.plots import save_figure

        save_figure(picture(anatomy), out)
    if as_json:
        click.echo(json.dumps(rows(anatomy), indent=2))
        return
    console = make_console(minimum=110)
    console.print(outline(anatomy), highlight=False)
    console.print(cost_table(anatomy))
    if out is not None:
        console.print(f"Written: {out}", highlight=False, soft_wrap=True)


COMMANDS = (run, probe, rank, split, train, compare)
