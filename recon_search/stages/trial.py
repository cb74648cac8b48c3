"""One trial of a search: values drawn, a split chosen, trained unless known, judged."""

from __future__ import annotations

import functools
import math
import statistics
import time
from dataclasses import dataclass, replace
from typing import Any

import optuna
from optuna.exceptions import OptunaError
from optuna.study import Study, StudyDirection
from optuna.trial import Trial, TrialState

from recon_search import interruption
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import ReconSearchError, TrainingError, in_one_line
from recon_search.owners import owner
from recon_search.recipe import Recipe
from recon_search.runs.result import Result
from recon_search.runs.run import Run
from recon_search.runs.trainer import train_told
from recon_search.runs.training import Training
from recon_search.search.ledger import Entry, Ledger
from recon_search.search.measure import Measure, measure_name
from recon_search.search.rungs import BY_SEED, climb, seeds_of, tell
from recon_search.search.sampling import is_paired
from recon_search.search.space import Space, draw, with_values
from recon_search.search.storage import PatientStorage, recover
from recon_search.search.tally import is_surplus
from recon_search.stages.baselines import judged_tasks
from recon_search.stages.split import choose_split
from recon_search.tasks.task import Metrics, directions
from recon_search.training.loop import AfterEpoch

POLL = 0.5
"""Seconds between two looks at what another worker computes."""


class NotNeeded(Exception):  # noqa: N818 - no error: the trial has nothing to do
    """Another trial trains the same split now, or the study has its trials already."""


class Failed(Exception):  # noqa: N818 - no error: the trial's `error` says it
    """The trial's training could not go on."""


EXPECTED = (OptunaError, ReconSearchError, NotNeeded, Failed)
"""What ends a trial by design; anything else is an accident of its worker's."""


