"""What a trial is worth: the epoch that its training keeps, not the last one reported."""

from types import SimpleNamespace

import optuna
import pytest

from recon_search.stages.trial import Objective

COMPLETE = {"state": "complete", "n_parameters": 7, "flops": 9}


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"values": [1.0, 5.0, 2.0], "value": 5.0}, 5.0),
        ({"values": [1.0, 5.0, 2.0]}, 2.0),  # of a study that an earlier version began
    ],
    ids=["best kept", "earlier"],
)
@pytest.mark.parametrize("has_front", [False, True])
def test_a_trial_is_worth_the_epoch_that_is_kept(result, expected, has_front):
    recipe = SimpleNamespace(search=SimpleNamespace(objective="delta_m-parameters"))
    objective = SimpleNamespace(_has_front=has_front, recipe=recipe)
    trial = optuna.create_study().ask()
    found = Objective._judge(objective, trial, {**COMPLETE, **result})
    assert found == ((expected, 7.0) if has_front else expected)
