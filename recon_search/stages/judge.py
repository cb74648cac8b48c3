"""From a search to what it is for: its best split, retrained and judged against the controls."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import torch
from optuna.study import Study
from optuna.trial import FixedTrial, FrozenTrial, TrialState
from rich.console import Console

from recon_search import artefact
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import TrainingError
from recon_search.recipe import Recipe
from recon_search.runs.training import copy_model
from recon_search.search.space import draw, make_space
from recon_search.search.storage import is_local, open_storage
from recon_search.stages.compare import compare
from recon_search.stages.export import export
from recon_search.stages.probe import probe
from recon_search.stages.report import write_report
from recon_search.stages.search import Job, join, search
from recon_search.stages.split import check_scores
from recon_search.stages.trial import Objective
from recon_search.views.plots import save_figure
from recon_search.views.tables import comparison_table
from recon_search.views.trial_plots import search_plot
from recon_search.views.trials import summarise, trial_table


def search_and_judge(
    job: Job,
    console: Console,
    workers: int | None = None,
    *,
    has_scores: bool,
    judged: bool | None = None,
) -> dict[str, Any] | None:
    """Probe, search, and judge the best split: the whole of `recon-search search`.

    Args:
        job: the search.
        console: where progress and tables go.
        workers: processes.
        has_scores: `job.scores` is there; if not, probe and write it.
        judged: judge the best split; None leaves that to the machine that was first to ask.

    Returns:
        The comparison, if there was a split to judge here.
    """
    if has_scores:
        scores = ConflictScores.load(job.scores)
        check_scores(scores, job.recipe, job.device)
        join(job)  # refuses scores that the study was not begun with
        scores.save(job.out / "scores.safetensors")
    else:
        probe(job.recipe, job.out, job.device, console, workers)
    study = search(job, console, workers)
    summary = summarise(study)
    artefact.write_json(job.out / "search.json", summary)
    save_figure(search_plot(study), job.out / "search.png")
    console.print(trial_table(summary))
    if judged is None:
        judged = is_local(job.url) or _is_first_to_judge(job, console)
    if not judged:
        return None
    comparison = judge(job, study, console, workers)
    if comparison is None:
        write_report(job.out)
        return None
    copy_model(comparison["best"], job.out / "model")
    for task in comparison["single"]:
        export(job.out / "model", "timm", task, job.out / "export" / f"{task}.safetensors")
    write_report(job.out)
    console.print(comparison_table(comparison))
    console.print(comparison["verdict"], highlight=False)
    console.print(f"Open {job.out / 'report.html'} first.", highlight=False, soft_wrap=True)
    return comparison


def choose_best(study: Study) -> FrozenTrial:
    """The trial with the highest validation delta_m; of a front too.

    Raises:
        TrainingError: no trial was completed.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        attributes = [trial.user_attrs for trial in study.get_trials(deepcopy=False)]
        errors = [each["error"] for each in attributes if "error" in each]
        reason = f"The last trial that failed says: {errors[-1]}" if errors else "None failed."
        raise TrainingError(
            f"A search needs one completed trial at least, found none. {reason} Run the same "
            "command again with more --trials or without --timeout."
        )
    return max(complete, key=lambda trial: trial.values[0])


def judge(
    job: Job, study: Study, console: Console, workers: int | None = None
) -> dict[str, Any] | None:
    """Retrain the best split over fresh seeds against all controls, and test it once.

    The seeds differ from the search's, on whose luck the choice has been made.

    Returns:
        The comparison (see `compare`), whose split `out` then holds as `split.json`; None if the
        unsplit network was best.
    """
    best = choose_best(study)
    objective = _objective_of(job, study)
    recipe, training = objective.plan(draw(FixedTrial(best.params), objective.space))
    methods = list(dict.fromkeys([recipe.train.method, *recipe.compare.methods]))
    recipe = recipe.model_copy(
        update={
            "seed": recipe.seed + 1,
            "compare": recipe.compare.model_copy(update={"methods": methods}),
        }
    )
    split = training.split
    if split is None:
        console.print("No split did better than the network without one: nothing to judge.")
        _forget_earlier(job.out)
        return None
    split.save(job.out / "split.json")
    artefact.write_json(job.out / "best.json", recipe.model_dump(mode="json"))
    return compare(recipe, split, objective.scores, job.out, job.device, console, workers)


def _objective_of(job: Job, study: Study) -> Objective:
    scores = ConflictScores.load(job.scores)
    space = make_space(job.recipe, scores)
    ledger = join(job)[2]
    limit = job.recipe.search.trials
    return Objective(job.recipe, scores, space, job.out, job.device, study, ledger, limit)


def check_search_inputs(
    recipe: Recipe, device: torch.device, scores: Path | None, url: str | None
) -> None:
    """Refuse scores that do not fit and a database that does not answer, before all else.

    Raises:
        ReconSearchError: what is wrong.
    """
    if scores is not None:
        check_scores(ConflictScores.load(scores), recipe, device)
    if url is not None:
        settings = recipe.search
        open_storage(url, settings.heartbeat, settings.retries).engine.dispose()


def _forget_earlier(out: Path) -> None:
    """Delete what an earlier study in the same folder has judged."""
    for name in ("split.json", "best.json", "comparison.json"):
        (out / name).unlink(missing_ok=True)
    for name in ("model", "export"):
        shutil.rmtree(out / name, ignore_errors=True)


def _is_first_to_judge(job: Job, console: Console) -> bool:
    """Whether the best split is judged here: in the folder and on the host that ask first.

    A host that was started anew is the same.
    """
    here = {"host": socket.gethostname(), "out": str(job.out.resolve())}
    first = join(job)[2].settle("judge", here)
    if first != here:
        console.print(
            f"The best split is judged on {first['host']}, in {first['out']}. If that machine is "
            "gone, add --judge to do it here.",
            highlight=False,
            soft_wrap=True,
        )
    return first == here
