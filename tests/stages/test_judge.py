"""Which trial of a study is judged."""

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from recon_search.errors import TrainingError
from recon_search.stages.judge import choose_best


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ([], "None failed"),
        ([{}, {}], "Workers died in 2 of them, more often than search.retries allows"),
        ([{}, {"error": "loss nan"}], "The last trial that failed says: loss nan"),
        ([{"same_as": 0}], "None failed"),
    ],
)
def test_without_a_completed_trial_it_is_said_why(attributes, reason):
    study = optuna.create_study()
    for own in attributes:
        study.add_trial(create_trial(state=TrialState.FAIL, user_attrs=own))
    with pytest.raises(TrainingError, match=reason):
        choose_best(study)
