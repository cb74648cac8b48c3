"""Yes or no obeys the contract of tasks."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    log_loss,
    recall_score,
    roc_auc_score,
)

from recon_search.errors import LabelError, RecipeError
from recon_search.tasks.binary import Binary
from recon_search.tasks.metrics import IGNORED
from recon_search.tasks.registry import fit_task
from tests.tasks.contract import CellContract

EVERY = ("accuracy", "error", "balanced-accuracy", "f1", "auroc")


class TestBinary(CellContract):
    TASKS = (
        Binary("smiling"),
        Binary("a, b: [c]", weight=0.5, class_names=["no", "yes"], metrics=["f1"]),
        Binary("every", metrics=EVERY, positive_weight=4),
        Binary("sex", metrics=EVERY[2:], class_names=("female", "male"), ignore=["?"]),
    )

    def draw(self, task, n, generator):
        outputs = 2 * torch.randn(n, 1, generator=generator)
        targets = torch.randint(2, (n,), generator=generator)
        missing = torch.rand(n, generator=generator) < 0.3
        return outputs, targets.masked_fill(missing, IGNORED)

    def unlabelled(self, task, targets):
        return torch.full_like(targets, IGNORED)

    def perfect(self, task, targets):
        return 40.0 * (2 * targets.clamp(min=0) - 1)[:, None]

    def reference(self, task, outputs, targets):
        known = targets.numpy() != IGNORED
        scores, labels = outputs.double().numpy()[known, 0], targets.numpy()[known]
        said = scores > 0
        found = {"accuracy": accuracy_score(labels, said)}
        found["error"] = 1 - found["accuracy"]
        found["balanced-accuracy"] = recall_score(
            labels, said, labels=np.unique(labels), average="macro"
        )
        found["f1"] = f1_score(labels, said, zero_division=0)
        both = len(set(labels)) == 2
        found["auroc"] = roc_auc_score(labels, scores) if both else math.nan
        weights = np.where(labels == 1, task.positive_weight, 1)
        shares = 1 / (1 + np.exp(-scores))
        # scikit-learn divides by the sum of the weights
        loss = log_loss(labels, shares, labels=[0, 1], sample_weight=weights) * weights.mean()
        return {**{name: 100 * found[name] for name in task.metrics}, "loss": loss}

    def cells(self, task, n, generator):
        chosen = torch.randint(3, (n,), generator=generator).tolist()
        chosen[:3] = range(3)
        return [(*task.class_names, None)[index] for index in chosen]

    def options(self, task):
        options = {"kind": "binary", "weight": task.weight, "metrics": list(task.metrics)}
        return {**options, "positive_weight": "balanced"}


ANSWERS = {
    1: [1, 1.0, True, "1", "1.0", "true", "True", "yes", "YES", "y", "T", " yes ", np.bool_(True)],
    0: [0, 0.0, False, "0", "0.0", "false", "FALSE", "no", "No", "n", "f", np.int8(0)],
    IGNORED: ["", None, math.nan, "NaN"],
}


@pytest.mark.parametrize("names", [("0", "1"), ("no", "yes"), ("False", "True"), ("F", "T")])
def test_words_and_digits_that_mean_yes_or_no_are_read_as_such(names):
    task = Binary("a", class_names=names)
    for meant, cells in ANSWERS.items():
        assert [task.target(cell).item() for cell in cells] == [meant] * len(cells)


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        ([0, 1, 1.0, None], ("0", "1")),
        (["0.0", "1.0", ""], ("0", "1")),
        (["yes", "no"], ("no", "yes")),
        (["Yes", "No", "No"], ("No", "Yes")),
        (["Yes", "no", "No"], ("no", "yes")),
        ([True, False], ("False", "True")),
        (["t", "f"], ("f", "t")),
        (["yes", 0], ("0", "1")),
        (["male", "female", ""], ("female", "male")),
        ([1, -1], ("-1", "1")),
        (["10", "9"], ("9", "10")),
        (["on", "off"], ("off", "on")),
    ],
)
def test_yes_and_no_are_called_what_they_are_in_the_cells(cells, names):
    task = Binary.fit("a", cells)
    assert task.class_names == names
    labelled = [task.target(cell).item() for cell in cells if cell not in ("", None)]
    assert set(labelled) == {0, 1}


def test_what_is_yes_can_be_said():
    task = fit_task("a", ["male", "female"], {"kind": "binary", "classes": ["male", "female"]})
    assert task.target("female").item() == 1
    upside_down = fit_task("a", ["yes", "no"], {"kind": "binary", "classes": ["yes", "no"]})
    assert [upside_down.target(cell).item() for cell in ("yes", "no")] == [0, 1]
    with pytest.raises(LabelError, match="found 'true'"):
        upside_down.target("true")


@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        (["yes", "y", ""], {}, "must have yes and no.*, found y, yes"),
        ([-1, 0, 1], {}, "found -1, 0, 1. Name two in `classes`"),
        (["a", "b", "c"], {}, "found a, b, c"),
        (["a"], {}, "found only 'a'. An empty cell is no label"),
        (["yes", "maybe", "no"], {}, "found maybe, no, yes"),
        (
            ["a", "b", "c"],
            {"classes": ["a", "b"]},
            "given one of `classes` .a, b., found 'c' in the training",
        ),
    ],
)
def test_cells_that_are_not_two_are_one_line(cells, options, message):
    with pytest.raises(LabelError, match=message) as caught:
        Binary.fit("a", cells, **options)
    assert "\n" not in str(caught.value)


def test_what_is_to_be_ignored_is_neither():
    task = Binary.fit("a", [-1, 0, 1, 0], ignore=-1)
    assert [task.target(cell).item() for cell in (-1, "-1", 0, "1")] == [IGNORED, IGNORED, 0, 1]


def test_an_answer_that_the_training_part_has_not_is_one_line():
    with pytest.raises(LabelError, match=r"Task 'a' must be given one of its 2.*found 'mal'.*male"):
        Binary.fit("a", ["male", "female"]).target("mal")


def test_balanced_is_as_many_times_as_no_is_more_frequent():
    cells = ["no"] * 9 + ["yes"] * 3 + [""] * 5
    assert Binary.fit("a", cells, positive_weight="balanced").positive_weight == 3
    one = Binary.fit("a", ["x"], classes=["x", "y"], positive_weight="balanced")
    assert one.positive_weight == 1, "nothing to balance"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_names": ["a"]}, "`class_names` must be two names"),
        ({"class_names": ["a", "b", "c"]}, "`class_names` must be two names"),
        ({"class_names": ["a", "a"]}, "`class_names` must be a list of different names"),
        ({"class_names": []}, "`class_names` must be a list of different names"),
        ({"positive_weight": 0}, "`positive_weight` must be a finite number above 0, got 0"),
        ({"positive_weight": "balanced"}, "`positive_weight` must be a finite number above 0"),
        ({"positive_weight": [2]}, r"`positive_weight` must be a finite number above 0, got \[2\]"),
        ({"metrics": ["map"]}, "`metrics` must be among accuracy"),
    ],
)
def test_an_argument_that_is_of_no_use_is_one_line(arguments, message):
    with pytest.raises(RecipeError, match=message) as caught:
        Binary("a", **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [0, "balancd", None, [1]])
def test_a_weight_that_is_none_is_refused_with_the_cells_too(given):
    with pytest.raises(RecipeError, match="`positive_weight` must be a finite number above 0"):
        Binary.fit("a", [0, 1], positive_weight=given)


def test_the_probability_is_that_of_yes():
    task = Binary("a", class_names=["no", "yes"])
    found = task.predict(torch.tensor([[-1.0], [1.0]]), every=True)
    yes = [1 / (1 + math.e), 1 / (1 + math.exp(-1))]
    assert found[""] == ["no", "yes"]
    assert found["probability"] == pytest.approx(yes)
    assert found["probability yes"] == pytest.approx(yes)
    assert found["probability no"] == pytest.approx(yes[::-1])


@pytest.mark.parametrize("metric", EVERY)
def test_scores_between_0_and_1_are_not_taken_for_probabilities(metric):
    task = Binary("a", metrics=[metric])
    meter = task.meter()
    outputs, targets = torch.tensor([[0.1], [0.2], [0.3], [-0.2]]), torch.tensor([1, 1, 1, 0])
    meter.update(outputs[:3], targets[:3])
    meter.update(outputs[3:], targets[3:])
    assert meter.compute()[metric] == (0 if metric == "error" else 100)


def test_scores_that_a_sigmoid_cannot_tell_apart_are_ranked():
    meter = Binary("a", metrics=["auroc"]).meter()
    meter.update(torch.tensor([[100.0], [200.0], [1e-9], [2e-9]]), torch.tensor([0, 1, 0, 1]))
    assert meter.compute()["auroc"] == pytest.approx(75)


@pytest.mark.parametrize("label", [0, 1])
def test_without_both_answers_there_is_no_area_under_the_curve(label):
    meter = Binary("a", metrics=["auroc", "accuracy"]).meter()
    meter.update(torch.tensor([[1.0], [-1.0]]), torch.tensor([label, label]))
    found = meter.compute()
    assert math.isnan(found["auroc"])
    assert found["accuracy"] == 50
