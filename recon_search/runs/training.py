"""One way of training a network: what its result depends on, and where that is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recon_search import identity
from recon_search.conflict.kept import MEASURED
from recon_search.conflict.scores import ConflictScores
from recon_search.graph.split import Split
from recon_search.model.facts import Facts, facts_of
from recon_search.recipe import WHOLE, BackboneConfig, CopyConfig, Recipe, TrainConfig
from recon_search.runs.run import Run
from recon_search.tasks.task import Task


@dataclass(frozen=True)
class Training:
    """What is trained: everything its result depends on, and a label to show.

    Attributes:
        tasks: names of those learned together; one for a single-task baseline.
        split: which layers are branched; None for none.
        train: how it is trained.
        backbone: the backbone, which a control may have widened.
        seed: of initialisation and batches.
        label: for progress bars; not part of the identity.
        test: look at the test data at the end; not part of the identity.
        start: the training whose weights this one starts from; None starts from scratch. With one
            that stops early (`until`) this one goes on, in a network that may be split further:
            optimiser, schedule and all (see `training.branching`).
        copies: what the copies of split layers are.
        until: the epoch after which it stops, for others to go on; None for the last.
    """

    tasks: tuple[str, ...]
    split: Split | None
    train: TrainConfig
    backbone: BackboneConfig
    seed: int
    label: str = field(default="", compare=False)
    test: bool = field(default=True, compare=False)
    start: Training | None = None
    copies: CopyConfig = WHOLE
    until: int | None = None

    @property
    def goes_on(self) -> bool:
        """Whether it goes on with a training that stopped early."""
        return self.start is not None and self.start.until is not None

    @property
    def name(self) -> str:
        """What to call it."""
        return f"{self.label}, seed {self.seed}"

    def identity(self, run: Run, *, with_seed: bool = True) -> str:
        """Return the digest of what determines its result."""
        return identity.of_training(
            run.recipe,
            fingerprint=run.schema.fingerprint,
            tasks=tuple(_name(task, run.recipe) for task in run.schema.select(self.tasks)),
            train=settle(self.train, run),
            backbone=self.backbone,
            split=None if self.split is None else self.split.digest,
            seed=self.seed if with_seed else None,
            measured=MEASURED if self.train.measure_every else None,
            start=None if self.start is None else self.start.identity(run),
            copies=self.copies if self.split is not None and self.copies.kind != "full" else None,
            until=self.until,
        )

    def facts(self, run: Run) -> Facts:
        """What is known of its backbone, for what its tasks read."""
        tasks = run.schema.select(self.tasks)
        return facts_of(self.backbone, run.schema.shape, self.train.freeze, tasks=tasks)

    def directory(self, run: Run) -> Path:
        """The folder of this training, named by its identity."""
        return run.out / "trainings" / self.identity(run)


def empty_scores(training: Training, run: Run) -> ConflictScores:
    """Return scores of a training's layers and tasks in which nothing was counted yet."""
    facts = training.facts(run)
    infos = facts.analysis.infos
    metadata: dict[str, Any] = {
        "backbone": facts.identity,
        "layer_infos": [
            {
                "name": info.name,
                "type": info.type,
                "n_parameters": info.n_parameters,
                "is_norm": info.is_norm,
            }
            for info in infos
        ],
        "recipe": training.identity(run, with_seed=False),
        "seeds": [training.seed],
    }
    if training.train.freeze:  # a budget is of the whole backbone
        metadata["n_frozen"] = facts.n_frozen
    names = [info.name for info in infos]
    return ConflictScores(names, training.tasks, metadata, replicated=True)


def _name(task: Task, recipe: Recipe) -> dict[str, Any]:
    """What a task is, and where its labels are if the recipe says so."""
    own = recipe.tasks.get(task.name)
    return (
        task.spec() if own is None or own.target is None else {**task.spec(), "target": own.target}
    )


def settle(config: TrainConfig, run: Run) -> TrainConfig:
    """Drop `train.options` where another method than `train.method` trains: it has its defaults."""
    if config.method == run.recipe.train.method:
        return config
    return config.model_copy(update={"options": {}})
