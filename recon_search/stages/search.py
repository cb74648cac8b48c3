"""Search over splits: workers that share a study, what watches them, and the final judgement."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FixedTrial, FrozenTrial, TrialState
from rich.console import Console

from recon_search import artefact
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import RecipeError, ReconSearchError, TrainingError, in_one_line
from recon_search.graph.layers import layers
from recon_search.recipe import Recipe
from recon_search.search.ledger import Ledger
from recon_search.search.space import draw, first_trials, make_space
from recon_search.search.storage import (
    PatientStorage,
    is_gone,
    machine,
    open_storage,
    open_study,
    owner,
    plain_errors,
    recover,
)
from recon_search.search.tally import has_waiting_retry, tally
from recon_search.stages.compare import compare
from recon_search.stages.export import export
from recon_search.stages.pool import n_workers, prepare_worker
from recon_search.stages.probe import probe
from recon_search.stages.report import write_report
from recon_search.stages.train import copy_model, data_on
from recon_search.stages.trial import POLL, Failed, NotNeeded, Objective, directions
from recon_search.training import parallel
from recon_search.training.loop import Report
from recon_search.training.model import create_backbone
from recon_search.views.plots import save_figure
from recon_search.views.tables import comparison_table
from recon_search.views.trial_plots import search_plot
from recon_search.views.trials import SearchDisplay, summarise, trial_table


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
        The comparison, if the split was judged here.
    """
    settings = job.recipe.search  # a database that does not answer is no surprise after the probe
    open_storage(job.url, settings.heartbeat, settings.retries).engine.dispose()
    if has_scores:
        scores = ConflictScores.load(job.scores)
        _check_scores(scores, job)
        scores.save(job.out / "scores.safetensors")
    else:
        probe(job.recipe, job.out, job.device, console, workers)
    study = search(job, console, workers)
    summary = summarise(study)
    artefact.write_json(job.out / "search.json", summary)
    save_figure(search_plot(study), job.out / "search.png")
    console.print(trial_table(summary))
    if judged is None:
        judged = _is_first_to_judge(job, console)
    comparison = judge(job, study, console, workers) if judged else None
    if comparison is None:
        return None
    copy_model(comparison["best"], job.out / "model")
    for task in comparison["single"]:
        export(job.out / "model", "timm", task, job.out / "export" / f"{task}.safetensors")
    write_report(job.out)
    console.print(comparison_table(comparison))
    console.print(comparison["verdict"], highlight=False)
    console.print(f"Open {job.out / 'report.html'} first.", highlight=False, soft_wrap=True)
    return comparison


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
    study, _, _ = _join(job)
    if parallel.size() > 1:
        work(job)
        return study
    workers = n_workers(workers, job.device)
    context = multiprocessing.get_context("spawn")
    errors: multiprocessing.Queue[str] = context.Queue()
    threads = max(1, (os.cpu_count() or 1) // workers)
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


def work(job: Job, index: int = 0, report: Report | None = None) -> None:
    """Run trials in this process until the study has enough of them, dead workers' included."""
    study, storage, ledger = _join(job)
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
        now = tally(trials)
        if not has_waiting_retry(trials):
            if now.spent >= limit or (now.is_exhausted and not now.running):
                return
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
    storage = open_storage(url, heartbeat=60, retries=0)
    names = [study.study_name for study in storage.get_all_studies()]
    if name not in names and len(names) == 1 and Path(name).is_dir():
        name = names[0]
    if name not in names:
        raise RecipeError(
            f"Study '{name}' is needed, the database holds {', '.join(names) or 'none'}."
        )
    return optuna.load_study(study_name=name, storage=storage)


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
        return None
    split.save(job.out / "split.json")
    artefact.write_json(job.out / "best.json", recipe.model_dump(mode="json"))
    return compare(recipe, split, objective.scores, job.out, job.device, console, workers)


def _join(job: Job) -> tuple[Study, PatientStorage, Ledger]:
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
    counts = {name: tensor.tolist() for name, tensor in scores.tensors.items()}
    identity = {"recipe": artefact.digest(recipe), "scores": artefact.digest(counts)}
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


def make_sampler(recipe: Recipe, n_begun: int, worker: int = 0) -> optuna.samplers.BaseSampler:
    """A sampler for the next trial alone: a search that is resumed goes on as it would have.

    Args:
        recipe: the recipe.
        n_begun: trials that were begun before; those that wait would leave the seed as it was.
        worker: tells the workers of a machine apart.
    """
    seed = recipe.search.seed + 1000 * n_begun + worker
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # `constant_liar`, before Optuna 5
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def make_pruner(recipe: Recipe) -> optuna.pruners.BasePruner:
    """The pruner that the recipe's `[search]` names; with a patience, it waits that long.

    Without a pruner, the patience alone ends a trial.
    """
    pruner: optuna.pruners.BasePruner | None = None
    if recipe.search.pruner == "halving":
        pruner = optuna.pruners.SuccessiveHalvingPruner(1, reduction_factor=3)
    elif recipe.search.pruner == "hyperband":
        pruner = optuna.pruners.HyperbandPruner(1, recipe.train.epochs, reduction_factor=3)
    if recipe.search.patience:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return optuna.pruners.PatientPruner(pruner, recipe.search.patience)
    return pruner or optuna.pruners.NopPruner()


def _check_scores(scores: ConflictScores, job: Job) -> None:
    """Refuse scores of other tasks or of another backbone than the recipe's."""
    data = data_on(job.recipe.data, job.device)
    backbone = create_backbone(job.recipe.backbone, in_chans=data.shape[0])
    if scores.tasks != data.tasks or scores.layers != tuple(layers(backbone)):
        raise RecipeError(
            f"--scores must be of the recipe's tasks ({', '.join(data.tasks)}) and of the layers "
            f"of its {job.recipe.backbone.name}, {job.scores} is of {', '.join(scores.tasks)} and "
            f"{len(scores.layers)} layers from {scores.layers[0]} on. Leave it out to probe anew."
        )


def _objective_of(job: Job, study: Study) -> Objective:
    scores = ConflictScores.load(job.scores)
    space = make_space(job.recipe, scores)
    ledger = _join(job)[2]
    limit = job.recipe.search.trials
    return Objective(job.recipe, scores, space, job.out, job.device, study, ledger, limit)


def _is_first_to_judge(job: Job, console: Console) -> bool:
    """Whether this machine judges the best split; the first that asks does."""
    first = _join(job)[2].settle("judge", {"machine": machine()})["machine"]
    if first != machine():
        console.print(f"{first} judges the best split; --judge does it here too.", highlight=False)
    return bool(first == machine())


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
