"""Search over splits: workers that share a study, and what watches them."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from recon_search import identity, parallel
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import RecipeError, ReconSearchError, TrainingError, in_one_line
from recon_search.runs.pool import n_workers, prepare_worker
from recon_search.runs.run import Run
from recon_search.runs.training import Training
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
from recon_search.stages.trial import POLL, Failed, NotNeeded, Objective, objectives
from recon_search.training.loop import Report

Show = Callable[[list[FrozenTrial]], None]


@dataclass(frozen=True)
class Job:
    """What every worker of a search gets.

    Attributes:
        run: the recipe and where its trainings are.
        scores: of the probe.
        url: of the database.
        study: name of the study.
        deadline: time after which no trial begins, in seconds since the epoch; None for none.
    """

    run: Run
    scores: ConflictScores
    url: str
    study: str
    deadline: float | None = None

    def silent(self) -> Job:
        """Return the same job without its listener, for another process."""
        return replace(self, run=self.run.silent())


@dataclass(frozen=True)
class Joined:
    """A study that this process takes part in.

    Attributes:
        study: Optuna's.
        storage: that holds it.
        ledger: what is computed once for it.
    """

    study: Study
    storage: PatientStorage
    ledger: Ledger


def search(job: Job, joined: Joined) -> None:
    """Run trials until the study has as many as the recipe wants; the run's listener hears of it.

    Others may work on the same study at the same time. The trials of those who died are begun anew,
    from their last epoch where the run folder is the same. A GPU is not shared, and a group of
    processes (see `parallel`) works on one trial at a time, in this one.

    Raises:
        RecipeError: the database does not answer, or the study is of another recipe or probe.
        ReconSearchError: what a worker met.
    """
    run = job.run
    show = functools.partial(_show, job)
    if parallel.size() > 1:
        with run.listener.over("search", run.recipe.search.trials):
            work(job, joined, show=show)
        return
    workers = n_workers(run)
    context = multiprocessing.get_context("spawn")
    errors: multiprocessing.Queue[str] = context.Queue()
    threads = max(1, torch.get_num_threads() // workers)
    processes = [
        context.Process(
            target=_work_in_process, args=(job.silent(), errors, os.getpid(), threads, index)
        )
        for index in range(workers)
    ]
    with run.listener.over("search", run.recipe.search.trials):
        for process in processes:
            process.start()
        try:
            # All are asked: one that has died and is not asked looks alive to the others.
            while sum(process.is_alive() for process in processes):
                show(joined.study.get_trials(deepcopy=False))
                time.sleep(POLL)
        except BaseException:
            for process in processes:
                process.terminate()
            raise
        show(joined.study.get_trials(deepcopy=False))
    failed = [process.exitcode for process in processes if process.exitcode]
    if not failed:
        return
    reason = None if errors.empty() else errors.get()
    if len(failed) == len(processes):
        if reason is not None:
            raise ReconSearchError(reason)
        raise TrainingError(
            f"Every worker must end well, all ended with exit codes {failed}. Run the same command "
            "again to go on."
        )
    reason = reason or f"exit codes {failed}"
    run.listener.say(
        f"Warning: {len(failed)} of {len(processes)} workers did not end well: {reason}"
    )


def work(
    job: Job,
    joined: Joined | None = None,
    index: int = 0,
    report: Report | None = None,
    show: Show | None = None,
) -> None:
    """Run trials in this process until the study has enough of them, dead workers' included.

    Args:
        job: the search.
        joined: its study; joined here if None.
        index: tells the workers of a machine apart.
        report: called every few steps of a training with its progress.
        show: called with all trials of the study before each trial and at the end.
    """
    joined = joined or join(job)
    study, recipe = joined.study, job.run.recipe
    objective = objective_of(job, joined, report)
    guesses = first_trials(recipe, job.scores, objective.space)
    _queue_guesses(guesses, study, joined.ledger)
    limit = recipe.search.trials
    while job.deadline is None or time.time() < job.deadline:
        recover(study, joined.storage)
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
        study.sampler = make_sampler(recipe, len(trials) - now.waiting, index)
        try:
            study.optimize(objective, n_trials=1, catch=(NotNeeded, Failed))
        except (UpdateFinishedTrialError, ValueError):
            # Somebody gave the trial up while this process could not reach the database.
            if not _was_given_up(study):
                raise
    if show is not None:
        show(study.get_trials(deepcopy=False))


def objective_of(job: Job, joined: Joined, report: Report | None = None) -> Objective:
    """What the trials of a study maximise."""
    return Objective(
        job.run,
        job.scores,
        make_space(job.run.recipe, job.scores),
        joined.study,
        joined.ledger,
        job.run.recipe.search.trials,
        report,
        joined.storage,
    )


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


def join(job: Job) -> Joined:
    """Open the study, and make sure that it is of this recipe and this probe.

    Raises:
        RecipeError: it is not, or the database does not answer.
    """
    with plain_errors(job.url):
        return _join_unless_refused(job)


def _join_unless_refused(job: Job) -> Joined:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    run, recipe = job.run, job.run.recipe
    settings = recipe.search
    storage = open_storage(job.url, settings.heartbeat, settings.retries)
    study = open_study(storage, job.study, objectives(recipe))
    study.pruner = make_pruner(recipe)
    ledger = Ledger(storage.engine, job.study)
    base = Training(run.schema.names, None, recipe.train, recipe.backbone, recipe.seed)
    ours = identity.of_study(recipe, base.identity(run), job.scores.digest)
    if study.get_trials(deepcopy=False) and ledger.get("study") is None:
        raise RecipeError(
            f"Study '{job.study}' must be one of recon-search, found trials of something else in "
            "it. Choose another --study."
        )
    known = ledger.settle("study", ours)
    for what, value in ours.items():
        if known[what] != value:
            raise RecipeError(
                f"Study '{job.study}' was begun with another {what} (digest {known[what]}, this is "
                f"{value}). Choose another --study, or give it the same {what}."
            )
    return Joined(study, storage, ledger)


def _show(job: Job, trials: list[FrozenTrial]) -> None:
    recipe = job.run.recipe
    job.run.listener.study(job.study, recipe.search.trials, trials, objectives(recipe))


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
    prepare_worker(parent)
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    try:
        work(job, index=index)
    except ReconSearchError as error:
        errors.put(str(error))
        raise SystemExit(2) from None
    except Exception as error:
        errors.put(
            f"A worker must meet nothing unforeseen, one met {in_one_line(error)}. Mend that and "
            "run the same command again to go on."
        )
        raise SystemExit(2) from None
