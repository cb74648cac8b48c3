"""`recon-search ablate`: what each layer's split is worth, and which rule foretells it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recon_search.cli.options import (
    FILE,
    make_console,
    open_run,
    recipe_options,
    run_options,
    seeds_option,
    tell,
    tell_json,
)

if TYPE_CHECKING:
    from recon_search.runs.run import Run


@click.command()
@recipe_options
@run_options
@seeds_option
@click.option(
    "--layers",
    "wanted",
    default="all",
    show_default=True,
    metavar="LAYERS",
    help="all; a number, evenly spaced; or patterns of names, as 'layer1.*,*.conv2'.",
)
@click.option("--scores", "scores_path", type=FILE, help="Of a probe; without them one is run.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ablate(wanted: str, scores_path: Path | None, as_json: bool, **options: Any) -> None:
    """Train with one layer split at a time, and hold the rules' rankings against the benefits.

    Single-task and joint networks are trained once, and are those of `run` in the same folder. What
    it takes says `recon-search plan RECIPE --ablate LAYERS`.

    Example: recon-search ablate quickstart --layers 8 --seeds 4
    """
    from recon_search.conflict.scores import ConflictScores
    from recon_search.stages.ablate import FILE as NAME
    from recon_search.stages.ablate import ablate as stage
    from recon_search.stages.ablate import choose_ablated
    from recon_search.stages.probe import probe
    from recon_search.stages.split import check_scores
    from recon_search.views.ablation import ablation_table, describe_ablation, foretold_table

    scores = None

    def read_inputs(run: Run) -> None:
        nonlocal scores
        choose_ablated(list(run.facts.analysis.layers), wanted)
        if scores_path is not None:
            scores = ConflictScores.load(scores_path)
            check_scores(scores, run)

    run = open_run(options, read_inputs, as_json=as_json)
    found = stage(run, probe(run) if scores is None else scores, wanted)
    if as_json:
        from dataclasses import asdict

        tell_json(asdict(found))
        return
    console = make_console(minimum=120)
    console.print(ablation_table(found))
    console.print(foretold_table(found))
    tell(describe_ablation(found))
    tell(f"Written: {run.out / NAME}")
