"""Numbers obey the contract of tasks."""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    mean_absolute_error,
    mean_squared_error,
    r2_score,
    root_mean_squared_error,
)

from recon_search.errors import LabelError, RecipeError
from recon_search.tasks.registry import fit_task
from recon_search.tasks.scoring import delta_m
from recon_search.tasks.task import directions
from recon_search.tasks.values import Values
from tests.tasks.contract import LAW, SEEDS, CellContract

EVERY = ("mae", "rmse", "r2")


class TestValues(CellContract):
    TASKS = (
        Values("age", mean=40.0, std=12.5, unit="years", metrics=EVERY),
        Values("plain", metrics=["rmse"]),
        Values("a, b: [c]", 3, (1, -200, 0), (1, 30, 0.01), metrics=EVERY, weight=2, separator=";"),
        Values("robust", 2, [0, 1], [1, 2], criterion="huber", huber_delta=0.5),
        Values("absolute", 1, [1e4], [0.5], criterion="mae", metrics=["mae", "r2"]),
    )

    def draw(self, task, n, generator):
        shape = (n, task.n_values)
        outputs = torch.randn(*shape, generator=generator)
        places = torch.randn(*shape, generator=generator, dtype=torch.float64)
        targets = places * torch.tensor(task.std) + torch.tensor(task.mean, dtype=torch.float64)
        missing = torch.rand(*shape, generator=generator) < 0.3
        return outputs, targets.masked_fill(missing, math.nan)

    def unlabelled(self, task, targets):
        return torch.full_like(targets, math.nan)

    def perfect(self, task, targets):
        places = (targets - torch.tensor(task.mean).double()) / torch.tensor(task.std).double()
        return places.nan_to_num(0.0).float()

    def reference(self, task, outputs, targets):
        mean, std = np.array(task.mean), np.array(task.std)
        known, real = ~targets.isnan().numpy(), targets.numpy()
        found = outputs.double().numpy() * std + mean
        by_number = {name: [] for name in EVERY}
        for index in range(task.n_values):
            own = known[:, index]
            pair = real[own, index], found[own, index]
            if own.any():
                by_number["mae"].append(mean_absolute_error(*pair))
                by_number["rmse"].append(root_mean_squared_error(*pair))
            if own.sum() > 1:
                by_number["r2"].append(r2_score(*pair))
        expected = {
            name: np.mean(by_number[name]) if by_number[name] else math.nan for name in task.metrics
        }
        place = ((real - mean) / std)[known]
        return {**expected, "loss": self.reference_loss(task, place, outputs.numpy()[known])}

    def reference_loss(self, task, place, said):
        if task.criterion == "mse":
            return mean_squared_error(place, said)
        if task.criterion == "mae":
            return mean_absolute_error(place, said)
        error, delta = abs(place - said), task.huber_delta
        return np.where(error < delta, error**2 / 2, delta * (error - delta / 2)).mean()

    def cells(self, task, n, generator):
        drawn = torch.randn(n, task.n_values, generator=generator).double()
        rows = (drawn * torch.tensor(task.std) + torch.tensor(task.mean)).tolist()
        if task.n_values == 1:
            return [
                [row[0], repr(row[0]), None, np.float64(row[0])][k % 4]
                for k, row in enumerate(rows)
            ]
        cells = [task.separator.join(map(repr, row)) for row in rows]
        cells[1], cells[2], cells[3] = None, np.array(rows[2]), [None, *rows[3][1:]]
        return cells

    def options(self, task):
        keys = ("weight", "unit", "criterion", "huber_delta", "separator")
        options = {key: getattr(task, key) for key in keys}
        return {"kind": "values", "metrics": list(task.metrics), **options}

    def same(self, first, second):
        """Outputs have the precision of float32."""
        return torch.allclose(first, second, rtol=1e-5, atol=1e-5)


COLUMN = [*np.random.default_rng(0).normal(size=30).tolist(), None]


