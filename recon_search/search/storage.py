"""Where a study is kept: Optuna's database storage, patient with a database that goes away."""

from __future__ import annotations

import contextlib
import functools
import logging
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import optuna
import sqlalchemy
from optuna.exceptions import (
    DuplicatedStudyError,
    ExperimentalWarning,
    StorageInternalError,
    UpdateFinishedTrialError,
)
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import (
    ArgumentError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)

from recon_search.errors import RecipeError
from recon_search.owners import is_gone, owner
from recon_search.search.urls import check_pages, has_studies, hide_password

PATIENCE = 3600.0
"""Seconds to wait for a database before giving up."""

GRACE = 4
"""Heartbeats a trial may miss before it counts as dead."""

REASONS = {"same_as", "surplus", "error"}
"""Attributes of trials that failed for a reason; the worker of any other has died."""

_LASTING = (
    *("readonly", "disk is full", "unable to open database file", "no such", "malformed"),
    *("not a database", "has no column", "syntax error", "disk I/O error"),
)
"""What a database in a file says that waiting does not mend."""

_SAID = (SQLAlchemyError, StorageInternalError, sqlite3.Error)
"""By what a database's answers are known."""

_HEARTBEAT = sqlalchemy.text("SELECT 1 FROM trial_heartbeats WHERE trial_id = :trial_id")
_FORGET = sqlalchemy.text("DELETE FROM trial_heartbeats WHERE trial_id = :trial_id")
_TOUCH = sqlalchemy.text("UPDATE trials SET state = state WHERE trial_id = :trial_id")

logger = logging.getLogger(__name__)


def is_connection_lost(error: BaseException | None) -> bool:
    """Whether an error says that the database cannot be reached, now."""
    while error is not None:
        if isinstance(error, OperationalError | InterfaceError):
            return not any(text in str(error) for text in _LASTING)
        error = error.__cause__
    return False


P = ParamSpec("P")
R = TypeVar("R")


def patiently(call: Callable[P, R]) -> Callable[P, R]:
    """Repeat a call while the database cannot be reached."""

    @functools.wraps(call)
    def repeat(*args: P.args, **kwargs: P.kwargs) -> R:
        started, pause = time.monotonic(), 0.2
        while True:
            try:
                return call(*args, **kwargs)
            except (StorageInternalError, SQLAlchemyError) as error:
                if not is_connection_lost(error) or time.monotonic() - started > PATIENCE:
                    raise
                reason = str(error.__cause__ or error).splitlines()[0]
                logger.warning("The database cannot be reached; waiting for it. (%s)", reason)
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    return repeat


class PatientStorage(RDBStorage):
    """Optuna's database storage that waits while the database is away and retries dead trials.

    Args:
        url: of the database.
        heartbeat: seconds between two signs of life of a trial.
        retries: how often a trial is begun anew after its worker died.
    """

    def __init__(self, url: str, heartbeat: int, retries: int) -> None:
        self.retries = retries
        super().__init__(
            url,
            engine_kwargs={"pool_pre_ping": True},
            heartbeat_interval=heartbeat,
            grace_period=GRACE * heartbeat,
        )

    def get_heartbeat_stale_trial_callback(self) -> Callable[[Study, FrozenTrial], None]:
        """What happens to a trial that Optuna has found dead."""
        return functools.partial(retry, retries=self.retries)

    get_failed_trial_callback = get_heartbeat_stale_trial_callback  # its name before Optuna 4.9

    def record_heartbeat(self, trial_id: int) -> None:
        """Give a sign of life; where the disk takes none, the trial itself will meet that."""
        with contextlib.suppress(StorageInternalError, SQLAlchemyError):
            patiently(super().record_heartbeat)(trial_id)

    def set_trial_state_values(self, trial_id: int, *args: Any, **kwargs: Any) -> bool:
        """Set a trial's state; a repetition after a lost answer finds it set, which is as good."""
        set_once = super().set_trial_state_values
        n_calls = 0

        def call() -> bool:
            nonlocal n_calls
            n_calls += 1
            try:
                self._lock(trial_id)
                return set_once(trial_id, *args, **kwargs)
            except UpdateFinishedTrialError:
                wanted = kwargs.get("state", args[0] if args else None)
                if n_calls > 1 and self.get_trial(trial_id).state == wanted:
                    return True
                raise

        return patiently(call)()

    @patiently
    def has_heartbeat(self, trial_id: int) -> bool:
        """Whether a trial ever gave a sign of life: Optuna watches over those alone."""
        with self.engine.connect() as connection:
            return connection.execute(_HEARTBEAT, {"trial_id": trial_id}).first() is not None

    @patiently
    def forget_heartbeat(self, trial_id: int) -> None:
        """Forget that a trial ever gave a sign of life."""
        with self.engine.begin() as connection:
            connection.execute(_FORGET, {"trial_id": trial_id})

    def _lock(self, trial_id: int) -> None:
        """Let nobody else set a trial's state before this thread's transaction ends.

        SQLite has no row locks: without a write first, two workers find the same trial waiting and
        both begin it.
        """
        if self.engine.dialect.name != "sqlite":
            return
        try:
            self.scoped_session().execute(_TOUCH, {"trial_id": trial_id})
        except SQLAlchemyError:
            self.scoped_session.remove()
            raise


for _name in {
    *BaseStorage.__abstractmethods__,
    "_get_stale_trial_ids",
} - {"set_trial_state_values"}:
    setattr(PatientStorage, _name, patiently(getattr(RDBStorage, _name)))


