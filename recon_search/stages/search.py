"""Search over splits: workers that share a study, and what watches them."""

from __future__ import annotations

import functools
import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.synchronize import Event
from typing import Any

import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from recon_search import interruption, parallel
from recon_search.errors import ReconSearchError, TrainingError, in_one_line
from recon_search.interruption import Interrupted
from recon_search.owners import is_gone, owner
from recon_search.runs import worker
from recon_search.runs.deadline import OutOfTime
from recon_search.runs.pool import n_workers
from recon_search.search.ending import Ending, end, ending_of, likely_gain
from recon_search.search.ledger import Ledger
from recon_search.search.sampling import make_sampler
from recon_search.search.space import first_trials, make_space
from recon_search.search.storage import pause, plain_errors, recover
from recon_search.search.tally import Tally, has_waiting_retry, tally
from recon_search.stages.study import Job, Joined, join
from recon_search.stages.trial import POLL, Failed, NotNeeded, Objective, objectives

Show = Callable[[list[FrozenTrial]], None]


def search(job: Job, joined: Joined) -> None:
    """Run trials until the study has as many as the recipe wants; the run's listener hears of it.

    Others may work on the same study at the same time. The trials of those who died are begun anew,
    from their last epoch where the run folder is the same. A group of processes (see `parallel`)
    works on one trial at a time, in this one.

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
    stop = context.Event()
    threads = max(1, torch.get_num_threads() // workers)
    processes: list[Any] = []
    with run.listener.over("search", run.recipe.search.trials):
        try:
            with interruption.in_order(), plain_errors(job.url):  # who is told ends its step
                for index in range(workers):
                    call = _work_in_process, (job.apart(), threads, index)
                    processes.append(worker.start(context, stop, errors, call))
                _wait_for(processes, job, joined, stop)
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


def _wait_for(processes: Sequence[Any], job: Job, joined: Joined, stop: Event) -> None:
    """Wait until all workers have ended, and show how far they are."""
    # All are asked: one that has died and is not asked looks alive to the others.
    while sum(process.is_alive() for process in processes):
        if interruption.is_asked():
            stop.set()
        else:
            _show(job, joined.study.get_trials(deepcopy=False))
        time.sleep(POLL)


def work(
    job: Job,
    joined: Joined | None = None,
    index: int = 0,
    show: Show | None = None,
) -> None:
    """Run trials in this process until the study has enough of them, dead workers' included.

    Args:
        job: the search.
        joined: its study; joined here if None.
        index: tells the workers of a machine apart.
        show: called with all trials of the study before each trial and at the end.
    """
    with interruption.in_order():
        _work(job, joined or join(job), index, show)


def _work(job: Job, joined: Joined, index: int, show: Show | None) -> None:
    study, recipe = joined.study, job.run.recipe
    objective = objective_of(job, joined)
    guesses = first_trials(recipe, job.scores, objective.space)
    _queue_guesses(guesses, study, joined.ledger)
    limit, watch = recipe.search.trials, Watch(job, study)
    while not job.is_over():
        interruption.check()
        recover(study, joined.storage)
        trials = study.get_trials(deepcopy=False)
        if show is not None:
            show(trials)
        now = tally(trials)
        if not has_waiting_retry(trials):
            is_ended = watch.is_ended(trials)
            if _is_complete(now, limit, is_ended=is_ended):
                break
            if is_ended or now.is_exhausted or now.spent + now.running >= limit:
                time.sleep(POLL)  # one of those that run may yet die
                continue
        study.sampler = make_sampler(recipe, len(trials) - now.waiting, index)
        try:
            study.optimize(objective, n_trials=1, catch=(NotNeeded, Failed))
        except OutOfTime:
            pause(study, joined.storage)
            break
        except Interrupted:
            pause(study, joined.storage)
            raise
        except (UpdateFinishedTrialError, ValueError):
            # Somebody gave the trial up while this process could not reach the database.
            if not _was_given_up(study):
                raise
    if show is not None:
        show(study.get_trials(deepcopy=False))


def is_cut_short(job: Job, joined: Joined) -> bool:
    """Whether the run's deadline has ended the search: there are trials to come another time."""
    if job.run.deadline is None or (job.deadline is not None and time.time() >= job.deadline):
        return False
    trials = joined.study.get_trials(deepcopy=False)
    return has_waiting_retry(trials) or not _is_complete(
        tally(trials), job.run.recipe.search.trials, is_ended=find_ending(job, joined) is not None
    )


def find_ending(job: Job, joined: Joined) -> Ending | None:
    """Why the search has ended before it had its trials; None where it has not."""
    return ending_of(joined.study) if job.run.recipe.search.terminator else None


def _is_complete(now: Tally, limit: int, *, is_ended: bool = False) -> bool:
    return now.spent >= limit or ((now.is_exhausted or is_ended) and not now.running)


class Watch:
    """Ends a study for all its workers where nothing better is likely, if the recipe says so.

    Args:
        job: the search.
        study: its study.
    """

    def __init__(self, job: Job, study: Study) -> None:
        self._settings = job.run.recipe.search
        self._study = study
        self._judged = 0

    def is_ended(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether this worker or another has ended it; judged once for every complete trial."""
        if not self._settings.terminator:
            return False
        if ending_of(self._study) is not None:
            return True
        n_complete = tally(trials).complete
        if n_complete == self._judged:
            return False
        self._judged = n_complete
        gain = likely_gain(trials)
        if gain is None or gain >= self._settings.margin:
            return False
        end(self._study, Ending(n_complete, gain))
        return True


def objective_of(job: Job, joined: Joined) -> Objective:
    """What the trials of a study maximise."""
    return Objective(
        job.run,
        job.scores,
        make_space(job.run.recipe, job.scores),
        joined.study,
        joined.ledger,
        job.run.recipe.search.trials,
        joined.storage,
    )


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


def _work_in_process(job: Job, threads: int, index: int) -> None:
    errors = worker.steps
    assert errors is not None
    torch.set_num_threads(threads)
    try:
        with plain_errors(job.url):
            work(job, index=index)
    except Interrupted as left:
        raise SystemExit(128 + left.signal) from None
    except ReconSearchError as error:
        errors.put(str(error))
        raise SystemExit(2) from None
    except Exception as error:
        errors.put(
            f"A worker must meet nothing unforeseen, one met {in_one_line(error)}. Mend that and "
            "run the same command again to go on."
        )
        raise SystemExit(2) from None