@LAW
@given(
    seed=SEEDS,
    scale=st.sampled_from([1e-6, 0.01, 2.54, 1000.0, -3.0]),
    shift=st.sampled_from([0.0, 32.0, -1e4]),
)
@pytest.mark.parametrize("criterion", ["mse", "mae", "huber"])
def test_errors_scale_with_the_unit_and_nothing_else_does(criterion, seed, scale, shift):
    """A network learns the same whatever the unit of its targets, and is judged the same."""
    other = [None if cell is None else cell * scale + shift for cell in COLUMN]
    outputs = torch.randn(2, 31, 1, generator=torch.Generator().manual_seed(seed))
    found = []
    for column, sign in ((COLUMN, 1), (other, math.copysign(1, scale))):
        task = Values.fit("a", column, metrics=EVERY, criterion=criterion)
        target = torch.stack([task.target(cell) for cell in column])
        seen = []
        for output in outputs * sign:
            meter = task.meter()
            meter.update(output, target)
            seen.append(meter.compute())
        found.append(seen)
    for before, after in zip(*found, strict=True):
        for name in ("mae", "rmse"):
            assert after[name] == pytest.approx(abs(scale) * before[name], rel=1e-5)
        for name in ("r2", "loss"):
            assert after[name] == pytest.approx(before[name], rel=1e-5, abs=1e-5)
    deltas = [delta_m({"a": first}, {"a": second}, directions([task])) for first, second in found]
    assert deltas[0] == pytest.approx(deltas[1], rel=1e-3)


@pytest.mark.parametrize(
    ("cell", "value"),
    [(3, 3), ("3", 3), ("3.0", 3), (" -2.5 ", -2.5), ("1e3", 1000), (True, 1),
     (np.float32(0.5), 0.5), (np.int64(7), 7), ([4], 4), (np.array([4.0]), 4), ("+1", 1)],
)  # fmt: skip
def test_a_number_is_read_however_it_is_written(cell, value):
    target = Values("a").target(cell)
    assert target.tolist() == [value]
    assert target.dtype == torch.float64


NO_NUMBERS = ["a", "3,5", "5 kg", "inf", "-Infinity", math.inf, "1_000", "0x10", "1e999", "-"]
NO_NUMBERS += ["None", "NA", {"a": 1}, np.array(["x"]), "1 2", [[1, 2]]]


@pytest.mark.parametrize("cell", NO_NUMBERS)
def test_what_is_no_number_is_one_line(cell):
    message = re.escape("Task 'age' must be given finite numbers, found ")
    with pytest.raises(LabelError, match=message) as caught:
        Values("age").target(cell)
    assert "\n" not in str(caught.value)
    with pytest.raises(LabelError, match=message):
        Values.fit("age", [1, 2, cell])


@pytest.mark.parametrize("cell", ["1e300", -1e101, [1e200]])
def test_a_number_whose_square_may_be_none_is_one_line(cell):
    with pytest.raises(LabelError, match=r"'age' must be given numbers up to 1e\+100, found"):
        Values.fit("age", [1, 2, cell])


def test_numbers_that_differ_by_rounding_alone_are_not_called_equal():
    with pytest.raises(LabelError, match="found no more than 1e-200 between 2 cells"):
        Values.fit("a", [1e-200, 2e-200])


def test_lists_are_read_as_other_programs_write_them():
    task = Values.fit("box", ["[1, 2]", "[3.5, null]", [4, 5], "6|7"])
    assert task.n_values == 2
    assert task.target("[1, 2.5]").tolist() == [1, 2.5]


def test_of_several_numbers_some_can_be_missing():
    task = Values("box", 3, ignore=-1)
    cells = [
        "1||3",
        [1, None, 3],
        (1.0, math.nan, 3),
        np.array([1, -1, 3]),
        "1|-1.0|3",
        "1 | nan|3",
    ]
    for cell in cells:
        assert str(task.target(cell).tolist()) == "[1.0, nan, 3.0]"
    assert task.target("||").isnan().all()
    assert task.target(-1).isnan().all()


@pytest.mark.parametrize("cell", ["1", 1, "1|2|3", [1, 2, 3]])
def test_another_number_of_numbers_is_one_line(cell):
    with pytest.raises(LabelError, match=r"Task 'box' must be given 2 numbers a cell, found"):
        Values("box", 2).target(cell)
    with pytest.raises(LabelError, match=r"Task 'box' must be given 2 numbers a cell, found"):
        Values.fit("box", ["1|2", cell])


def test_mean_and_deviation_are_those_of_what_is_known():
    task = Values.fit("a", ["1", "", 3, None, "8"])
    assert task.mean == (4,)
    assert task.std == (pytest.approx(np.std([1, 3, 8])),)
    several = Values.fit("a", ["1|10", "3|", [None, 30]])
    assert (several.mean, several.std) == ((2, 20), (1, 10))


