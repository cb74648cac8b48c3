"""`recon-search search`: look for the best split, or look at a study."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recon_search.cli.options import (
    FILE,
    make_console,
    open_run,
    recipe_options,
    run_options,
    tell,
    tell_json,
)

if TYPE_CHECKING:
    from recon_search.runs.run import Run


@click.command()
@functools.partial(recipe_options, required=False)
@run_options
@click.option("--scores", "scores_path", type=FILE, help="What a probe wrote [default: probe].")
@click.option("--trials", type=click.IntRange(min=1), help="Trials of the study, in all.")
@click.option("--timeout", type=click.IntRange(min=0), help="Seconds after which no trial begins.")
@click.option("--storage", help="Database URL [default: search.db in the run directory].")
@click.option("--study", help="Name of the study [default: the recipe's].")
@click.option(
    "--judge/--no-judge",
    default=None,
    help="Retrain and test the best split here [default: on the first machine to get there].",
)
@click.option("--show", "show_name", metavar="STUDY", help="Show a study and do nothing else.")
@click.option("--json", "as_json", is_flag=True, help="With --show: print JSON.")
def search(
    scores_path: Path | None,
    trials: int | None,
    timeout: int | None,
    storage: str | None,
    study: str | None,
    judge: bool | None,
    show_name: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Search for the best split, and judge it.

    The same command again goes on with a study, and so does the same command on other machines that
    reach the same --storage. With --show STUDY, a run directory or with --storage a study's name,
    print the trials of a study; no recipe is needed.

    Example: recon-search search my.toml --trials 20 --set search.max_params=1.2x
    """
    if show_name is not None:
        if options["recipe_path"] is not None:
            raise click.UsageError("--show takes no RECIPE. Leave it out.")
        _show_study(show_name, storage, options["out"], as_json)
        return
    if options["recipe_path"] is None:
        raise click.UsageError("Give a RECIPE to search, or --show to look at a study.")
    if as_json:
        raise click.UsageError("--json needs --show. Add it, or leave it out.")
    if trials is not None:
        options["overrides"] = (*options["overrides"], f"search.trials={trials}")

    import time

    from recon_search.conflict.scores import ConflictScores
    from recon_search.stages.judge import SUMMARY, search_and_judge
    from recon_search.stages.split import check_scores
    from recon_search.stages.study import check_study
    from recon_search.views.exported import describe_export
    from recon_search.views.narrow import comparison_tables
    from recon_search.views.trials import read_summary, trial_table

    scores, name = None, study or options["recipe_path"].stem

    def read_inputs(run: Run) -> None:
        nonlocal scores
        if scores_path is not None:
            scores = ConflictScores.load(scores_path)
            check_scores(scores, run)
        check_study(run, storage, name, scores)

    run = open_run({**options, "resume": True}, read_inputs, is_search=True)
    comparison = search_and_judge(
        run,
        scores,
        url=storage,
        study=name,
        deadline=None if timeout is None else time.time() + timeout,
        judged=judge,
    )
    console = make_console(minimum=190)
    console.print(trial_table(read_summary(run.out / SUMMARY), console.width))
    if comparison is not None:
        for table in comparison_tables(comparison, console.width):
            console.print(table)
        said = (comparison.verdict, comparison.warning, *describe_export(comparison, run.out))
        for text in filter(None, said):
            tell(text)
        tell(f"Open {run.out / 'report.html'} first.")


def _show_study(name: str, url: str | None, out: Path | None, as_json: bool) -> None:
    """Print the trials of a study; draw them where `out` says so."""
    from recon_search.stages.study import find_study
    from recon_search.views.plots import save_figure
    from recon_search.views.trial_plots import search_plot
    from recon_search.views.trials import summarise, trial_table

    found = find_study(name, url)
    summary = summarise(found)
    if out is not None:
        save_figure(search_plot(found), out / "search.png")
    if as_json:
        tell_json(summary)
        return
    console = make_console(minimum=190)
    console.print(trial_table(summary, console.width))
    if out is not None:
        tell(f"Written: {out / 'search.png'}")
