"""Sentences of the answer, of comparisons made by hand."""

import math

import pytest

from recon_search.runs.comparison import Best, Comparison, Row
from recon_search.runs.paired import Difference
from recon_search.views.report.answer import answer, prices


def comparison(split, joint=(-5.0, -7.0, -6.0), flops=1.5, control=None, single_flops=4000):
    """One of two tasks; a control has an outcome."""

    def row(name, role, delta_m, scale, p_value=None):
        gap = (
            None
            if role == "split"
            else Difference(sum(delta_m) / 3 - sum(split) / 3, 0.1, None, p_value, p_value)
        )
        size = 1100 if role == "split" else 1000
        return Row(name, role, "joint", {}, list(delta_m), size, 2000 * scale, None, gap)

    rows = [row("joint", "joint", joint, 1.0), row("split", "split", split, flops)]
    if control is not None:
        rows.append(row("random", "control", *control))
    single = {"a": {"accuracy": [1.0]}, "b": {"accuracy": [1.0]}}
    judged_by = {task: {"accuracy": 1} for task in single}
    seeds = list(range(len(split)))
    best = Best("split", 0, 1.0, "")
    return Comparison(
        seeds, 0.0, judged_by, single, 2000, rows, "", best, single_flops=single_flops
    )


def test_the_answer_names_the_change_its_uncertainty_and_both_prices():
    found = answer(comparison([1.0, -1.0, 0.3]), 3, 47)
    assert found.verdict == (
        "Splitting helps: with three of 47 layers private, one network for all tasks is 0.1 % "
        "better than two separate networks; without a split it is 6.0 % worse than they are."
    )
    assert found.gain == (
        "The split changes delta_m by +6.10 points (95 % interval +5.67 to +6.53, 3 seeds): chance "
        "alone would hardly do that."
    )
    assert found.price == (
        "It costs 1.10x the parameters and 1.50x the FLOPs of that unsplit network; two separate "
        "networks cost 2.00x and 2.00x."
    )
    assert found.more == ""


def test_a_change_that_chance_explains_is_called_so():
    level = answer(comparison([9.0, -30.0, 4.0]), 3, 47)
    assert level.verdict.startswith("Splitting cannot be told from not splitting: ")
    assert level.gain.endswith("chance alone may do that.")
    assert answer(comparison([-9.0, -11.0, -10.5]), 3, 47).verdict.startswith("Splitting harms: ")


def test_one_seed_gives_no_interval():
    found = answer(comparison([0.01], joint=[-5.0]), 1, 9)
    assert found.verdict == (
        "Whether splitting helps cannot be told: with one of 9 layers private, one network for all "
        "tasks is as good as two separate networks; without a split it is 5.0 % worse than they "
        "are."
    )
    assert found.gain.endswith("+5.01 points over 1 seed, which does not tell a gain from luck.")


def test_seeds_that_agree_to_the_last_digit_tell_nothing_of_others():
    found = answer(comparison([1.0, 1.0, 1.0], joint=[-5.0, -5.0, -5.0]), 1, 9)
    assert found.verdict.startswith("Whether splitting helps cannot be told")
    assert found.gain.endswith(
        "+6.00 points over 3 seeds, which do not show how far others would scatter."
    )


def test_what_is_no_number_is_held_against_nothing():
    found = answer(comparison([math.nan] * 3), 1, 9)
    assert "is not to be held against two separate networks; without" in found.verdict


@pytest.mark.parametrize(
    ("control", "words"),
    [
        (([-3.0, -3.0, -3.0], 1.0, 0.01), "It beats its only control."),
        (([-3.0, -3.0, -3.0], 1.0, 0.3), "Of one control it beats none."),
        (([3.0, 3.0, 3.0], 1.0, 0.01), "Of one control it beats none, and one beats it."),
    ],
)
def test_controls_are_counted(control, words):
    assert answer(comparison([1.0, -1.0, 0.3], control=control), 3, 47).more == words


def test_the_better_buy_is_named():
    dear = comparison([-1.0, -1.0, -1.0], flops=2.0)
    assert answer(dear, 3, 47).more.endswith("separate networks need no more FLOPs.")
    assert answer(comparison([1.0, 1.0, 1.0], flops=2.0), 3, 47).more == ""


def test_flops_of_separate_networks_are_estimated_where_they_were_not_kept():
    assert prices(comparison([1.0, 1.0, 1.0], single_flops=None)).single_flops == 2
    assert prices(comparison([1.0, 1.0, 1.0], single_flops=3000)).single_flops == 1.5
