"""The study that the workers of a search share: found, joined, or refused."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
from optuna.study import Study

from recon_search import identity
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import RecipeError
from recon_search.runs.run import Run
from recon_search.runs.training import Training
from recon_search.search.ledger import Ledger
from recon_search.search.measure import measure_name, note_measure
from recon_search.search.sampling import make_pruner
from recon_search.search.storage import (
    PatientStorage,
    open_storage,
    open_study,
    plain_errors,
)
from recon_search.search.urls import file_url, hide_password, is_missing
from recon_search.stages.trial import objectives


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

    def is_over(self) -> bool:
        """Whether no trial may begin any more."""
        if self.run.deadline is not None and self.run.deadline.refuses():
            return True
        return self.deadline is not None and time.time() >= self.deadline

    def apart(self) -> Job:
        """Return the same job for another process, which tells what it can by itself."""
        return replace(self, run=replace(self.run, listener=self.run.listener.apart("search")))


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
    ours = _identity(run, job.scores)
    _check_begun(study, ledger, ours)
    ledger.settle("study", ours)
    _check_begun(study, ledger, ours)  # another worker's may have been settled first
    note_measure(study, measure_name(recipe))
    return Joined(study, storage, ledger)


def check_study(
    run: Run, url: str | None, study: str, scores: ConflictScores | None = None
) -> None:
    """Refuse a database that does not answer, and a study that `join` would, before all else.

    Args:
        run: whose recipe is to be searched.
        url: of the database; None for the run folder's own, if it has one yet.
        study: its name; one that is not there will be made.
        scores: if they are known already.

    Raises:
        RecipeError: what is wrong.
    """
    recipe = run.recipe
    if recipe.split.when == "during":
        raise RecipeError(
            'A search chooses splits by one probe, `split.when` "during" has every training choose '
            "its own. Pass --set split.when=before."
        )
    if url is None:
        url = _own_url(run.out)
        if is_missing(url):
            return
    storage = open_storage(url, recipe.search.heartbeat, recipe.search.retries)
    with plain_errors(url):
        if study in {each.study_name for each in storage.get_all_studies()}:
            begun = open_study(storage, study, objectives(recipe))
            _check_begun(begun, Ledger(storage.engine, study), _identity(run, scores))
    storage.engine.dispose()


def _identity(run: Run, scores: ConflictScores | None) -> dict[str, str]:
    recipe = run.recipe
    base = Training(run.schema.names, None, recipe.train, recipe.backbone, recipe.seed)
    found = identity.of_study(recipe, base.identity(run), "" if scores is None else scores.digest)
    return found if scores is not None else {"recipe": found["recipe"]}


def _check_begun(study: Study, ledger: Ledger, ours: Mapping[str, str]) -> None:
    """Refuse to go on with a study that was begun with something else.

    Raises:
        RecipeError: says with what.
    """
    name, entry = study.study_name, ledger.get("study")
    if entry is None:
        if study.get_trials(deepcopy=False):
            raise RecipeError(
                f"Study '{name}' must be one of recon-search, found trials of something else in "
                "it. Choose another --study."
            )
        return
    known = entry.result or {}
    for what, value in ours.items():
        if known.get(what) != value:
            parts = " (its search.space is a part of it)" if what == "recipe" else ""
            raise RecipeError(
                f"Study '{name}' was begun with another {what}{parts}, of digest "
                f"{known.get(what)}, this is {value}. Choose another --study, or give it the same "
                f"{what}."
            )


def default_url(out: Path) -> str:
    """The database of a search on one machine."""
    out.mkdir(parents=True, exist_ok=True)
    return _own_url(out)


def _own_url(out: Path) -> str:
    return file_url(out / "search.db")


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
        url = file_url(file)
    elif is_missing(url):
        raise RecipeError(
            f"--storage must be a database to show, found no file of "
            f"{hide_password(url)}. Check the path."
        )
    storage = open_storage(url, heartbeat=60, retries=0, is_new=False)
    names = [study.study_name for study in storage.get_all_studies()]
    if name not in names and len(names) == 1 and Path(name).is_dir():
        name = names[0]
    if name not in names:
        raise RecipeError(
            f"Study '{name}' is needed, the database holds {', '.join(names) or 'none'}. Pass one "
            f"of them to --show, with --storage {hide_password(url)}"
        )
    return optuna.load_study(study_name=name, storage=storage)
