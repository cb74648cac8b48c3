"""`recon-search probe` and `rank`: where the tasks conflict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from recon_search.cli.completion import complete_ranking, complete_rule
from recon_search.cli.options import (
    FILE,
    RANKING,
    check_picture,
    make_console,
    open_run,
    recipe_options,
    run_directory,
    run_options,
    tell,
    tell_json,
)
from recon_search.errors import ArtefactError

TOP = 10
"""Layers whose order is judged where nothing says how many are split."""


@click.command()
@recipe_options
@run_options
@click.option("--continue", "more", is_flag=True, help="Add seeds to the scores in --out.")
@click.option(
    "--seeds", type=click.IntRange(min=1), help="With --continue: how many seeds [default: 1]."
)
def probe(more: bool, seeds: int | None, **options: Any) -> None:
    """Measure conflicts and write scores.safetensors.

    Example: recon-search probe quickstart --out runs/probe --set probe.seeds=2
    """
    if seeds is not None and not more:
        raise click.UsageError("--seeds needs --continue. Add it, or pass --set probe.seeds=N.")
    scores_path = run_directory(options) / "scores.safetensors"
    if more and not scores_path.is_file():
        raise ArtefactError(
            f"--continue needs the scores of a finished probe, found no file at {scores_path}. "
            "Leave --continue out, or check --out."
        )
    options["resume"] |= more
    run = open_run(options)

    from recon_search.stages.probe import continue_probe
    from recon_search.stages.probe import probe as stage
    from recon_search.stages.split import reading_of
    from recon_search.views.ranking import ranking_table

    scores = continue_probe(run, seeds or 1) if more else stage(run)
    split = run.recipe.split
    console = make_console(minimum=110)
    k = split.k or TOP
    console.print(ranking_table(scores, split.rule, reading_of(run.recipe), k, console.width))
    tell(f"Written: {scores_path}")


@click.command()
@click.argument("scores_path", metavar="SCORES", type=RANKING, shell_complete=complete_ranking)
@click.argument(
    "other_path",
    metavar="[OTHER]",
    type=RANKING,
    required=False,
    shell_complete=complete_ranking,
)
@click.option("--threshold", type=float, default=0.0, show_default=True, help="S in (-1, 0].")
@click.option(
    "--rule",
    default="projection",
    show_default=True,
    shell_complete=complete_rule,
    help="How layers are ranked.",
)
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
    other_path: Path | None,
    threshold: float,
    rule: str,
    window: tuple[float, float],
    k: int,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Show the layers in order of conflict, and draw layers x thresholds.

    With OTHER, which may be a table of counts or published:NAME, show instead how many of their
    first layers two rankings have in common, beside how far each can be trusted by itself.

    Example: recon-search rank runs/one runs/another --k 8
    """
    if plot is not None:
        check_picture(plot, "--plot")

    from recon_search.conflict.rules import Reading
    from recon_search.conflict.scores import ConflictScores
    from recon_search.recipe import find_ranking
    from recon_search.views.plots import heat_map, save_figure
    from recon_search.views.ranking import ranking_summary, ranking_table

    reading = Reading(threshold, window)
    if other_path is not None:
        if plot is not None:
            raise click.UsageError("--plot draws one ranking, got two. Leave --plot out.")
        _compare((scores_path, other_path), rule, reading, k, as_json)
        return
    scores_path = find_ranking(scores_path, first="scores.safetensors")
    scores = ConflictScores.load(scores_path)
    if as_json:
        tell_json(ranking_summary(scores, rule, reading, k))
        return
    console = make_console(minimum=110)
    console.print(ranking_table(scores, rule, reading, k, console.width))
    plot = plot or scores_path.with_name("conflicts.png")
    save_figure(heat_map(scores), plot)
    tell(f"Written: {plot}")


def _compare(paths: tuple[Path, Path], rule: str, reading: Any, k: int, as_json: bool) -> None:
    """Show how far two rankings agree."""
    from recon_search.conflict.agreement import KS, measure_agreement
    from recon_search.conflict.scores import ConflictScores
    from recon_search.graph.split import load_counts
    from recon_search.recipe import find_ranking
    from recon_search.views.agreement import agreement_summary, agreement_table, describe_agreement

    files = [find_ranking(path, first="scores.safetensors") for path in paths]
    first, second = (
        load_counts(file) if file.suffix == ".json" else ConflictScores.load(file) for file in files
    )
    found = measure_agreement(first, second, rule, reading, (*KS, k))
    names = str(paths[0]), str(paths[1])
    if as_json:
        tell_json(agreement_summary(found, names, rule))
        return
    make_console(minimum=110).print(agreement_table(found, names))
    tell(describe_agreement(found))
