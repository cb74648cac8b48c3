"""`recon-search split`: choose one, or look at one."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import click

from recon_search.cli.completion import complete_ranking
from recon_search.cli.options import (
    FILE,
    RANKING,
    check_picture,
    load_overridden,
    make_console,
    recipe_options,
    tell,
    tell_json,
)
from recon_search.disk import refuse_same

COUNTS = "A JSON table {layer: count}, or published:recon-multi-fashion-mnist."


@click.command()
@functools.partial(recipe_options, required=False)
@click.option("--scores", "scores_path", type=FILE, help="What the probe wrote.")
@click.option(
    "--counts",
    "counts_path",
    type=RANKING,
    metavar="COUNTS",
    shell_complete=complete_ranking,
    help=COUNTS,
)
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

    Example: recon-search split --show runs/mine/split.json --out split.png
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
    out = out or Path("split.json")
    read = (options["recipe_path"], scores_path, counts_path)
    refuse_same(out, "--out", [path for path in read if path is not None])
    recipe = load_overridden(options)

    from recon_search.conflict.scores import ConflictScores
    from recon_search.runs.run import Run
    from recon_search.stages.borrow import split_by_counts
    from recon_search.stages.split import check_scores, choose_split

    run = Run(recipe, out.parent)
    if scores_path is not None:
        scores = ConflictScores.load(scores_path)
        check_scores(scores, run)
        chosen = choose_split(recipe, scores, schema=run.schema)
    else:
        assert counts_path is not None
        chosen = split_by_counts(run, counts_path)
    chosen.save(out)
    named = ", ".join(chosen.layers) or "all stay shared under this threshold or limit."
    click.echo(f"{len(chosen.layers)} layers: {named}\nWritten: {out}")


def _show_split(
    path: Path, image: tuple[int, int, int] | None, as_json: bool, out: Path | None
) -> None:
    """Print the network that a split gives, and draw it where `out` says so."""
    if out is not None:
        check_picture(out, "--out")

    from recon_search.graph.anatomy import dissect
    from recon_search.graph.split import Split
    from recon_search.model.facts import facts_of
    from recon_search.model.foreign import recorded_backbone
    from recon_search.views.outline import MANY_GROUPS, cost_table, outline
    from recon_search.views.outline import as_json as rows

    saved = Split.load(path)
    facts = facts_of(recorded_backbone(saved, path), image or (3,))
    anatomy = dissect(facts.analysis, saved, title=facts.config.name, timed=True)
    if out is not None:
        from recon_search.views.picture import picture
        from recon_search.views.plots import save_figure

        save_figure(picture(anatomy), out)
    if as_json:
        tell_json(rows(anatomy))
        return
    console = make_console(minimum=110)
    console.print(outline(anatomy), highlight=False)
    console.print(cost_table(anatomy, MANY_GROUPS))
    if out is not None:
        tell(f"Written: {out}")