@pytest.mark.parametrize("cells", [[5, "5", None], [0.1 + 0.2, 0.3], [1e9], ["1|5", "2|5"]])
def test_a_number_that_is_always_the_same_is_one_line(cells):
    with pytest.raises(LabelError, match="must have numbers that differ in the training part"):
        Values.fit("a", cells)


def test_a_number_that_no_cell_has_is_one_line():
    with pytest.raises(LabelError, match="must have numbers in the training part, found none"):
        Values.fit("a", ["1|", "2|"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_values": 0}, "`n_values` must be a whole number of at least 1, got 0"),
        ({"n_values": 1.0}, "`n_values` must be a whole number of at least 1, got 1.0"),
        ({"mean": [1, 2]}, "`mean` must be 1 finite number, got"),
        ({"mean": math.nan}, "`mean` must be 1 finite number, got nan"),
        ({"std": 0}, "`std` must be 1 finite number above 0, got 0"),
        ({"n_values": 2, "std": [1, -1]}, "`std` must be 2 finite numbers above 0"),
        ({"unit": 3}, "`unit` must be a text, got 3"),
        ({"criterion": "l1"}, "`criterion` must be among mse, mae, huber, got 'l1'"),
        ({"criterion": "hubber"}, "got 'hubber'. Did you mean 'huber'"),
        ({"criterion": ["mse"]}, r"`criterion` must be among mse, mae, huber, got \['mse'\]"),
        ({"huber_delta": 0}, "`huber_delta` must be a finite number above 0, got 0"),
        ({"separator": ""}, "`separator` must be a text that is not empty"),
        ({"metrics": ["accuracy"]}, "`metrics` must be among mae, rmse, r2, got 'accuracy'"),
    ],
)
def test_an_argument_that_is_of_no_use_is_one_line(arguments, message):
    with pytest.raises(RecipeError, match=message) as caught:
        Values("a", **arguments)
    assert "\n" not in str(caught.value)


def test_units_are_the_users_where_there_is_one():
    task = fit_task("a", [1, 2], {"kind": "values", "unit": "kg", "metrics": list(EVERY)})
    assert task.units == {"mae": "kg", "rmse": "kg", "r2": ""}


def test_predictions_are_in_the_users_units():
    one = Values("a", 1, 10, 2)
    assert one.predict(torch.tensor([[0.5], [-1.0]])) == {"": [11.0, 8.0]}
    two = dataclasses.replace(one, n_values=2, mean=[10, 0], std=[2, 1])
    found = two.predict(torch.tensor([[0.5, 3.0]]))
    assert found == {"": ["11.0|3.0"], "1": [11.0], "2": [3.0]}


@pytest.mark.parametrize("known", [[5.0], [5.0, 5.0, math.nan], [0.1, 0.1, 0.1]])
def test_without_two_different_values_there_is_no_r2(known):
    meter = Values("a", metrics=["r2", "mae"]).meter()
    meter.update(torch.zeros(len(known), 1), torch.tensor(known)[:, None])
    found = meter.compute()
    assert math.isnan(found["r2"])
    assert found["mae"] == pytest.approx(known[0])


def test_targets_of_single_precision_do_as_well():
    task = Values("a", 1, 40, 10, metrics=EVERY)
    output, target = torch.randn(9, 1), torch.randn(9, 1) * 10 + 40
    assert task.loss(output, target) == pytest.approx(float(task.loss(output, target.double())))


@pytest.mark.parametrize("metric", EVERY)
def test_an_output_that_is_not_finite_is_not_hidden(metric):
    """A diverged network must show, though it is about one of several numbers alone."""
    meter = Values("a", 2, metrics=[metric]).meter()
    meter.update(torch.tensor([[0.0, torch.nan], [1.0, 1.0]]), torch.tensor([[1.0, 1.0], [2, 3]]))
    assert math.isnan(meter.compute()[metric])


def test_targets_of_one_number_may_be_flat():
    """Else they would meet every output: (B, 1) and (B,) make (B, B)."""
    task = Values("a", metrics=EVERY)
    output, target = torch.randn(9, 1), torch.randn(9)
    found = []
    for each in (target, target[:, None]):
        meter = task.meter()
        meter.update(output, each)
        found.append(meter.compute())
    assert found[0] == found[1]
    assert task.loss(output, target) == task.loss(output, target[:, None])


def test_arrays_do_as_lists_do():
    mean, std = np.array([1.0, 2.0]), torch.tensor([0.5, 0.25])
    assert Values("a", 2, mean, std) == Values("a", 2, [1, 2], [0.5, 0.25])
