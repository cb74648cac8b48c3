"""The sentence that decides: rows, p values, the verdict and the exported model, by hand."""

import json
import math
import random
import statistics
from pathlib import Path

import pytest
from scipy import stats

from recon_search import artefact
from recon_search.errors import ArtefactError, TrainingError
from recon_search.runs.comparison import (
    Comparison,
    Row,
    Trained,
    choose_best,
    make_rows,
    paired_p_value,
    verdict,
)
from recon_search.runs.result import Result

JUDGED_BY = {"a": {"accuracy": 1}, "b": {"error": -1}}


def result(a, b, seed=0, validation=None, method="joint", size=10, tasks=("a", "b")):
    """A result with test metrics `a` and `b`; its validation metrics are others."""

    def metrics(values):
        both = {"a": {"accuracy": values[0], "loss": 9.0}, "b": {"error": values[1], "loss": 9.0}}
        return {task: both[task] for task in tasks}

    directory = Path(f"trainings/{method}-{seed}-{a}-{b}")
    seen = metrics(validation or (a, b))
    return Result(tasks, method, seed, size, 3 * size, seen, 1.0, directory, metrics((a, b)))


def singles(n):
    """Single-task models with accuracy 50 and error 20 at every seed."""
    return {
        "a": [result(50.0, 0.0, seed, tasks=("a",)) for seed in range(n)],
        "b": [result(0.0, 20.0, seed, tasks=("b",)) for seed in range(n)],
    }


def line(name, role, *pairs, **kwargs):
    return Trained(name, role, [result(*pair, seed, **kwargs) for seed, pair in enumerate(pairs)])


def row(name, role, difference=None, p_value=None):
    spread = None if difference is None else (difference, 1.0)
    return Row(name, role, "joint", {}, [0.0], 1, 1, None, spread, p_value)


@pytest.mark.parametrize(
    ("difference", "p_value", "outcome"),
    [
        (-2.0, 0.049, "beaten"),
        (-2.0, 0.05, "level"),
        (2.0, 0.049, "better"),
        (2.0, 0.2, "level"),
        (0.5, 0.01, "better"),
        (1.0, 0.01, "better"),
        (-0.5, 0.01, "beaten"),
        (0.0, 0.01, "level"),
        (-9.0, None, "level"),
        (None, None, "level"),
    ],
)
def test_a_row_is_beaten_where_the_split_is_significantly_better(difference, p_value, outcome):
    assert row("x", "control", difference, p_value).outcome == outcome


def test_the_verdict_is_a_success_where_all_are_beaten():
    rows = [
        row("joint, unsplit", "joint", -5.0, 0.01),
        row("joint, split", "split"),
        row("random 3 layers", "control", -1.0, 0.04),
    ]
    assert verdict(rows) == (
        "Success: the split beats everything it was compared with. "
        'Against joint training: "joint, split" beats "joint, unsplit". '
        'Against controls: "joint, split" beats "random 3 layers".'
    )


def test_the_verdict_keeps_beaten_level_and_better_apart():
    rows = [
        row("joint, unsplit", "joint", -5.0, 0.01),
        row("joint, split", "split"),
        row("pcgrad, unsplit", "joint", -5.0, 0.5),
        row("pcgrad, split", "split", 1.0, 0.5),
        row("first", "control", 2.0, 0.01),
        row("wide", "control", -2.0, 0.02),
        row("rule mass, 3 layers", "rule", -2.0, None),
    ]
    assert verdict(rows) == (
        "Not a success by this tool's standard: a split must beat all it is compared with. "
        'Against joint training: "joint, split" beats "joint, unsplit"; cannot be told from '
        '"pcgrad, unsplit". Against splits by rule: "joint, split" cannot be told from "rule mass, '
        '3 layers". Against controls: "joint, split" beats "wide"; loses to "first".'
    )


def test_several_names_are_a_list():
    rows = [row("s", "split"), *(row(name, "control", -1.0, 0.01) for name in "xyz")]
    assert 'beats "x", "y" and "z".' in verdict(rows)


def test_rows_are_paired_by_seed_and_signed_by_direction():
    ours = line("ours", "split", (60.0, 20.0), (50.0, 10.0), (55.0, 20.0))
    joint = line("joint", "joint", (50.0, 20.0), (50.0, 20.0), (45.0, 20.0), size=20)
    first, second = make_rows([joint, ours], singles(3), JUDGED_BY)
    # (+20 % + 0) / 2, (0 + 50 %) / 2, (+10 % + 0) / 2; a lower error is better.
    assert second.delta_m == pytest.approx([10.0, 25.0, 5.0])
    assert first.delta_m == pytest.approx([0.0, 0.0, -5.0])
    differences = [-10.0, -25.0, -10.0]
    mean, deviation = first.minus_split
    assert mean == pytest.approx(-15.0)
    assert deviation == pytest.approx(math.sqrt(75.0))
    t = mean / (deviation / math.sqrt(3))
    assert first.p_value == pytest.approx(2 * stats.t.sf(abs(t), df=2))
    assert first.p_value == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)
    assert (second.minus_split, second.p_value) == (None, None)
    assert (first.role, second.role) == ("joint", "split")
    assert (first.n_parameters, first.flops) == (20, 60)
    assert first.metrics["a"]["accuracy"] == [50.0, 50.0, 45.0]

    swapped = Trained("joint", "joint", [joint.results[i] for i in (2, 1, 0)])
    other = make_rows([swapped, ours], singles(3), JUDGED_BY)[0]
    assert other.minus_split[0] == pytest.approx(mean)
    assert other.p_value != pytest.approx(first.p_value), "seeds are pairs"


