"""Workers of one study do not get into each other's way, and none is lost."""

import threading

import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState

from recon_search.search.storage import open_storage, open_study


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
