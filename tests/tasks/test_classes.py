"""One class an image obeys the contract of tasks."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    log_loss,
    recall_score,
    roc_auc_score,
    top_k_accuracy_score,
)

from recon_search.errors import LabelError, RecipeError
from recon_search.tasks.classes import IGNORED, Classes
from recon_search.tasks.meter import Meter
from recon_search.tasks.registry import fit_task
from tests.tasks.contract import CellContract

EVERY = ("accuracy", "error", "balanced-accuracy", "f1", "auroc", "top-5")


class TestClasses(CellContract):
    TASKS = (
        Classes("left", 10),
        Classes("two of them", 2, metrics=["auroc", "accuracy"]),
        Classes("a, b: [c]", 3, weight=0.25, class_names=("cat", "a dog", "[x]")),
        Classes("all", 7, metrics=EVERY, class_weights=(1, 2, 0.5, 1, 1, 3, 1)),
        Classes("smooth", 4, metrics="f1", label_smoothing=0.1, ignore=[255]),
        Classes("both", 3, metrics=EVERY[1:5], class_weights=[5, 1, 2], label_smoothing=0.2),
    )

    def draw(self, task, n, generator):
        outputs = 3 * torch.randn(n, task.n_classes, generator=generator)
        targets = torch.randint(task.n_classes, (n,), generator=generator)
        missing = torch.rand(n, generator=generator) < 0.3
        return outputs, targets.masked_fill(missing, IGNORED)

    def unlabelled(self, task, targets):
        return torch.full_like(targets, IGNORED)

    def perfect(self, task, targets):
        """As right as can be where labels are smooth."""
        sharp = 50 if not task.label_smoothing else 4
        return sharp * torch.nn.functional.one_hot(targets.clamp(min=0), task.n_classes).float()

    def reference(self, task, outputs, targets):
        known = targets.numpy() != IGNORED
        scores, classes = outputs.double().numpy()[known], targets.numpy()[known]
        shares = np.exp(scores - scores.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        chosen, every = shares.argmax(1), range(task.n_classes)
        found = {"accuracy": accuracy_score(classes, chosen)}
        found["error"] = 1 - found["accuracy"]
        occurring = np.unique(classes)
        found["balanced-accuracy"] = recall_score(
            classes, chosen, labels=occurring, average="macro"
        )
        found["f1"] = f1_score(classes, chosen, average="macro")
        both = [k for k in every if len(np.unique(classes == k)) == 2]
        areas = [roc_auc_score(classes == k, shares[:, k]) for k in both]
        found["auroc"] = np.mean(areas) if areas else np.nan
        if "top-5" in task.metrics:
            found["top-5"] = top_k_accuracy_score(classes, scores, k=5, labels=every)
        expected = {name: 100 * found[name] for name in task.metrics}
        return {**expected, "loss": self.reference_loss(task, shares, classes)}

    def reference_loss(self, task, shares, classes):
        if not task.class_weights and not task.label_smoothing:
            return log_loss(classes, shares, labels=range(task.n_classes))
        weights = np.array(task.class_weights or [1.0] * task.n_classes)
        wanted = np.eye(task.n_classes)[classes] * (1 - task.label_smoothing)
        wanted += task.label_smoothing / task.n_classes
        return -(wanted * weights * np.log(shares)).sum() / len(classes)

    def cells(self, task, n, generator):
        missing = ["", None, float("nan")]
        chosen = torch.randint(task.n_classes + 1, (n,), generator=generator).tolist()
        chosen[: task.n_classes] = range(task.n_classes)  # so that all occur
        names = [*task.class_names, missing[n % 3]]
        return [names[index] for index in chosen]

    def options(self, task):
        options = {"kind": "classes", "weight": task.weight, "metrics": list(task.metrics)}
        return options | {"label_smoothing": task.label_smoothing, "class_weights": "balanced"}


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        (["dog", "cat", "dog", ""], ("cat", "dog")),
        ([10, 2, 1], ("1", "2", "10")),
        (["10", "2", "1"], ("1", "2", "10")),
        ([3.0, float("nan"), 2.0], ("2", "3")),
        (["3.0", "", "2.0", "3"], ("2", "3")),
        ([np.int64(1), np.float32(0)], ("0", "1")),
        ([np.str_("b"), " a "], ("a", "b")),
        ([True, False], ("False", "True")),
        (["0.5", "-1.5"], ("-1.5", "0.5")),
        (["007", "7"], ("007", "7")),
        (["v1", "2"], ("2", "v1")),
    ],
)
def test_classes_are_found_and_sorted(cells, names):
    task = Classes.fit("a", cells)
    assert task == Classes("a", len(names), class_names=names)
    assert all(task.target(cell).item() in (IGNORED, *range(len(names))) for cell in cells)


def test_classes_that_are_named_keep_their_order_and_may_be_missing_in_training():
    task = fit_task("a", ["b"], {"kind": "classes", "classes": ["b", "c", 1]})
    assert task.class_names == ("b", "c", "1")
    assert [task.target(cell).item() for cell in ("b", "c", 1, "1.0")] == [0, 1, 2, 2]


def test_names_that_are_numbers_from_0_are_not_in_the_spec():
    assert Classes.fit("a", [1, 0, 2]) == Classes("a", 3)
    assert Classes("a", 3).class_names == ("0", "1", "2")
    assert Classes("a", 3).spec() == {"kind": "classes", "name": "a", "n_classes": 3}
    assert Classes.fit("a", [1, 2]).spec()["class_names"] == ["1", "2"]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("ct", r"its 2 classes \(cat, dog\), found 'ct', .*not occur.*Did you mean 'cat'"),
        ("bird", "found 'bird', which does not occur in the training part. Correct it"),
        (3.0, "found '3'"),
        ("Cat", "found 'Cat'.*Did you mean 'cat'"),
        ("a\nb", r"found 'a\\nb'"),
    ],
)
def test_a_class_that_is_not_in_the_training_part_is_one_line(cell, message):
    task = Classes.fit("species", ["cat", "dog"])
    with pytest.raises(LabelError, match=f"Task 'species' must be given one of .*{message}") as e:
        task.target(cell)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("cell", [["cat"], [], ("cat", "dog"), {"name": "cat"}])
def test_a_cell_of_several_entries_is_no_class(cell):
    task = Classes.fit("a", ["cat", "dog"])
    for make in (task.target, lambda cell: Classes.fit("a", ["cat", "dog", cell])):
        with pytest.raises(LabelError, match="Task 'a' must be given one entry a cell, found "):
            make(cell)


def test_of_many_classes_an_error_names_the_first():
    task = Classes("a", 100)
    with pytest.raises(LabelError, match=r"\(0, 1, 2, 3, 4, \.\.\.\)"):
        task.target("100")


@pytest.mark.parametrize(
    ("cells", "message"),
    [(["a", "a", ""], "at least two classes.*found only 'a'"), ([""], "found no label")],
)
def test_one_class_is_none(cells, message):
    with pytest.raises(LabelError, match=message):
        Classes.fit("a", cells)


def test_a_class_that_is_to_be_ignored_is_none():
    assert Classes.fit("a", ["x", "y", "?"], ignore="?").class_names == ("x", "y")
    assert Classes.fit("a", [0, 1, 255.0], ignore=[255]).n_classes == 2


def test_weights_are_1_on_average_over_the_training_part():
    """So that they change which samples count, and not how much the task does among others."""
    cells = ["a"] * 6 + ["b"] * 3 + ["c", ""]
    for given in ([1, 2, 3], [0.01, 0.02, 0.03]):
        found = Classes.fit("x", cells, class_weights=given)
        assert found.class_weights == pytest.approx(np.array([1, 2, 3]) * 10 / 15)
    balanced = Classes.fit("x", cells, class_weights="balanced").class_weights
    assert balanced == pytest.approx([10 / 18, 10 / 9, 10 / 3])
    given = Classes.fit("x", cells, classes=["a", "b", "c", "d"], class_weights="balanced")
    assert given.class_weights[3] == pytest.approx(given.class_weights[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_classes": 1}, "`n_classes` must be a whole number of at least 2, got 1"),
        ({"n_classes": 2.0}, "`n_classes` must be a whole number of at least 2, got 2.0"),
        ({"n_classes": True}, "`n_classes` must be a whole number"),
        ({"n_classes": "3"}, "`n_classes` must be a whole number of at least 2, got '3'"),
        ({"class_names": ["a"]}, "`class_names` must be 3 names, one a class"),
        ({"class_names": ["a", "b", "a"]}, "`class_names` must be a list of different names"),
        ({"class_names": ["a", "b", ""]}, "`class_names` must be a list of different names"),
        ({"class_names": "abc"}, "`class_names` must be a list of different names, got 'abc'"),
        ({"class_weights": [1, 2]}, "`class_weights` must be 3 finite numbers above 0"),
        ({"class_weights": [1, 2, 0]}, "`class_weights` must be 3 finite numbers above 0"),
        ({"class_weights": [1, 2, float("inf")]}, "`class_weights` must be 3 finite numbers"),
        ({"class_weights": "balanced"}, "`class_weights` must be 3 finite numbers above 0"),
        ({"class_weights": 2.0}, "`class_weights` must be 3 finite numbers above 0, got 2.0"),
        ({"label_smoothing": 1.0}, r"`label_smoothing` must be a finite number in \[0, 1\), got 1"),
        ({"label_smoothing": -0.1}, r"`label_smoothing` must be a finite number in \[0, 1\)"),
        ({"label_smoothing": None}, r"`label_smoothing` must be a finite number in \[0, 1\)"),
        ({"metrics": ["top-5"]}, "top-5 asks for more than 5 classes, got 3"),
        ({"metrics": ["mae"]}, "`metrics` must be among accuracy, .*, got 'mae'"),
        ({"name": ""}, "`name` must be a text that is not empty"),
        ({"name": "a\nb"}, r"Task 'a\\nb': `name` must be .* in one line, got 'a\\nb'"),
        ({"name": 3}, "`name` must be a text that is not empty, in one line, got 3"),
    ],
)
def test_an_argument_that_is_of_no_use_is_one_line(arguments, message):
    with pytest.raises(RecipeError, match=message) as caught:
        Classes(**{"name": "species", "n_classes": 3, **arguments})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", ["balancd", [1], [1, -1], {"a": 1}, 3])
def test_weights_that_are_none_are_refused_with_the_cells_too(given):
    with pytest.raises(RecipeError, match="`class_weights` must be 2 finite numbers above 0"):
        Classes.fit("a", ["x", "y"], class_weights=given)


def test_the_probability_is_that_of_the_class_that_is_named():
    task = Classes("a", 2, class_names=["x", "y"])
    found = task.predict(torch.tensor([[0.0, 1.0], [2.0, 0.0]]), every=True)
    assert found[""] == ["y", "x"]
    assert found["probability"] == [found["probability y"][0], found["probability x"][1]]
    sums = [sum(pair) for pair in zip(found["probability x"], found["probability y"], strict=True)]
    assert sums == pytest.approx([1, 1])
    assert found["probability"] == pytest.approx([1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-2))])


def test_metrics_that_are_equal_on_the_first_batch_remain_two():
    """torchmetrics lets metrics share what they have seen if one batch cannot tell them apart."""
    task = Classes("a", 6, metrics=["accuracy", "balanced-accuracy", "f1", "top-5"])
    meter = task.meter()
    scores = torch.eye(6)
    meter.update(scores[:2], torch.tensor([0, 1]))
    meter.update(scores[2:4] + 0.1 * scores[4:6], torch.tensor([4, 5]))
    expected = {"accuracy": 50, "balanced-accuracy": 50, "f1": 100 / 3, "top-5": 100}
    found = meter.compute()
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_a_class_that_is_predicted_and_does_not_occur_is_not_in_the_balanced_accuracy():
    task = Classes("a", 3, metrics=["balanced-accuracy"])
    meter = task.meter()
    meter.update(torch.eye(3)[[0, 1, 2]], torch.tensor([0, 1, 1]))
    assert meter.compute()["balanced-accuracy"] == pytest.approx(75)


def test_a_ranking_of_scores_that_are_not_finite_is_none():
    task = Classes("a", 2, metrics=["auroc"])
    meter = task.meter()
    meter.update(torch.tensor([[0.0, 1.0], [torch.nan, 0.0]]), torch.tensor([0, 1]))
    assert np.isnan(meter.compute()["auroc"])


def test_a_loss_that_is_not_finite_is_not_hidden():
    """A diverged network must show: its mean loss is nan, not that of the other batches."""
    task = Classes("a", 2)
    meter = task.meter()
    meter.update(torch.zeros(2, 2), torch.tensor([0, 1]))
    meter.update(torch.full((1, 2), torch.nan), torch.tensor([0]))
    assert np.isnan(meter.compute()["loss"])


def test_meters_of_one_task_do_not_share_what_they_have_seen():
    task = Classes("a", 2)
    first, second = task.meter(), task.meter()
    first.update(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    assert first.compute()["accuracy"] == 100
    assert np.isnan(second.compute()["accuracy"])
    assert isinstance(second, Meter)


def test_reading_a_meter_in_between_changes_nothing():
    task = Classes("a", 2)
    meter = task.meter()
    outputs, targets = torch.randn(6, 2), torch.tensor([0, 1, 1, IGNORED, 0, 1])
    meter.update(outputs[:3], targets[:3])
    meter.compute()
    meter.update(outputs[3:], targets[3:])
    whole = task.meter()
    whole.update(outputs, targets)
    assert meter.compute() == pytest.approx(whole.compute())


def test_a_class_that_is_not_among_those_that_are_named_is_one_line():
    with pytest.raises(LabelError, match=r"one of `classes` \(cat, dog\), found 'do'.*mean 'dog'"):
        Classes.fit("a", ["cat", "do"], classes=["cat", "dog"])
    with pytest.raises(RecipeError, match="`classes` must be a list of different names, got 'ab'"):
        Classes.fit("a", ["a", "b"], classes="ab")


def test_arrays_do_as_lists_do():
    names, weights = np.array(["b", "a"]), np.array([1.0, 2.0])
    expected = Classes("x", 2, class_names=["b", "a"], class_weights=[1, 2])
    assert Classes("x", 2, class_names=names, class_weights=torch.from_numpy(weights)) == expected
    fitted = Classes.fit("x", np.array(["a", "b"]), classes=names, class_weights=weights)
    assert fitted == dataclasses.replace(expected, class_weights=[2 / 3, 4 / 3])


def test_bytes_are_the_text_they_hold():
    assert Classes.fit("c", [b"oak", "beech ", "oak"]).class_names == ("beech", "oak")
