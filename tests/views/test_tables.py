"""What tables say of spread and of trust."""

import math

import pytest

from recon_search.conflict.reliability import Reliability
from recon_search.views.tables import comparison_table, describe_reliability

ROW = {"accuracy": {"a": [90.0, 92.0]}, "n_parameters": 10, "flops": 10, "conflicts": None}


def cells(n_seeds):
    """The rows of a comparison of two networks."""
    rows = [
        {**ROW, "name": "joint", "role": "joint", "delta_m": [-1.0, -3.0][:n_seeds]}
        | {"minus_split": (-2.0, 0.5), "p_value": None},
        {**ROW, "name": "split", "role": "split", "delta_m": [1.0, 1.0][:n_seeds]}
        | {"minus_split": None, "p_value": None},
    ]
    single = {"a": [91.0, 93.0][:n_seeds]}
    table = comparison_table(
        {"seeds": list(range(n_seeds)), "threshold": 0.0, "single": single, "rows": rows}
        | {"single_parameters": 20}
    )
    return table.title, [list(column.cells) for column in table.columns]


def test_every_mean_has_its_spread_beside_it():
    title, columns = cells(2)
    assert title == "Test data, mean ± standard deviation over 2 seeds"
    assert columns[1] == ["92.00 ± 1.41", "91.00 ± 1.41", "91.00 ± 1.41"]
    assert columns[2] == ["0", "-2.00 ± 1.41", "+1.00 ± 0.00"]
    assert columns[3] == ["", "-2.00 ± 0.50", ""]


def test_one_seed_has_no_spread():
    title, columns = cells(1)
    assert title == "Test data, one seed"
    assert columns[2] == ["0", "-1.00", "+1.00"]
    assert columns[3] == ["", "-2.00", ""]


@pytest.mark.parametrize(
    ("n_probes", "stability", "words"),
    [(1, 0.9, "1 seed would share at most 90%"), (3, 0.9, "3 seeds would share 90%")],
)
def test_one_seed_does_not_promise(n_probes, stability, words):
    found = Reliability(steps=9, tau=0.5, overlap=0.8, chance=0.1, stability=stability)
    said = describe_reliability(found, 3, n_probes, 20)
    assert words in said
    assert "noise" not in said


def test_an_order_that_is_noise_is_called_so():
    found = Reliability(steps=9, tau=0.5, overlap=0.3, chance=0.1, stability=0.4)
    assert "much of the order is noise" in describe_reliability(found, 3, 4, 20)


def test_layers_that_are_all_alike_have_no_order():
    found = Reliability(steps=9, tau=math.nan, overlap=1.0, chance=0.1, stability=math.nan)
    assert describe_reliability(found, 99, 4, 20).startswith("All 20 layers have the same value")