def test_the_first_split_is_the_reference_whatever_its_name_says():
    lines = [
        line("x, split", "joint", (50.0, 20.0), (51.0, 20.0)),
        line("plain", "split", (60.0, 20.0), (65.0, 20.0)),
        line("y, split", "split", (70.0, 20.0), (60.0, 20.0)),
    ]
    rows = make_rows(lines, singles(2), JUDGED_BY)
    assert [each.minus_split is None for each in rows] == [False, True, False]


def test_the_model_to_export_is_chosen_on_validation_data():
    """Test data says the opposite, and a control is better still on both."""
    lines = [
        Trained("control", "control", [result(99.0, 1.0, 0, (99.0, 1.0))]),
        Trained("one", "split", [result(50.0, 20.0, 0, (60.0, 20.0), method="m")]),
        Trained("two", "split", [result(90.0, 20.0, 0, (55.0, 20.0))]),
    ]
    best = choose_best(lines, singles(1), JUDGED_BY)
    assert best.name == "one"
    assert best.validation_delta_m == pytest.approx(10.0)
    assert best.directory == str(lines[1].results[0].directory)


def test_every_part_is_measured_against_the_baselines_of_that_part():
    """On validation data the baseline of a is half as good as on test data."""
    base = singles(2)
    base["a"] = [result(50.0, 0.0, seed, (25.0, 0.0), tasks=("a",)) for seed in range(2)]
    lines = [line("s", "split", (60.0, 20.0), (50.0, 20.0))]
    assert make_rows(lines, base, JUDGED_BY)[0].delta_m == pytest.approx([10.0, 0.0])
    best = choose_best(lines, base, JUDGED_BY)
    assert best.validation_delta_m == pytest.approx(70.0)


def test_one_seed_makes_a_row():
    (only,) = make_rows([line("s", "split", (60.0, 20.0), method="pcgrad")], singles(1), JUDGED_BY)
    assert (only.method, only.delta_m) == ("pcgrad", pytest.approx([10.0]))
    assert only.metrics["b"] == {"error": [20.0], "loss": [9.0]}


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_model_whose_delta_m_is_no_number_is_never_the_best(place):
    seen = [(60.0, 20.0), (70.0, 20.0), (80.0, 20.0)]
    seen[place] = (math.nan, 20.0)
    lines = [Trained("s", "split", [result(60.0, 20.0, i, of) for i, of in enumerate(seen)])]
    assert choose_best(lines, singles(3), JUDGED_BY).seed == (1 if place == 2 else 2)


def test_models_without_any_delta_m_are_one_line():
    lines = [Trained("s", "split", [result(60.0, 20.0, 0, (math.nan, 20.0))] * 2)]
    with pytest.raises(TrainingError, match="nan for all 2 split networks") as raised:
        choose_best(lines, singles(2), JUDGED_BY)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("nan", [math.nan, math.inf])
def test_one_pair_that_is_no_number_leaves_no_p_value(nan):
    assert paired_p_value([1.0, 2.0, nan], [0.0, 0.5, 0.0]) is None
    assert paired_p_value([1.0, 2.0, 0.0], [0.0, 0.5, nan]) is None


def test_small_differences_are_no_rounding_where_the_values_are_small():
    scale = 1e-9
    found = paired_p_value([1 * scale, 4 * scale, 2 * scale], [0.0, 1 * scale, 1 * scale])
    assert found == pytest.approx(stats.ttest_1samp([1.0, 3.0, 1.0], 0).pvalue)
    # Of these the largest value and not the smallest says what rounding is.
    assert paired_p_value([1e6 + 1e-8, 1e-3], [1e6, 1e-3]) is None


def test_every_seed_is_a_candidate_against_its_own_baseline():
    base = singles(2)
    base["a"][1] = result(25.0, 0.0, 1, tasks=("a",))  # seed 1: half as good alone
    lines = [Trained("s", "split", [result(60.0, 20.0, 0), result(50.0, 20.0, 1)])]
    best = choose_best(lines, base, JUDGED_BY)
    assert (best.seed, best.validation_delta_m) == (1, pytest.approx(50.0))


@pytest.mark.parametrize(
    ("values", "reference"),
    [([1.0], [2.0]), ([], []), ([1.0, 2.0], [1.0, 2.0]), ([3.0, 4.0], [1.0, 2.0])],
)
def test_there_is_no_p_value_without_pairs_or_without_spread(values, reference):
    assert paired_p_value(values, reference) is None


