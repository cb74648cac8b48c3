"""Which trials count."""

from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial

from recon_search.search.tally import STREAK, is_surplus, tally


def trials(*specifications):
    found = []
    for number, (state, attributes) in enumerate(specifications):
        value = 1.0 if state == TrialState.COMPLETE else None
        made = state != TrialState.WAITING
        trial = create_trial(
            state=state,
            value=value,
            params={"k": 1} if made else {},
            distributions={"k": IntDistribution(0, 2)} if made else {},
            user_attrs=attributes,
        )
        trial.number = number
        found.append(trial)
    return found


COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL


def test_what_counts_towards_the_number_of_trials():
    found = trials(
        (COMPLETE, {}),
        (COMPLETE, {"same_as": 0}),
        (FAIL, {"same_as": 0}),
        (PRUNED, {}),
        (FAIL, {"error": "nan"}),
        (FAIL, {}),
        (COMPLETE, {"retry_of": 5}),
        (FAIL, {"surplus": True}),
        (TrialState.RUNNING, {}),
        (TrialState.WAITING, {}),
    )
    now = tally(found)
    assert (now.complete, now.pruned, now.failed) == (2, 1, 1)
    assert (now.deduplicated, now.retried, now.running, now.waiting) == (2, 1, 1, 1)
    assert now.spent == 4
    assert not now.is_exhausted
    assert is_surplus(8, found, limit=4), "before trial 8 four have ended that count"
    assert not is_surplus(8, found, limit=5)


def test_a_retry_takes_the_place_of_the_dead_trial():
    found = trials(
        (COMPLETE, {}), (FAIL, {}), (COMPLETE, {}), (TrialState.RUNNING, {"retry_of": 1})
    )
    assert not is_surplus(3, found, limit=2)
    assert is_surplus(3, found, limit=1), "as the dead trial was"
    assert is_surplus(2, found, limit=2), "and counts before it is begun"
    assert not is_surplus(2, found, limit=3)


def test_a_long_streak_of_known_splits_exhausts_the_space():
    known = [(COMPLETE, {"same_as": 0})]
    assert not tally(trials((COMPLETE, {}), *known * (STREAK - 1))).is_exhausted
    assert tally(trials((COMPLETE, {}), *known * STREAK)).is_exhausted
    assert not tally(trials(*known * STREAK, (COMPLETE, {}))).is_exhausted
