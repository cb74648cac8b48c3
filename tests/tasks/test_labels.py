"""Any number of labels an image obeys the contract of tasks."""

import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    log_loss,
    roc_auc_score,
)

from recon_search.errors import LabelError, RecipeError
from recon_search.tasks.labels import Labels
from recon_search.tasks.metrics import IGNORED
from recon_search.tasks.registry import fit_task
from tests.tasks.contract import CellContract

EVERY = ("accuracy", "error", "f1", "auroc", "map")


class TestLabels(CellContract):
    TASKS = (
        Labels("findings", 14, metrics=["accuracy"], class_names=list("abcdefghijklmn")),
        Labels("one", 1, metrics=["f1", "error"], class_names=["x"], none="No Finding"),
        Labels("every", 3, metrics=EVERY, positive_weights=[1, 2.5, 4], flags=True),
        Labels(
            "a, b: [c]", 2, weight=3, metrics=EVERY[3:], class_names=("a b", "[c]"), separator=";"
        ),
    )

    def draw(self, task, n, generator):
        shape = (n, task.n_classes)
        outputs = 2 * torch.randn(*shape, generator=generator)
        targets = torch.randint(2, shape, generator=generator)
        missing = torch.rand(*shape, generator=generator) < 0.3
        return outputs, targets.masked_fill(missing, IGNORED)

    def unlabelled(self, task, targets):
        return torch.full_like(targets, IGNORED)

    def perfect(self, task, targets):
        return 40.0 * (2 * targets.clamp(min=0) - 1)

    def reference(self, task, outputs, targets):
        known = targets.numpy() != IGNORED
        scores, labels = outputs.double().numpy(), targets.numpy()
        by_label = {name: [] for name in EVERY}
        total = 0.0
        for index in range(task.n_classes):
            own = known[:, index]
            y, z = labels[own, index], scores[own, index]
            if not len(y):
                continue
            by_label["accuracy"].append(accuracy_score(y, z > 0))
            if y.any() or (z > 0).any():
                by_label["f1"].append(f1_score(y, z > 0, zero_division=0))
            if len(set(y)) == 2:
                by_label["auroc"].append(roc_auc_score(y, z))
                by_label["map"].append(average_precision_score(y, z))
            positive = task.positive_weights[index] if task.positive_weights else 1.0
            weights = np.where(y == 1, positive, 1.0)
            shares = 1 / (1 + np.exp(-z))
            mean = log_loss(y, shares, labels=[0, 1], sample_weight=weights)
            total += mean * weights.sum()
        found = {name: np.mean(of) if of else math.nan for name, of in by_label.items()}
        found["error"] = 1 - found["accuracy"]
        found["f1"] = 0.0 if math.isnan(found["f1"]) else found["f1"]
        expected = {name: 100 * found[name] for name in task.metrics}
        return {**expected, "loss": total / known.sum()}

    def cells(self, task, n, generator):
        rows = torch.randint(2, (n, task.n_classes), generator=generator).tolist()
        rows[0] = [1] * task.n_classes
        if task.flags:
            written = ["|".join(map(str, row)) for row in rows]
            written[2] = [1, None, 0]
        else:
            named = [
                [name for name, yes in zip(task.class_names, row, strict=True) if yes]
                for row in rows
            ]
            written = [task.separator.join(names) or task.none or [] for names in named]
            written[2] = np.array(named[2])
        written[1] = None
        return written

    def options(self, task):
        options = {"kind": "labels", "weight": task.weight, "metrics": list(task.metrics)}
        options |= {"positive_weights": "balanced", "separator": task.separator}
        return {**options, "none": task.none}

    def same(self, first, second):
        """Without a word for none of the labels, that is written as an empty cell."""
        return torch.equal(first, second) or (not second.any() and (first == IGNORED).all())


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        (["b|a", "c", "", None], ("a", "b", "c")),
        ([["b"], ["a", "b"], [], None], ("a", "b")),
        ([np.array(["b", "a"]), ("c",)], ("a", "b", "c")),
        (["b | a", " a"], ("a", "b")),
        (["10|9", "9"], ("9", "10")),
        ([[10, 9], [9.0]], ("9", "10")),
        ([3, 4.0, "5"], ("3", "4", "5")),
        (["a|", "|b"], ("a", "b")),
        ([[0], [1], [0, 1]], ("0", "1")),
        ([[0, 1], [1, 0]], ("0", "1")),
        (["x"], ("x",)),
    ],
)
def test_labels_are_found_and_sorted(cells, names):
    task = Labels.fit("a", cells)
    assert (task.class_names, task.flags) == (names, False)
    for cell in cells:
        task.target(cell)


