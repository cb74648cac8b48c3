"""Search over splits: workers that share a study, and what watches them."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from recon_search import artefact, parallel
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import RecipeError, ReconSearchError, TrainingError, in_one_line
from recon_search.recipe import Recipe
from recon_search.runs.pool import n_workers, prepare_worker
from recon_search.search.ledger import Ledger
from recon_search.search.sampling import make_pruner, make_sampler
from recon_search.search.space import first_trials, make_space
from recon_search.search.storage import (
    PatientStorage,
    hide_password,
    is_gone,
    is_missing,
    open_storage,
    open_study,
    owner,
    plain_errors,
    recover,
)
from recon_search.search.tally import has_waiting_retry, tally
from recon_search.stages.trial import POLL, Failed, NotNeeded, Objective, directions
from recon_search.training.loop import Report
from recon_search.views.trials import SearchDisplay

Show = Callable[[list[FrozenTrial]], None]


@dataclass(frozen=True)
class Job:
    """What every worker of a search gets.

    Attributes:
        recipe: the recipe.
        scores: file of the probe's scores.
        out: the run directory.
        device: where to train.
        url: of the database.
        study: name of the study.
        deadline: time after which no trial begins, in seconds since the epoch; None for none.
    """

    recipe: Recipe
    scores: Path
    out: Path
    device: torch.device
    url: str
    study: str
    deadline: float | None = None


def search(job: Job, console: Console, workers: int | None = None) -> Study:
    """Run trials until the study has as many as the recipe wants; show how it goes.

    Others may work on the same study at the same time. The trials of those who died are begun anew,
    from their last epoch where the run directory is the same.

    Args:
        job: the search.
        console: where progress goes.
        workers: processes; None takes one a core on the CPU. A GPU is not shared, and a group of
            processes (see `parallel`) works on one trial at a time, in this one.

    Raises:
        RecipeError: the database does not answer, or the study is of another recipe or probe.
        ReconSearchError: what a worker met.
    """
    study, _, _ = join(job)
    if parallel.size() > 1:
        with SearchDisplay(job.study, job.recipe.search.trials, console) as display:
            work(job, show=functools.partial(display.show, directions=directions(job.recipe)))
        return study
    workers = n_workers(workers, job.device)
    context = multiprocessing.get_context("spawn")
    errors: multiprocessing.Queue[str] = context.Queue()
    threads = max(1, torch.get_num_threads() // workers)
    processes = [
        context.Process(target=_work_in_process, args=(job, errors, os.getpid(), threads, index))
        for index in range(workers)
    ]
    with SearchDisplay(job.study, job.recipe.search.trials, console) as display:
        for process in processes:
            process.start()
        try:
            # All are asked: one that has died and is not asked looks alive to the others.
            while sum(process.is_alive() for process in processes):
                display.show(study.get_trials(deepcopy=False), directions(job.recipe))
                time.sleep(POLL)
        except BaseException:
            for process in processes:
                process.terminate()
            raise
        display.show(study.get_trials(deepcopy=False), directions(job.recipe))
    failed = [process.exitcode for process in processes if process.exitcode]
    if not failed:
        return study
    reason = None if errors.empty() else errors.get()
    if len(failed) == len(processes):
        if reason is not None:
            raise ReconSearchError(reason)
        raise TrainingError(
            f"Every worker must end well, all ended with exit codes {failed}. Run the same command "
            "again to go on."
        )
    reason = reason or f"exit codes {failed}"
    text = f"Warning: {len(failed)} of {len(processes)} workers did not end well: {reason}"
    console.print(text, highlight=False, markup=False, soft_wrap=True)
    return study


def work(job: Job, index: int = 0, report: Report | None = None, show: Show | None = None) -> None:
    """Run trials in this process until the study has enough of them, dead workers' included.

    Args:
        job: the search.
        index: tells the workers of a machine apart.
        report: called every few steps of a training with its progress.
        show: called with all trials of the study before each trial and at the end.
    """
    study, storage, ledger = join(job)
    scores = ConflictScores.load(job.scores)
    space = make_space(job.recipe, scores)
    limit = job.recipe.search.trials
    objective = Objective(
        job.recipe, scores, space, job.out, job.device, study, ledger, limit, report, storage
    )
    _queue_guesses(first_trials(job.recipe, scores, space), study, ledger)
    while job.deadline is None or time.time() < job.deadline:
        recover(study, storage)
        trials = study.get_trials(deepcopy=False)
        if show is not None:
            show(trials)
        now = tally(trials)
        if not has_waiting_retry(trials):
            if now.spent >= limit or (now.is_exhausted and not now.running):
                break
            if now.is_exhausted or now.spent + now.running >= limit:
                time.sleep(POLL)  # one of those that run may yet die
                continue
        study.sampler = make_sampler(job.recipe, len(trials) - now.waiting, index)
        try:
            study.optimize(objective, n_trials=1, catch=(NotNeeded, Failed))
        except (UpdateFinishedTrialError, ValueError):
            # Somebody gave the trial up while this process could not reach the database.
            if not _was_given_up(study):
                raise
    if show is not None:
        show(study.get_trials(deepcopy=False))


def default_url(out: Path) -> str:
    """The database of a search on one machine."""
    out.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{out / 'search.db'}"


def find_study(name: str, url: str | None) -> Study:
    """Open a study to look at: a run directory's, or one by name in a database.

    Raises:
        RecipeError: there is no such study.
    """
    if url is None:
        file = Path(name) / "search.db"
        if not file.is_file():
            raise RecipeError(
                f"--show takes a run directory with a search.db, or a study's name with --storage; "
                f"found no {file}. Check the path."
            )
        url = f"sqlite:///{file}"
    elif is_missing(url):
        raise RecipeError(
            f"--storage must be a database to show, found no file of {url}. Check the path."
        )
    storage = open_storage(url, heartbeat=60, retries=0)
    names = [study.study_name for study in storage.get_all_studies()]
    if name not in names and len(names) == 1 and Path(name).is_dir():
        name = names[0]
    if name not in names:
        raise RecipeError(
            f"Study '{name}' is needed, the database holds {', '.join(names) or 'none'}. Pass one "
            f"of them to --show, with --storage {hide_password(url)}"
        )
    return optuna.load_study(study_name=name, storage=storage)


def join(job: Job) -> tuple[Study, PatientStorage, Ledger]:
    """Open the study, and make sure that it is of this recipe and this probe."""
    with plain_errors(job.url):
        return _join_unless_refused(job)


def _join_unless_refused(job: Job) -> tuple[Study, PatientStorage, Ledger]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    settings = job.recipe.search
    storage = open_storage(job.url, settings.heartbeat, settings.retries)
    study = open_study(storage, job.study, directions(job.recipe))
    study.pruner = make_pruner(job.recipe)
    ledger = Ledger(storage.engine, job.study)
    recipe = job.recipe.model_dump(
        mode="json",
        exclude={
            "compare": True,
            "data": {"root", "download"},
            "search": {"trials", "heartbeat", "retries"},
        },
    )
    scores = ConflictScores.load(job.scores)
    identity = {"recipe": artefact.digest(recipe), "scores": scores.digest}
    if study.get_trials(deepcopy=False) and ledger.get("study") is None:
        raise RecipeError(
            f"Study '{job.study}' must be one of recon-search, found trials of something else in "
            "it. Choose another --study."
        )
    known = ledger.settle("study", identity)
    for what, value in identity.items():
        if known[what] != value:
            raise RecipeError(
                f"Study '{job.study}' was begun with another {what} (digest {known[what]}, this is "
                f"{value}). Choose another --study, or give it the same {what}."
            )
    return study, storage, ledger


def _queue_guesses(guesses: list[dict[str, Any]], study: Study, ledger: Ledger) -> None:
    """Queue the first trials: once, and those too before which the one who did it died."""
    first = ledger.settle("first trials", {"by": owner()})["by"]
    if first != owner() and not is_gone(first):
        return
    trials = study.get_trials(deepcopy=False)
    queued = {t.user_attrs.get("guess") for t in trials if "surplus" not in t.user_attrs}
    for index, guess in enumerate(guesses):
        if index not in queued:
            study.enqueue_trial(guess, user_attrs={"guess": index})


def _was_given_up(study: Study) -> bool:
    """Whether this process's last trial was taken from it while it could not be reached."""
    mine = [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.user_attrs.get("owner") == owner()
    ]
    return bool(mine) and mine[-1].state == TrialState.FAIL


def _work_in_process(
    job: Job, errors: multiprocessing.Queue[str], parent: int, threads: int, index: int
) -> None:
    prepare_worker(parent, threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    try:
        work(job, index)
    except ReconSearchError as error:
        errors.put(str(error))
        raise SystemExit(2) from None
    except Exception as error:
        errors.put(
            f"A worker must meet nothing unforeseen, one met {in_one_line(error)}. Mend that and "
            "run the same command again to go on."
        )
        raise SystemExit(2) from None
