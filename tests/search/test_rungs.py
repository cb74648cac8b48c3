"""A trial climbs from seed to seed for as long as the pruner lets it."""

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon_search.search.rungs import BY_SEED, climb, last_value, seeds_of
from tests.tasks.contract import LAW


class Until(optuna.pruners.BasePruner):
    """Ends every trial once it has told so many steps."""

    def __init__(self, step):
        self.step = step
        self.asked = []

    def prune(self, study, trial):
        self.asked.append(trial.last_step)
        return trial.last_step >= self.step


def begin(until):
    study = optuna.create_study(direction="maximize", pruner=Until(until))
    return study, study.ask()


@LAW
@given(
    values=st.lists(st.floats(-100, 100), min_size=1, max_size=6),
    until=st.integers(1, 8),
    is_paired=st.booleans(),
)
def test_so_many_seeds_are_trained_as_the_pruner_allows_and_the_last_is_not_asked_about(
    values, until, is_paired
):
    study, trial = begin(until)
    trained = []

    def value_of(place):
        trained.append(place)
        return values[place]

    found, is_pruned = climb(trial, len(values), value_of, is_paired=is_paired)
    n = min(until, len(values))
    assert trained == list(range(n))
    assert found == values[:n]
    assert is_pruned == (until < len(values))
    assert study.pruner.asked == list(range(1, min(until, len(values) - 1) + 1))
    (shown,) = study.get_trials(deepcopy=False)
    assert seeds_of(shown.user_attrs) == found
    assert last_value(shown) == pytest.approx(sum(found) / n)
    own = shown.intermediate_values[n]
    assert own == pytest.approx(found[-1] if is_paired else sum(found) / n)


def test_several_objectives_cannot_be_pruned_and_are_not_told():
    study = optuna.create_study(directions=["maximize", "minimize"])
    trial = study.ask()
    assert climb(trial, 3, float, prunes=False) == ([0.0, 1.0, 2.0], False)


@pytest.mark.parametrize("n_known", [0, 1, 2])
def test_a_trial_that_was_paused_is_asked_about_where_it_stood(n_known):
    study, trial = begin(until=9)
    for step in range(1, n_known + 1):
        trial.report(float(step), step)
    known = dict(study.get_trials(deepcopy=False)[0].intermediate_values)
    climb(trial, 4, float, known=known)
    assert study.pruner.asked == list(range(max(1, n_known), 4))


@pytest.mark.parametrize("attributes", [{}, {BY_SEED: None}, {BY_SEED: "12"}, {BY_SEED: {"a": 1}}])
def test_what_somebody_else_wrote_is_no_seeds(attributes):
    assert seeds_of(attributes) == []
