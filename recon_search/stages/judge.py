"""From a search to what it is for: its best split, retrained and judged against the controls."""

from __future__ import annotations

import shutil
import socket
from contextlib import AbstractContextManager
from pathlib import Path

from optuna.study import Study
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from recon_search import artefact, interruption
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import TrainingError
from recon_search.interruption import Stopped
from recon_search.runs.comparison import Comparison
from recon_search.runs.deadline import OutOfTime
from recon_search.runs.lock import held
from recon_search.runs.run import Run
from recon_search.search.space import draw
from recon_search.search.storage import REASONS, plain_errors
from recon_search.search.tally import tally
from recon_search.search.urls import is_local
from recon_search.stages.compare import compare
from recon_search.stages.examples import FILE as EXAMPLES
from recon_search.stages.examples import show_examples
from recon_search.stages.export import hand_over
from recon_search.stages.probe import FILE as SCORES
from recon_search.stages.probe import probe
from recon_search.stages.report import write_report
from recon_search.stages.search import find_ending, is_cut_short, objective_of, search
from recon_search.stages.study import Job, Joined, check_study, default_url, join
from recon_search.views.trials import summarise, write_summary

SUMMARY = "search.json"
"""What was tried, in the run folder."""


def search_and_judge(
    run: Run,
    scores: ConflictScores | None = None,
    *,
    url: str | None = None,
    study: str = "search",
    deadline: float | None = None,
    judged: bool | None = None,
) -> Comparison | None:
    """Probe, search, and judge the best split: the whole of `recon-search search`.

    Args:
        run: the recipe, and the folder for its trainings.
        scores: of a probe; None probes.
        url: of the database; None for `search.db` in the run folder.
        study: its name.
        deadline: time after which no trial begins, in seconds since the epoch.
        judged: judge the best split; None leaves that to the machine that was first to ask.

    Returns:
        The comparison, if there was a split to judge here.

    Raises:
        OutOfTime: the run's deadline has come, and says what is left.
    """
    check_study(run, url, study, scores)
    url = url or default_url(run.out)
    with plain_errors(url):
        return _search_and_judge(run, scores, url, study, deadline, judged)


def _search_and_judge(
    run: Run,
    scores: ConflictScores | None,
    url: str,
    study: str,
    deadline: float | None,
    judged: bool | None,
) -> Comparison | None:
    is_given = scores is not None
    if scores is None:
        try:
            with _alone(run, "probe"):
                scores = probe(run)
        except Stopped as left:
            left.args = (f"{str(left) or 'nothing was trained'}; the search has not begun",)
            raise
    job = Job(run, scores, url, study, deadline)
    joined = join(job)  # refuses scores that the study was not begun with
    if is_given:
        scores.save(run.out / SCORES)
    try:
        search(job, joined)
    except Stopped as stopped:
        stopped.args = (_left_of(job, joined),)
        raise
    if ending := find_ending(job, joined):
        run.listener.say(f"The search has ended: {ending}.")
    summary = summarise(joined.study)
    write_summary(summary, run.out / SUMMARY)
    if is_cut_short(job, joined):
        raise OutOfTime(_left_of(job, joined))
    if judged is None:
        judged = is_local(url) or _is_first_to_judge(run, joined)
    if not judged:
        return None
    with _alone(run, "judge"):
        comparison = judge(job, joined)
        if comparison is not None:
            hand_over(comparison, run.out)
            show_examples(run)
        write_report(run.out)
    return comparison


def _alone(run: Run, work: str) -> AbstractContextManager[None]:
    """Wait until no other process that shares the folder does what is done once."""

    def wait(other: str) -> None:
        interruption.check()
        if run.deadline is not None and run.deadline.is_over():
            raise OutOfTime(f"waiting for {other}")

    return held(run.out, work, wait)


def _left_of(job: Job, joined: Joined) -> str:
    """Say how far a search has come that is cut short."""
    done, wanted = (
        tally(joined.study.get_trials(deepcopy=False)).spent,
        job.run.recipe.search.trials,
    )
    return f"{done} of {wanted} trials are done, the best split is not judged yet"


def choose_best(study: Study) -> FrozenTrial:
    """The trial with the highest validation delta_m, of a front too, or the highest gain in loss.

    Raises:
        TrainingError: no trial was completed.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        trials = study.get_trials(deepcopy=False)
        errors = [t.user_attrs["error"] for t in trials if "error" in t.user_attrs]
        n_given_up = sum(
            t.state == TrialState.FAIL and not t.user_attrs.keys() & REASONS for t in trials
        )
        reason = "None failed."
        if errors:
            reason = f"The last trial that failed says: {errors[-1]}"
        elif n_given_up:
            reason = f"Workers died in {n_given_up} of them, more often than search.retries allows."
        raise TrainingError(
            f"A search needs one completed trial at least, found none. {reason} Run the same "
            "command again with more --trials or without --timeout."
        )
    return max(complete, key=lambda trial: trial.values[0])


def judge(job: Job, joined: Joined) -> Comparison | None:
    """Retrain the best split over fresh seeds against all controls, and test it once.

    The seeds are those after the search's, on whose luck the choice has been made.

    Returns:
        The comparison (see `compare`), whose split the run folder then holds as `split.json`; None
        if the unsplit network was best.
    """
    out, best = job.run.out, choose_best(joined.study)
    objective = objective_of(job, joined)
    run, training = objective.plan(draw(FixedTrial(best.params), objective.space))
    recipe, split = run.recipe, training.split
    methods = list(dict.fromkeys([recipe.train.method, *recipe.compare.methods]))
    recipe = recipe.model_copy(
        update={
            "seed": recipe.seed + recipe.search.seeds,
            "compare": recipe.compare.model_copy(update={"methods": methods}),
        }
    )
    if split is None:
        run.listener.say("No split did better than the network without one: nothing to judge.")
        _forget_earlier(out)
        return None
    split.save(out / "split.json")
    artefact.write_json(out / "best.json", recipe.model_dump(mode="json"))
    return compare(run.with_recipe(recipe), split, job.scores)


def _forget_earlier(out: Path) -> None:
    """Delete what an earlier study in the same folder has judged."""
    for name in ("split.json", "best.json", "comparison.json", EXAMPLES):
        (out / name).unlink(missing_ok=True)
    for name in ("model", "export"):
        shutil.rmtree(out / name, ignore_errors=True)


def _is_first_to_judge(run: Run, joined: Joined) -> bool:
    """Whether the best split is judged here: in the folder and on the host that ask first.

    A host that was started anew is the same.
    """
    here = {"host": socket.gethostname(), "out": str(run.out.resolve())}
    first = joined.ledger.settle("judge", here)
    if first != here:
        run.listener.say(
            f"The best split is judged on {first['host']}, in {first['out']}. If that machine is "
            "gone, add --judge to do it here."
        )
    return first == here