def test_two_pairs_have_a_p_value():
    assert paired_p_value([1.0, 2.0], [0.0, 3.0]) == pytest.approx(1.0)


@pytest.mark.parametrize("n", [2, 3, 8])
@pytest.mark.parametrize("seed", range(3))
def test_the_p_value_is_that_of_the_paired_t_test(n, seed):
    draw = random.Random(seed)
    values, reference = ([draw.gauss(0, 1) for _ in range(n)] for _ in range(2))
    differences = [a - b for a, b in zip(values, reference, strict=True)]
    t = statistics.fmean(differences) / (statistics.stdev(differences) / math.sqrt(n))
    expected = 2 * stats.t.sf(abs(t), df=n - 1)
    found = paired_p_value(values, reference)
    assert found == pytest.approx(expected)
    assert found == pytest.approx(stats.ttest_rel(values, reference).pvalue)
    assert paired_p_value(reference, values) == pytest.approx(found), "two-sided"
    assert paired_p_value([v + 7 for v in values], [v + 7 for v in reference]) == pytest.approx(
        found
    )


@pytest.mark.filterwarnings("ignore:Precision loss")
@pytest.mark.parametrize(
    ("values", "reference"), [([0.3, 0.6], [0.1, 0.4]), ([1.3, 2.6, 3.0], [1.1, 2.4, 2.8])]
)
def test_differences_that_are_equal_up_to_rounding_have_no_p_value(values, reference):
    assert len({a - b for a, b in zip(values, reference, strict=True)}) > 1
    assert paired_p_value(values, reference) is None


@pytest.mark.parametrize(("difference", "p_value"), [(-2.0, math.nan), (math.nan, math.nan)])
def test_what_is_not_a_number_decides_nothing(difference, p_value):
    assert row("x", "control", difference, p_value).outcome == "level"


def make_comparison():
    lines = [
        line("joint", "joint", (50.0, 20.0), (52.0, 20.0)),
        line("s", "split", (60.0, 20.0), (61.0, 10.0)),
    ]
    rows = make_rows(lines, singles(2), JUDGED_BY)
    best = choose_best(lines, singles(2), JUDGED_BY)
    single = {"a": {"accuracy": [50.0, 50.0]}, "b": {"error": [20.0, 20.0]}}
    return Comparison(
        [0, 1],
        -0.1,
        JUDGED_BY,
        single,
        20,
        rows,
        verdict(rows),
        best,
        "careful",
        {"a": {"accuracy": "%"}},
    )


def test_a_comparison_is_read_as_it_was_written(tmp_path):
    comparison = make_comparison()
    comparison.save(tmp_path / "c.json")
    assert Comparison.load(tmp_path / "c.json") == comparison


def test_a_comparison_of_the_first_format_is_read(tmp_path):
    old = {
        "format": "recon-search/comparison/1",
        "seeds": [0],
        "threshold": 0.0,
        "single": {"a": [90.0]},
        "single_parameters": 5,
        "rows": [
            {
                "name": "joint, split",
                "role": "split",
                "accuracy": {"a": [91.0]},
                "delta_m": [1.1],
                "n_parameters": 3,
                "flops": 4,
                "conflicts": None,
                "minus_split": None,
                "p_value": None,
            }
        ],
        "verdict": "v",
        "best": {"label": "joint, split", "seed": 0, "validation_delta_m": 1.0, "directory": "d"},
    }
    (tmp_path / "c.json").write_text(json.dumps(old))
    found = Comparison.load(tmp_path / "c.json")
    assert found.single == {"a": {"accuracy": [90.0]}}
    assert found.rows[0].metrics == {"a": {"accuracy": [91.0]}}
    assert (found.rows[0].role, found.rows[0].method, found.best.name) == (
        "split",
        "joint",
        "joint, split",
    )
    assert found.directions == {"a": {"accuracy": 1}}

    for role, method in (("joint", "joint"), ("control", ""), ("rule", "")):
        old["rows"][0]["role"] = role
        (tmp_path / "c.json").write_text(json.dumps(old))
        assert Comparison.load(tmp_path / "c.json").rows[0].method == method


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "must have format"),
        ({"rows": [{}]}, "`rows.0.name` is missing"),
        ({"rows": None}, "`rows` breaks a rule: .* got None"),
        ({"best": {}}, "`best.name` is missing"),
        ({"extra": 1}, "`extra` is no key"),
        ({"seeds": [0, 1, 2, 3, 4, 5, 6]}, "a value for each of its 7 seeds"),
    ],
)
def test_a_comparison_with_other_content_is_one_line(tmp_path, change, message):
    make_comparison().save(tmp_path / "c.json")
    values = json.loads((tmp_path / "c.json").read_text()) | change
    artefact.write_json(tmp_path / "c.json", values)
    with pytest.raises(ArtefactError, match=message):
        Comparison.load(tmp_path / "c.json")
