"""The stages from Python: what the commands of the same names do, without a console."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from recon_search import parallel
from recon_search.conflict.scores import ConflictScores
from recon_search.data.given import settle
from recon_search.data.registry import GIVEN
from recon_search.data.task_data import TaskData
from recon_search.graph.split import Split
from recon_search.recipe import Recipe, load_recipe, parse_recipe
from recon_search.runs.comparison import Comparison
from recon_search.runs.folder import open_folder
from recon_search.runs.listener import SILENT, Listener
from recon_search.runs.lock import held
from recon_search.runs.pool import n_workers
from recon_search.runs.run import Run
from recon_search.runs.writers import logged
from recon_search.stages import check as checks
from recon_search.stages import compare as comparing
from recon_search.stages import judge as judging
from recon_search.stages import probe as probing
from recon_search.stages import run as running
from recon_search.stages.origin import write_origin
from recon_search.stages.split import check_scores

AnyRecipe = Recipe | str | Path | Mapping[str, Any]
"""A recipe, the file of one, or its content as plain values."""


def run(
    recipe: AnyRecipe,
    out: str | Path,
    *,
    device: str | torch.device = "cpu",
    workers: int = 1,
    resume: bool = False,
    data: TaskData | None = None,
    listener: Listener = SILENT,
) -> Comparison:
    """Probe, split, retrain, compare, export and report: `recon-search run`.

    Args:
        recipe: what to do.
        out: the run folder.
        device: where networks are trained.
        workers: trainings at once. More than one start processes, which a script must allow for by
            `if __name__ == "__main__":`.
        resume: go on with what the folder holds.
        data: tasks and samples, in place of those that the recipe names; other keys of `[data]`
            and `[tasks]` count. Results are kept under its fingerprint; without one every sample is
            read once to find it. With more workers than one it must pickle.
        listener: hears how the work goes.

    Raises:
        ReconSearchError: one of its subclasses, with one clear line.
    """
    with held(Path(out), "run"):
        return running.run_all(_open(recipe, out, device, workers, resume, data, listener))


def probe(
    recipe: AnyRecipe,
    out: str | Path,
    *,
    device: str | torch.device = "cpu",
    workers: int = 1,
    resume: bool = False,
    data: TaskData | None = None,
    listener: Listener = SILENT,
) -> ConflictScores:
    """Measure in which layers the tasks conflict: `recon-search probe`; see `run`."""
    with held(Path(out), "probe"):
        return probing.probe(_open(recipe, out, device, workers, resume, data, listener))


def compare(
    recipe: AnyRecipe,
    split: Split,
    scores: ConflictScores,
    out: str | Path,
    *,
    device: str | torch.device = "cpu",
    workers: int = 1,
    resume: bool = False,
    data: TaskData | None = None,
    listener: Listener = SILENT,
) -> Comparison:
    """Judge a split against baselines and controls: `recon-search compare`; see `run`.

    Args:
        recipe: see `run`.
        split: the split to judge; its tasks are the recipe's, or `compare.map` says which.
        scores: of a probe of the same tasks and backbone, for the controls.
        out: see `run`; and so the others.
        device: see `run`.
        workers: see `run`.
        resume: see `run`.
        data: see `run`.
        listener: see `run`.
    """
    with held(Path(out), "compare"):
        this = _open(recipe, out, device, workers, resume, data, listener, scores)
        mapping = this.recipe.compare.map or None
        return comparing.compare(this, split.for_tasks(this.schema.names, mapping), scores)


def search_splits(
    recipe: AnyRecipe,
    out: str | Path,
    scores: ConflictScores | None = None,
    *,
    device: str | torch.device = "cpu",
    workers: int = 1,
    storage: str | None = None,
    study: str = "search",
    data: TaskData | None = None,
    listener: Listener = SILENT,
) -> Comparison | None:
    """Search for the best split, and judge it: `recon-search search`; see `run`.

    Args:
        recipe: see `run`.
        out: see `run`; the same call again goes on.
        scores: of a probe; None probes.
        device: see `run`.
        workers: processes that run trials; at least one is started.
        storage: URL of the database; None for one in `out`.
        study: its name there.
        data: see `run`; it must pickle.
        listener: see `run`.

    Returns:
        The comparison of the best split; None where none was better than no split.
    """
    this = _open(recipe, out, device, workers, True, data, listener, scores, is_search=True)
    return judging.search_and_judge(this, scores, url=storage, study=study)


def _open(
    recipe: AnyRecipe,
    out: str | Path,
    device: str | torch.device,
    workers: int,
    resume: bool,
    data: TaskData | None,
    listener: Listener,
    scores: ConflictScores | None = None,
    *,
    is_search: bool = False,
) -> Run:
    name = Path(recipe).stem if isinstance(recipe, str | Path) else ""
    recipe, chosen = _read(recipe, is_given=data is not None), torch.device(device)
    this = Run(recipe, Path(out), chosen, workers, listener)
    if data is not None:
        travels = is_search or n_workers(this) > 1 or parallel.size() > 1
        this = replace(this, data=settle(data, travels=travels))
    checks.check(this)
    if scores is not None:
        check_scores(scores, this)
    open_folder(recipe, this.out, resume=resume, is_search=is_search)
    write_origin(this.out, str(chosen), recipe=name, goes_on=resume)
    return logged(this)


def _read(recipe: AnyRecipe, *, is_given: bool) -> Recipe:
    """Read a recipe, and let it say where its data comes from if that is given."""
    if isinstance(recipe, str | Path):
        return load_recipe(recipe, [f"data.name={GIVEN}"] if is_given else [])
    if not isinstance(recipe, Recipe):
        raw = dict(recipe)
        return parse_recipe(
            {**raw, "data": {**raw.get("data", {}), "name": GIVEN}} if is_given else raw
        )
    if not is_given:
        return recipe
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"name": GIVEN})})
