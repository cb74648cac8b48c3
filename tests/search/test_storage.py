"""Workers of one study do not get into each other's way, and none is lost."""

import threading
import time
import warnings

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.study import StudyDirection
from optuna.trial import TrialState

from recon_search.errors import RecipeError
from recon_search.owners import owner
from recon_search.search.storage import (
    PatientStorage,
    fail,
    open_storage,
    open_study,
    plain_errors,
    recover,
)
from recon_search.search.tally import tally

GONE = owner().rpartition(":")[0] + ":999999999"


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'search.db'}"


def open_all(url, n):
    storages = [open_storage(url, heartbeat=30, retries=3) for _ in range(n)]
    return [open_study(storage, "study", [StudyDirection.MAXIMIZE]) for storage in storages]


def test_of_many_that_begin_a_waiting_trial_at_once_one_gets_it(url):
    studies = open_all(url, 4)
    n_trials = 8
    for k in range(n_trials):
        studies[0].enqueue_trial({"k": k})
    ids = [trial._trial_id for trial in studies[0].get_trials()]
    barrier = threading.Barrier(len(studies))
    begun = []

    def begin(study):
        storage = study._storage
        for trial_id in ids:
            barrier.wait()
            if storage.set_trial_state_values(trial_id, state=TrialState.RUNNING):
                begun.append(trial_id)

    threads = [threading.Thread(target=begin, args=(study,)) for study in studies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(begun) == ids


def ask(study):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Optuna's optimize is the one to send heartbeats
        return study.ask()


def test_a_retry_has_the_values_that_the_dead_trial_had_drawn_or_was_to_draw(url):
    (study,) = open_all(url, 1)
    study.enqueue_trial({"k": 7, "rule": "count"})
    dead = ask(study)
    dead.suggest_int("k", 0, 10)
    dead.suggest_int("other", 5, 5)
    dead.set_user_attr("owner", GONE)
    recover(study, open_storage(url, heartbeat=30, retries=3))
    again = ask(study)
    assert again.user_attrs["retry_of"] == dead.number
    assert again.suggest_int("k", 0, 10) == 7
    assert again.suggest_categorical("rule", ["norm-only", "count"]) == "count"
    assert study.trials[again.number].system_attrs["fixed_params"]["other"] == 5


@pytest.mark.parametrize("reason", [None, "same_as", "surplus", "error"])
def test_a_trial_given_up_by_one_who_died_before_queueing_it_anew_is_not_lost(url, reason):
    (study,) = open_all(url, 1)
    dead = ask(study)
    if reason is not None:
        dead.set_user_attr(reason, 0)
    assert fail(study, study.trials[dead.number])
    storage = open_storage(url, heartbeat=30, retries=3)
    recover(study, storage)
    recover(study, storage)
    assert tally(study.trials).waiting == (1 if reason is None else 0)


@pytest.mark.parametrize("has_heartbeat", [True, False])
def test_a_trial_of_another_machine_that_died_before_its_first_heartbeat_is_found(
    url, has_heartbeat, monkeypatch
):
    (study,) = open_all(url, 1)
    dead = ask(study)
    dead.set_user_attr("owner", "elsewhere:1")
    if has_heartbeat:
        study._storage.record_heartbeat(dead._trial_id)
    storage = open_storage(url, heartbeat=30, retries=3)
    recover(study, storage)
    assert tally(study.trials).running == 1
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 1000)
    recover(study, storage)
    assert tally(study.trials).running == (1 if has_heartbeat else 0)


@pytest.mark.parametrize("hides", [True, False])
def test_what_a_database_says_at_a_trials_end_is_heard_through_optunas_assertion(url, hides):
    study = optuna.create_study(storage=open_storage(url, 60, 0))

    def refuse(*_, **__):
        raise StorageInternalError("database or disk is full") if hides else AssertionError("ours")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PatientStorage, "set_trial_state_values", refuse)
        error, words = (RecipeError, "disk is full") if hides else (AssertionError, "ours|reach")
        with pytest.raises(error, match=words), plain_errors(url):
            study.optimize(lambda trial: 1.0, n_trials=1)
