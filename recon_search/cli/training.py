"""`recon-search train` and `compare`: networks trained and judged with a split at hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recon_search.cli.completion import complete_method, complete_ranking
from recon_search.cli.options import (
    FILE,
    RANKING,
    make_console,
    map_splits,
    open_run,
    recipe_options,
    run_options,
    seeds_option,
    tell,
    tell_json,
)
from recon_search.errors import RecipeError

if TYPE_CHECKING:
    from recon_search.runs.run import Run


@click.command()
@recipe_options
@run_options
@map_splits
@click.option(
    "--split",
    "split_path",
    type=RANKING,
    shell_complete=complete_ranking,
    metavar="SPLIT",
    help="Split to train with, from any data set: its file, scores, the folder of a run, or "
    "published:NAME.",
)
@click.option("--method", shell_complete=complete_method, help="Override train.method.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def train(split_path: Path | None, method: str | None, as_json: bool, **options: Any) -> None:
    """Train one network, unsplit or with a saved split, and test it once.

    With `split.when = "during"` in the recipe it measures, splits itself, and goes on.

    Example: recon-search train my.toml --split runs/other --method pcgrad --out runs/mine
    """
    if method is not None:
        options["overrides"] = (*options["overrides"], f'train.method="{method}"')
    from recon_search.stages.borrow import load_split
    from recon_search.stages.train import train_one
    from recon_search.tasks.task import units

    split = None

    def read_inputs(run: Run) -> None:
        nonlocal split
        if split_path is not None:
            split = load_split(split_path, run, run.recipe.compare.map)

    run = open_run(options, read_inputs, as_json=as_json)
    result = train_one(run, split)
    if as_json:
        values = {**result.as_json(), "directory": str(result.directory)}
        tell_json(values)
        return
    assert result.test is not None
    for task, own in units(run.schema.tasks).items():
        for name, unit in own.items():
            tell(f"{task}: test {name} {result.test[task][name]:.2f} {unit}".rstrip())
    tell(f"{result.n_parameters:,} parameters. Model directory: {run.out / 'model'}")


@click.command()
@recipe_options
@run_options
@seeds_option
@map_splits
@click.option("--scores", "scores_path", type=FILE, required=True, help="For the controls.")
@click.option(
    "--split",
    "split_path",
    type=RANKING,
    shell_complete=complete_ranking,
    required=True,
    metavar="SPLIT",
    help="The split to judge, as of `train`.",
)
def compare(scores_path: Path, split_path: Path, **options: Any) -> None:
    """Judge a split: baselines, joint training and controls over paired seeds.

    Example: recon-search compare my.toml --split split.json --scores runs/my/scores.safetensors
    """
    from recon_search.conflict.scores import ConflictScores
    from recon_search.stages.borrow import load_split
    from recon_search.stages.compare import compare as stage
    from recon_search.stages.split import check_scores
    from recon_search.views.markup import escape
    from recon_search.views.narrow import comparison_tables

    inputs: Any = None

    def read_inputs(run: Run) -> None:
        nonlocal inputs
        if run.recipe.split.when == "during":
            raise RecipeError(
                '`compare` judges the split that it is given, `split.when` "during" has every '
                "training choose its own. Use `recon-search run`, or pass --set split.when=before."
            )
        scores = ConflictScores.load(scores_path)
        check_scores(scores, run)
        inputs = load_split(split_path, run, run.recipe.compare.map), scores

    run = open_run(options, read_inputs)
    comparison = stage(run, *inputs)
    wide = make_console(minimum=190)
    for table in comparison_tables(comparison, wide.width):
        wide.print(table)
    for text in filter(None, (comparison.verdict, comparison.warning)):
        wide.print(escape(text), highlight=False)