@dataclass(frozen=True)
class Objective:
    """What a search maximises: validation delta_m of the trained split, or its gain in loss.

    Beside it, fronts minimise parameters or FLOPs relative to the unsplit network. Of several seeds
    it is the mean over those that were trained. A split that another trial has trained is not
    trained again, on whatever machine that was.

    Attributes:
        run: the search's.
        scores: of the probe.
        space: what is drawn.
        study: that the trials belong to.
        ledger: of that study.
        limit: number of trials that the study is to have.
        storage: that holds the study; None if nobody else works on it.
    """

    run: Run
    scores: ConflictScores
    space: Space
    study: Study
    ledger: Ledger
    limit: int
    storage: PatientStorage | None = None

    def __call__(self, trial: Trial) -> float | tuple[float, float]:
        """Run one trial.

        Raises:
            TrialPruned: the trial was stopped early.
            NotNeeded: see there.
            Failed: see there.
            TrainingError: a baseline's training could not go on, or something unforeseen happened.
        """
        try:
            return self._run(trial)
        except EXPECTED:
            raise
        except Exception as error:
            raise TrainingError(
                f"A trial must meet nothing unforeseen, trial {trial.number} met "
                f"{in_one_line(error)}. Mend that and run the same command again to go on."
            ) from error

    def _run(self, trial: Trial) -> float | tuple[float, float]:
        trial.set_user_attr("owner", owner())
        if is_surplus(trial.number, self.study.get_trials(deepcopy=False), self.limit):
            trial.set_user_attr("surplus", True)
            raise NotNeeded
        run, training = self.plan(draw(trial, self.space))
        layers = [] if training.split is None else list(training.split.layers)
        key = training.identity(run)
        for name, value in (("layers", layers), ("training", key)):
            trial.set_user_attr(name, value)
        entry = self.ledger.claim(key, trial.number, self._holds)
        if entry.result is not None:
            return self._repeat(trial, entry)
        if entry.owner != trial.number:
            trial.set_user_attr("same_as", entry.owner)
            raise NotNeeded
        several = self.recipe.search.seeds > 1
        result = (self._train_seeds if several else self._train)(trial, run, training)
        self.ledger.finish(key, trial.number, result)
        return self._judge(trial, result)

    @property
    def recipe(self) -> Recipe:
        """The search's recipe."""
        return self.run.recipe

    def plan(self, values: dict[str, Any]) -> tuple[Run, Training]:
        """The run and the training that drawn values ask for."""
        recipe = with_values(self.recipe, values)
        limit = self.recipe.search.max_params or self.recipe.split.max_params
        split = choose_split(recipe, self.scores, limit, schema=self.run.schema)
        training = Training(
            self.scores.tasks,
            split if split.layers else None,
            recipe.train,
            recipe.backbone,
            recipe.seed,
            "trial",
            test=False,
            start=self._joint() if recipe.search.start == "shared" else None,
            copies=recipe.split.copies,
        )
        return self.run.with_recipe(recipe), training

    def _train(self, trial: Trial, run: Run, training: Training) -> dict[str, Any]:
        """Train, report every epoch; what the ledger keeps of it."""
        values: list[float] = []
        reported = self._reported(trial)
        single, measure = self._baselines(trial.number), self._measure(run)
        n_epochs = run.recipe.train.epochs

        def after_epoch(record: dict[str, Any]) -> None:
            values.append(measure(record["validation"], single))
            trial.set_user_attr("epochs", record["epoch"])  # raises if the trial was given up
            if self._has_front:
                return
            if record["epoch"] not in reported:  # before the trial was paused
                trial.report(values[-1], record["epoch"])
            if record["epoch"] < n_epochs and trial.should_prune():
                raise optuna.TrialPruned

        try:
            result = self._told(training, run, f"trial {trial.number}", after_epoch)
            value = self._value(measure, result, single)  # of the epoch that is kept
        except optuna.TrialPruned:
            return {"state": "pruned", "values": values}
        except TrainingError as error:
            return {"state": "failed", "error": str(error), "values": values}
        return _complete(values, value, result)

    def _train_seeds(self, trial: Trial, run: Run, training: Training) -> dict[str, Any]:
        """Train seed after seed until the pruner ends it (see `climb`); what the ledger keeps."""
        results: list[Result] = []
        single, measure = self._baselines(trial.number), self._measure(run)

        def value_of(place: int) -> float:
            start = None if training.start is None else self._joint(place)
            own = replace(training, seed=training.seed + place, start=start)
            before = sum(each.epochs or run.recipe.train.epochs for each in results)

            def after_epoch(record: dict[str, Any]) -> None:
                trial.set_user_attr("epochs", before + record["epoch"])  # raises if it was given up

            try:
                name = f"trial {trial.number}, seed {own.seed}"
                results.append(self._told(own, run, name, after_epoch))
                return self._value(measure, results[-1], single)
            except TrainingError as error:
                raise Failed(str(error)) from None

        try:
            values, is_pruned = climb(
                trial,
                self.recipe.search.seeds,
                value_of,
                is_paired=is_paired(self.recipe),
                prunes=not self._has_front,
                known=self._reported(trial),
            )
        except Failed as error:
            known = seeds_of(trial.user_attrs)
            return {"state": "failed", "error": str(error), "values": known}
        if is_pruned:
            return {"state": "pruned", "values": values}
        return _complete(values, statistics.fmean(values), results[-1])

    def _reported(self, trial: Trial) -> dict[int, float]:
        """What the trial has told before it was paused."""
        return self.study.get_trials(deepcopy=False)[trial.number].intermediate_values

    def _measure(self, run: Run) -> Measure:
        judged_by, average = directions(judged_tasks(run)), run.recipe.compare.delta_m
        return Measure(measure_name(self.recipe), judged_by, average)

    def _value(self, measure: Measure, result: Result, single: Metrics) -> float:
        """Judge a training.

        Raises:
            TrainingError: the value is no number.
        """
        value = measure(result.validation, single)
        if not math.isfinite(value):
            raise TrainingError(
                f"Validation {measure.name} must be finite, got {value}. Look at the data."
            )
        return value

    def _told(
        self, training: Training, run: Run, name: str, after_epoch: AfterEpoch | None = None
    ) -> Result:
        """Train; the run's listener hears of it under a name."""
        listener = self.run.listener
        result = train_told(training, run, functools.partial(listener.hear, name), after_epoch)
        listener.finish(name, result.seconds)
        return result

    def _repeat(self, trial: Trial, entry: Entry) -> float | tuple[float, float]:
        """End with a known result: of an equal split, or of a worker who died before it said so."""
        assert entry.result is not None
        if entry.owner != trial.number:
            trial.set_user_attr("same_as", entry.owner)
        values = entry.result["values"]
        several = self.recipe.search.seeds > 1
        if several:
            trial.set_user_attr(BY_SEED, values)
        if not self._has_front:
            for step, value in enumerate(values, start=1):
                if several:
                    tell(trial, values[:step], is_paired=is_paired(self.recipe))
                else:
                    trial.report(value, step)
        return self._judge(trial, entry.result)

    def _judge(self, trial: Trial, result: dict[str, Any]) -> float | tuple[float, float]:
        """Turn a result into the objective's value, or into the exception that it stands for."""
        if result["state"] == "pruned":
            raise optuna.TrialPruned
        if result["state"] == "failed":
            trial.set_user_attr("error", result["error"])
            raise Failed(result["error"])
        for name in ("n_parameters", "flops"):
            trial.set_user_attr(name, result[name])
        value: float = result.get("value", result["values"][-1])
        if not self._has_front:
            return value
        name = "flops" if self.recipe.search.objective == "delta_m-flops" else "n_parameters"
        return value, float(result[name])

    def _baselines(self, number: int) -> Metrics:
        """Validation metrics of the single-task models, each trained by the first who needs it.

        They are of the recipe's seed, whatever seeds a trial has: all trials are divided by the
        same, so which is best does not hang on it. Workers begin with different tasks; whoever
        finds one under way looks for another.
        """
        tasks = [task.name for task in judged_tasks(self.run)]
        shift = number % len(tasks)
        waiting = {
            task: Training(
                (task,),
                None,
                self.recipe.train.model_copy(update={"method": "joint", "weights": {}}),
                self.recipe.backbone,
                self.recipe.seed,
                f"single {task}",
                test=False,
            )
            for task in tasks[shift:] + tasks[:shift]
        }
        if self.recipe.search.start == "shared":
            waiting["joint"] = self._joint()
        found: Metrics = {}
        while waiting:
            interruption.check()
            for name, training in list(waiting.items()):
                metrics = self._once(training, number)
                if metrics is not None:
                    found |= metrics
                    del waiting[name]
            if waiting:
                if self.storage is not None:  # whoever trains the others may have died
                    recover(self.study, self.storage)
                time.sleep(POLL)
        return {task: found[task] for task in tasks}

    def _once(self, training: Training, number: int) -> Metrics | None:
        """Train what no trial has trained; None while another trial does."""
        key = training.identity(self.run)
        entry = self.ledger.claim(key, number, self._holds)
        if entry.result is not None:
            known: Metrics = entry.result["validation"]
            return known
        if entry.owner != number:
            return None
        result = self._told(training, self.run, training.name)
        metrics: Metrics = result.validation if len(training.tasks) == 1 else {}
        self.ledger.finish(key, number, {"validation": metrics})
        return metrics

    def _joint(self, place: int = 0) -> Training:
        """The shared network that `search.start = "shared"` starts from."""
        config = with_values(self.recipe, {"train.method": "joint"}).train
        arguments = None, config, self.recipe.backbone, self.recipe.seed + place
        return Training(self.scores.tasks, *arguments, "joint", test=False)

    @property
    def _has_front(self) -> bool:
        return self.recipe.search.has_front

    def _holds(self, number: int) -> bool:
        """Whether a trial works, or has ended with a result."""
        trial = self.study.get_trials(deepcopy=False)[number]
        ended = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
        return trial.state in ended or "error" in trial.user_attrs


def objectives(recipe: Recipe) -> list[StudyDirection]:
    """Maximise delta_m or the gain in loss; a front minimises its cost."""
    front = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
    return front[: 2 if recipe.search.has_front else 1]


def _complete(values: list[float], value: float, result: Result) -> dict[str, Any]:
    """What the ledger keeps of a trial that was trained to the end."""
    sizes = {"n_parameters": result.n_parameters, "flops": result.flops}
    return {"state": "complete", "values": values, "value": value, **sizes}