@pytest.mark.parametrize(
    "cells",
    [
        [[0, 1, 0], [1, 1, 1], None],
        [[0.0, 1.0, math.nan], [1.0, None, 0.0], ["1", "0", "0"]],
        [np.array([False, True, True]), [True, False, False]],
        ["0|1|0", "1|1|1", "1||0", ""],
        ["no|yes|no", "yes|no|no"],
        [[0, 0, 0], []],
    ],
)
def test_a_yes_or_no_for_each_label_is_seen_as_such(cells):
    task = Labels.fit("a", cells)
    assert (task.flags, task.class_names) == (True, ("0", "1", "2"))
    named = Labels.fit("a", cells, classes=["x", "y", "z"])
    assert (named.flags, named.class_names) == (True, ("x", "y", "z"))
    assert all(torch.equal(task.target(cell), named.target(cell)) for cell in cells)


def test_flags_can_be_partly_known():
    task = Labels("a", 3, flags=True, ignore=[-1])
    assert task.target([1, None, 0]).tolist() == [1, IGNORED, 0]
    assert task.target("1||-1").tolist() == [1, IGNORED, IGNORED]
    assert task.target([math.nan, -1, -1.0]).tolist() == [IGNORED] * 3
    assert task.target([]).tolist() == [0, 0, 0]


def test_whether_cells_hold_flags_can_be_said():
    cells = [[0, 1], [1, 0]]
    assert Labels.fit("a", cells, flags=True).target([0, 1]).tolist() == [0, 1]
    assert Labels.fit("a", [[0, 0, 1]], flags=False).target([0, 0]).tolist() == [1, 0]


def test_none_of_the_labels_is_not_an_empty_cell():
    task = Labels("a", 2, class_names=["x", "y"], none="No Finding")
    assert task.target("No Finding").tolist() == [0, 0]
    assert task.target(["No Finding"]).tolist() == [0, 0]
    assert task.target([]).tolist() == [0, 0]
    assert task.target("").tolist() == [IGNORED, IGNORED]
    assert task.predict(-torch.ones(1, 2))[""] == ["No Finding"]
    fitted = fit_task("a", ["x|y", "No Finding"], {"kind": "labels", "none": "No Finding"})
    assert fitted == task
    with pytest.raises(LabelError, match="labels or 'No Finding', found both in 'x"):
        task.target("x|No Finding")


@pytest.mark.parametrize("write", [json.dumps, str, list])
def test_lists_are_read_as_other_programs_write_them(write):
    cells = [write(["cat", "dog"]), write(["dog"]), write([])]
    task = Labels.fit("a", [*cells, ""])
    assert task.class_names == ("cat", "dog")
    assert [task.target(cell).tolist() for cell in cells] == [[1, 1], [0, 1], [0, 0]]


@pytest.mark.parametrize("separator", [",", "; "])
def test_labels_between_which_something_else_stands_are_refused_unless_that_is_said(separator):
    cells = [f"cat{separator}dog", "dog", "bird"]
    with pytest.raises(LabelError, match=f"found 'cat{separator}dog', .* separator = '.'"):
        Labels.fit("a", cells)
    assert Labels.fit("a", cells, separator=separator[0]).class_names == ("bird", "cat", "dog")
    assert Labels.fit("a", cells, separator="|").n_classes == 3, "that is said"
    assert Labels.fit("a", cells, classes=sorted(cells)).n_classes == 3
    assert Labels.fit("a", [*cells, "bird|dog"]).n_classes == 3, "| is what stands between them"
    assert Labels.fit("a", ["cat, black", "dog"]).n_classes == 2


@pytest.mark.parametrize("cell", [{"cat": True}, [["cat"]], [("cat", 1)]])
def test_a_list_of_anything_but_labels_is_one_line(cell):
    with pytest.raises(LabelError, match="'a' must be given a list of labels a cell, found"):
        Labels.fit("a", [cell, "dog"])


