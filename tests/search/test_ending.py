"""A search may end where nothing better is likely."""

import optuna
import pytest

from recon_search.search.ending import LEAST, Ending, end, ending_of, likely_gain

K = {"split.k": optuna.distributions.IntDistribution(0, 40)}


def trials(n, noise=0.0, scale=1.0, **attributes):
    """Trials of a smooth hill over k, in which the best k was tried."""
    study = optuna.create_study(direction="maximize")
    for number in range(n):
        k = (number * 7 + 12) % 41
        wobble = noise * ((number * 37 % 11) / 5 - 1)
        value = scale * (3 - ((k - 12) / 12) ** 2) + wobble
        study.add_trial(
            optuna.trial.create_trial(
                value=value, params={"split.k": k}, distributions=K, user_attrs=attributes
            )
        )
    return study.trials


def test_few_trials_say_nothing_and_repeated_ones_do_not_count():
    assert likely_gain(trials(LEAST - 1)) is None
    assert likely_gain([]) is None
    assert likely_gain([*trials(LEAST - 1), *trials(9, same_as=0)]) is None
    assert likely_gain(trials(LEAST)) is not None


def test_a_hill_that_is_known_leaves_little_to_gain_and_noise_leaves_more():
    known, noisy = likely_gain(trials(24)), likely_gain(trials(24, noise=3.0))
    assert 0 <= known < 0.5 < noisy


def test_the_gain_is_in_points_of_what_is_sought():
    one, ten = likely_gain(trials(24, noise=1.0)), likely_gain(trials(24, noise=10.0, scale=10.0))
    assert ten == pytest.approx(10 * one, rel=0.05)


def test_trials_that_drew_nothing_in_common_say_nothing():
    study = optuna.create_study(direction="maximize")
    for number in range(2 * LEAST):
        name = "a" if number % 2 else "b"
        study.add_trial(
            optuna.trial.create_trial(
                value=1.0, params={name: number}, distributions={name: K["split.k"]}
            )
        )
    assert likely_gain(study.trials) is None


@pytest.mark.parametrize("value", [None, 3, {}, {"trials": "x", "gain": 1}])
def test_what_somebody_else_wrote_is_no_ending(value):
    study = optuna.create_study()
    if value is not None:
        study.set_user_attr("ended", value)
    assert ending_of(study) is None


def test_an_ending_is_kept_by_the_study():
    study, ending = optuna.create_study(), Ending(24, 0.25)
    end(study, ending)
    assert ending_of(study) == ending
    assert str(ending) == (
        "after 24 complete trials no split is likely to be better than the best by more than "
        "0.25 points"
    )
