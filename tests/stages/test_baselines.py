"""When the single-task models are no yardstick."""

import json

import pytest

from recon_search.runs.result import Result
from recon_search.stages.baselines import describe_doubts, doubts


@pytest.fixture
def models(tmp_path):
    """Make the models of one task, whose validation metric went so, one list a seed."""

    def make(*histories, task="a", metric="accuracy", test=1.0):
        found = []
        for seed, values in enumerate(histories):
            folder = tmp_path / f"{task}{seed}"
            folder.mkdir()
            records = [
                json.dumps({"epoch": epoch, "validation": {task: {metric: value}}})
                for epoch, value in enumerate(values, start=1)
            ]
            (folder / "metrics.jsonl").write_text("\n".join(records) + "\n")
            seen = {task: {metric: values[-1]}}
            own = {task: {metric: test * (seed + 1)}}
            found.append(Result((task,), "joint", seed, 1, 1, seen, 0.0, folder, own))
        return found

    return make


def of_accuracy(*tasks):
    return {task: {"accuracy": 1} for task in tasks}


FLAT = [50.0] * 10


def test_models_that_agree_and_have_converged_are_not_doubted(models):
    """Test data, which scatter here, are for the table alone."""
    assert doubts({"a": models(FLAT, FLAT, FLAT, test=99.0)}, of_accuracy("a")) == []
    assert describe_doubts([]) == ""


@pytest.mark.parametrize(("other", "is_doubted"), [(53.0, False), (54.0, True)])
def test_models_that_scatter_over_seeds_are_doubted(models, other, is_doubted):
    """The standard deviation of 50 and 54 is 5.4 % of their mean, that of 50 and 53 is 4.1 %."""
    found = doubts({"a": models(FLAT, [other] * 10)}, of_accuracy("a"))
    if not is_doubted:
        assert found == []
        return
    (said,) = found
    assert said == "the single-task models of 'a' scatter over seeds (accuracy 52 ± 2.8)"


@pytest.mark.parametrize(
    ("end", "direction", "is_doubted"),
    [(52.0, 1, False), (53.0, 1, True), (47.0, 1, False), (53.0, -1, False), (47.0, -1, True)],
)
def test_models_that_were_still_getting_better_are_doubted(models, end, direction, is_doubted):
    """By more than 5 % in the last fifth: from the 8th of ten epochs on."""
    history = [*[1.0] * 7, 50.0, 51.0, end]
    found = doubts({"a": models(history)}, {"a": {"accuracy": direction}})
    assert bool(found) is is_doubted
    if found:
        assert found == ["the single-task models of 'a' were still getting better in the last "
                         "fifth of training (accuracy by 6%)"]  # fmt: skip


def test_progress_is_a_mean_over_seeds(models):
    up, down = [*FLAT[:-1], 56.0], [*FLAT[:-1], 44.0]
    found = doubts({"a": models(up, down)}, of_accuracy("a"))
    assert not any("better" in said for said in found)


@pytest.mark.parametrize("history", [[50.0], [50.0, 50.0]])
def test_short_trainings_can_be_judged(models, history):
    assert doubts({"a": models(history)}, of_accuracy("a")) == []


@pytest.mark.parametrize("n", [2, 3, 4])
def test_a_short_training_that_got_much_better_in_its_last_epoch_is_doubted(models, n):
    assert doubts({"a": models([10.0] * (n - 1) + [50.0])}, of_accuracy("a"))


def test_every_task_and_every_metric_that_is_judged_is_looked_at(models):
    single = {task: models(FLAT, [90.0] * 10, task=task) for task in ("a", "b, split")}
    found = doubts(single, of_accuracy("a", "b, split"))
    assert ["'a'" in said for said in found] == [True, False]
    text = describe_doubts(found)
    assert text.startswith("Warning: the single-task models of 'a' scatter")
    assert "; the single-task models of 'b, split' scatter" in text
    assert text.endswith("before you believe one.")


def test_all_that_speaks_against_a_task_is_said_in_two_sentences(models):
    history = [[*[1.0] * 7, 50.0, 51.0, end] for end in (60.0, 90.0)]
    first, second = doubts({"a": models(*history)}, of_accuracy("a"))
    assert first == "the single-task models of 'a' scatter over seeds (accuracy 75 ± 21)"
    assert second.startswith("they were still getting better")


def test_a_metric_that_is_zero_is_no_division_by_zero(models):
    assert doubts({"a": models([0.0] * 5, [0.0] * 5)}, of_accuracy("a")) == []
