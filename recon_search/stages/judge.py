"""From a search to what it is for: its best split, retrained and judged against the controls."""

from __future__ import annotations

from typing import Any

from optuna.study import Study
from optuna.trial import FixedTrial, FrozenTrial, TrialState
from rich.console import Console

from recon_search import artefact
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import RecipeError, TrainingError
from recon_search.graph.layers import layers
from recon_search.search.space import draw, make_space
from recon_search.search.storage import is_local, machine, open_storage
from recon_search.stages.compare import compare
from recon_search.stages.export import export
from recon_search.stages.probe import probe
from recon_search.stages.report import write_report
from recon_search.stages.search import Job, join, search
from recon_search.stages.train import copy_model, data_on
from recon_search.stages.trial import Objective
from recon_search.training.model import create_backbone
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
        return None
    split.save(job.out / "split.json")
    artefact.write_json(job.out / "best.json", recipe.model_dump(mode="json"))
    return compare(recipe, split, objective.scores, job.out, job.device, console, workers)


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
    ledger = join(job)[2]
    limit = job.recipe.search.trials
    return Objective(job.recipe, scores, space, job.out, job.device, study, ledger, limit)


def _is_first_to_judge(job: Job, console: Console) -> bool:
    """Whether this machine judges the best split; the first that asks does."""
    first = join(job)[2].settle("judge", {"machine": machine()})["machine"]
    if first != machine():
        console.print(f"{first} judges the best split; --judge does it here too.", highlight=False)
    return bool(first == machine())
