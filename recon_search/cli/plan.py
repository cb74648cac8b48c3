"""`recon-search plan`: what a run would train and take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from recon_search.cli.options import (
    FILE,
    FOLDER,
    choose_device,
    device_option,
    load_overridden,
    make_console,
    recipe_options,
    run_directory,
    tell,
    tell_json,
)


@click.command()
@recipe_options
@click.option("--scores", "scores_path", type=FILE, help="Of a probe: the split is then known.")
@click.option("--out", type=FOLDER, help="Run directory, whose trainings are done already.")
@device_option
@click.option("--workers", type=click.IntRange(min=1), help="Trainings at once.")
@click.option("--ablate", "wanted", metavar="LAYERS", help="Say it of `ablate` with such --layers.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(
    scores_path: Path | None,
    out: Path | None,
    device: str,
    workers: int | None,
    wanted: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Say what `run` would train, and how long it would take, from a few steps of each network.

    Nothing is written. Steps are timed on the device at hand, with its real data.

    Example: recon-search plan quickstart --workers 2
    """
    recipe = load_overridden(options)

    from recon_search.conflict.scores import ConflictScores
    from recon_search.runs.run import Run
    from recon_search.stages.ablate import plan as ablations
    from recon_search.stages.check import check, remark
    from recon_search.stages.plan import make_plan
    from recon_search.stages.rehearsal import check_measured
    from recon_search.stages.split import check_scores
    from recon_search.views.counting import counting
    from recon_search.views.plan import as_json as values
    from recon_search.views.plan import describe, plan_table, step_table

    folder = run_directory({**options, "out": out})
    run = Run(recipe, folder, choose_device(device), workers)
    check(run)
    check_measured(run)
    scores = None if scores_path is None else ConflictScores.load(scores_path)
    if scores is not None:
        check_scores(scores, run)
    with counting("plan", "networks") as tell_counts:
        lines = None if wanted is None else ablations(run, wanted)
        found = make_plan(run, scores, tell_counts, lines)
    if as_json:
        tell_json(values(found))
        return
    console = make_console(minimum=120)
    console.print(plan_table(found))
    console.print(step_table(found))
    tell(describe(found))
    if said := remark(recipe):
        tell(said)