@pytest.mark.parametrize(
    ("task", "cell", "message"),
    [
        (Labels("a", 2, class_names=["mass", "hernia"]), "mass|herna", "'herna'.*mean 'hernia'"),
        (Labels("a", 2, class_names=["mass", "hernia"]), ["none"], "found 'none', which does not"),
        (Labels("a", 3, flags=True), "1|0", r"a 0 or 1 for each of its 3 labels, found \['1', '0'"),
        (Labels("a", 3, flags=True), [1, 0, 2], r"found \['1', '0', '2'\]"),
        (Labels("a", 3, flags=True), [0.5, 0, 1], r"found \['0.5', '0', '1'\]"),
        (Labels("a", 3, flags=True), 1, r"found \['1'\]"),
    ],
)
def test_a_cell_that_holds_no_labels_is_one_line(task, cell, message):
    with pytest.raises(LabelError, match=message) as caught:
        task.target(cell)
    assert "\n" not in str(caught.value)


def test_cells_are_checked_when_the_task_is_made():
    with pytest.raises(LabelError, match=r"one of `classes` \(a, b\), found 'c' in the training"):
        Labels.fit("a", ["a|b", "c"], classes=["a", "b"])
    with pytest.raises(LabelError, match="a 0 or 1 for each of its 3"):
        Labels.fit("a", [[1, 0, 1], [1, 0]], flags=True)


def test_balanced_is_as_many_times_as_no_is_more_frequent():
    cells = ["a"] * 6 + ["a|b"] * 2 + [None] * 3
    task = Labels.fit("x", cells, classes=["a", "b", "c"], positive_weights="balanced")
    assert task.positive_weights == (1.0, 3.0, 1.0), "of what is always or never there, nothing"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_classes": 0}, "`n_classes` must be a whole number of at least 1, got 0"),
        ({"class_names": ["a"]}, "`class_names` must be 3 names"),
        ({"class_names": ["a", "b", "b"]}, "`class_names` must be a list of different names"),
        ({"positive_weights": [1, 2]}, "`positive_weights` must be 3 finite numbers above 0"),
        ({"positive_weights": [1, 2, -1]}, "`positive_weights` must be 3 finite numbers above 0"),
        ({"positive_weights": "balanced"}, "`positive_weights` must be 3 finite numbers above 0"),
        ({"separator": ""}, "`separator` must be a text that is not empty, got ''"),
        ({"separator": 3}, "`separator` must be a text that is not empty, got 3"),
        ({"flags": "yes"}, "`flags` must be true or false, got 'yes'"),
        ({"metrics": ["top-5"]}, "`metrics` must be among accuracy, f1, auroc, map, error"),
    ],
)
def test_an_argument_that_is_of_no_use_is_one_line(arguments, message):
    with pytest.raises(RecipeError, match=message) as caught:
        Labels(**{"name": "a", "n_classes": 3, **arguments})
    assert "\n" not in str(caught.value)


def test_a_separator_that_is_none_is_refused_with_the_cells_too():
    with pytest.raises(RecipeError, match="`separator` must be a text that is not empty"):
        Labels.fit("a", ["x"], separator="")


def test_a_prediction_names_what_is_likelier_than_not_and_says_how_likely_each_is():
    task = Labels("a", 3, class_names=["x", "y", "z"], separator=";")
    found = task.predict(torch.tensor([[1.0, -1.0, 2.0], [-1.0, -2.0, -3.0]]))
    assert found[""] == ["x;z", ""]
    assert list(found) == ["", "probability x", "probability y", "probability z"]
    assert found["probability x"] == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.e)])


@pytest.mark.parametrize("metric", ["auroc", "map"])
def test_a_label_without_both_answers_is_left_out_of_a_ranking(metric):
    meter = Labels("a", 2, metrics=[metric]).meter()
    meter.update(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[0, 0], [1, 0]]))
    assert meter.compute()[metric] == 100
    meter = Labels("a", 2, metrics=[metric]).meter()
    meter.update(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[1, 0], [1, 0]]))
    assert math.isnan(meter.compute()[metric])


def test_a_label_counts_once_however_many_samples_have_it():
    meter = Labels("a", 2, metrics=["accuracy"]).meter()
    targets = torch.tensor([[1, 0], [1, IGNORED], [1, IGNORED]])
    meter.update(torch.ones(3, 2), targets)
    assert meter.compute()["accuracy"] == 50