def open_storage(url: str, heartbeat: int, retries: int, *, is_new: bool = True) -> PatientStorage:
    """Open or create a study database.

    Args:
        url: of the database.
        heartbeat: see `PatientStorage`.
        retries: see `PatientStorage`.
        is_new: whether tables are made in a database that has none; otherwise nothing is written.

    Raises:
        RecipeError: the URL is malformed, its driver is missing, nobody answers, or there is none.
    """
    try:
        with plain_errors(url):
            check_pages(url)
            if not is_new and not has_studies(url):
                raise RecipeError(
                    f"--storage must be a database with studies, {hide_password(url)} holds none. "
                    "Check the URL."
                )
            return _create_storage(url, heartbeat, retries)
    except ImportError:
        raise RecipeError(
            f"--storage needs the database's driver, found none for {hide_password(url)}. For "
            "PostgreSQL: pip install 'recon-search[postgres]', and postgresql+psycopg://..."
        ) from None
    except (ArgumentError, ValueError):  # ValueError: the port is no number
        raise RecipeError(
            f"--storage must be a database URL, got '{hide_password(url)}'. Examples: "
            "sqlite:///search.db, postgresql+psycopg://user@host/database"
        ) from None


@contextlib.contextmanager
def plain_errors(url: str) -> Iterator[None]:
    """Turn what a database says into one line.

    Raises:
        RecipeError: the database does not answer, or refuses.
    """
    try:
        yield
    except ArgumentError:
        raise
    except (*_SAID, AssertionError) as met:
        # Optuna, ending a trial whose database has just failed, asserts that it has a state.
        error = met if isinstance(met, _SAID) else met.__context__
        if not isinstance(error, _SAID):
            raise
        reason = str(error.__cause__ or error).splitlines()[0]
        advice = "Start it, or check the URL."
        if any(words in reason for words in ("malformed", "not a database")):
            advice = "Restore it from a copy, or begin another."
        if any(words in reason for words in ("disk is full", "disk I/O error")):
            advice = "Free some space on its disk, or look at limits, and run the command again."
        raise RecipeError(
            f"--storage must be a database that answers, {hide_password(url)} says: {reason}. "
            f"{advice}"
        ) from None


def _create_storage(url: str, heartbeat: int, retries: int, attempts: int = 10) -> PatientStorage:
    """Connect; where several do so first at once, their tables get into each other's way."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return PatientStorage(url, heartbeat, retries)
    except (IntegrityError, ProgrammingError, OperationalError) as error:
        exists = isinstance(error, OperationalError) and "already exists" in str(error)  # SQLite
        if attempts == 1 or (isinstance(error, OperationalError) and not exists):
            raise
    time.sleep(0.5)
    return _create_storage(url, heartbeat, retries, attempts - 1)


def open_study(storage: PatientStorage, name: str, directions: list[StudyDirection]) -> Study:
    """Create a study, or join it where it exists.

    Raises:
        RecipeError: it exists with other objectives.
    """
    try:
        study = optuna.create_study(
            study_name=name, storage=storage, directions=directions, load_if_exists=True
        )
    except DuplicatedStudyError:
        study = optuna.load_study(study_name=name, storage=storage)
    if study.directions != directions:
        found, wanted = (
            ", ".join(direction.name.lower() for direction in each)
            for each in (study.directions, directions)
        )
        raise RecipeError(
            f"Study '{name}' has the objectives {found}, the recipe asks for {wanted}. Choose "
            "another --study."
        )
    return study


def recover(study: Study, storage: PatientStorage) -> None:
    """Give up trials whose worker is dead, and queue them anew.

    Optuna finds those whose heartbeat stopped. Found beside are trials of this machine whose
    process is gone, at once; trials whose worker died before its first heartbeat; and trials that
    failed without a word, as where whoever gave one up died before queueing it anew.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    grace = GRACE * (storage.heartbeat_interval or 0)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if _is_orphan(trial, storage, grace) and fail(study, trial):
            retry(study, trial, storage.retries)
    trials = study.get_trials(deepcopy=False)
    retried = {trial.user_attrs.get("retry_of") for trial in trials}
    for trial in trials:
        if trial.state == TrialState.FAIL and trial.number not in retried:
            retry(study, trial, storage.retries)


def retry(study: Study, trial: FrozenTrial, retries: int) -> None:
    """Queue a dead trial's values anew, unless it has died too often or says why it ended.

    Values that it was queued with and had not drawn yet are kept too.
    """
    attempt = trial.user_attrs.get("attempt", 0) + 1
    if attempt <= retries and not REASONS & trial.user_attrs.keys():
        attributes = {"attempt": attempt, "retry_of": trial.number}
        values = trial.system_attrs.get("fixed_params", {}) | trial.params
        study.enqueue_trial(values, user_attrs=attributes)


def pause(study: Study, storage: PatientStorage) -> None:
    """Let this process's trial wait as if it had not begun; its number and its values stay."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.user_attrs.get("owner") == owner():
            storage.forget_heartbeat(trial._trial_id)  # an old one would mean that it is dead
            storage.set_trial_state_values(trial._trial_id, state=TrialState.WAITING)


def fail(study: Study, trial: FrozenTrial) -> bool:
    """Mark a trial as failed; whether this process was the one to do so."""
    try:
        study.tell(trial.number, state=TrialState.FAIL)
    except (ValueError, UpdateFinishedTrialError):
        return False  # somebody else did, or it has ended after all
    return True


def _is_orphan(trial: FrozenTrial, storage: PatientStorage, grace: float) -> bool:
    if is_gone(trial.user_attrs.get("owner", ":")):
        return True
    begun = trial.datetime_start
    is_old = begun is not None and time.time() - begun.timestamp() > grace
    return is_old and not storage.has_heartbeat(trial._trial_id)
