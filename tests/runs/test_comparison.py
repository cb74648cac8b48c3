"""The sentence that decides: rows, p values, the verdict and the exported model, by hand."""

import json
import math
from pathlib import Path

import pytest
from scipy import stats

from recon_search import artefact
from recon_search.errors import ArtefactError, TrainingError
from recon_search.runs.comparison import Comparison, Row
from recon_search.runs.judging import Trained, choose_best, make_rows
from recon_search.runs.paired import Difference
from recon_search.runs.result import Result
from recon_search.runs.verdict import verdict

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
    found = None if difference is None else Difference(difference, 1.0, None, p_value, p_value)
    return Row(name, role, "joint", {}, [0.0], 1, 1, None, found)


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


def test_rows_are_paired_by_seed_and_signed_by_direction():
    ours = line("ours", "split", (60.0, 20.0), (50.0, 10.0), (55.0, 20.0))
    joint = line("joint", "joint", (50.0, 20.0), (50.0, 20.0), (45.0, 20.0), size=20)
    first, second, apart = make_rows([joint, ours], singles(3), JUDGED_BY)
    # (+20 % + 0) / 2, (0 + 50 %) / 2, (+10 % + 0) / 2; a lower error is better.
    assert second.delta_m == pytest.approx([10.0, 25.0, 5.0])
    assert first.delta_m == pytest.approx([0.0, 0.0, -5.0])
    differences = [-10.0, -25.0, -10.0]
    found = first.minus_split
    assert found.mean == pytest.approx(-15.0)
    assert found.deviation == pytest.approx(math.sqrt(75.0))
    t = found.mean / (found.deviation / math.sqrt(3))
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(t), df=2))
    assert found.p_value == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)
    assert found.adjusted == found.p_value, "it is alone in its role"
    assert second.minus_split is None
    assert (apart.name, apart.role, apart.delta_m) == ("separate networks", "separate", [0.0] * 3)
    assert (apart.n_parameters, apart.flops) == (20, 60)
    assert (first.role, second.role) == ("joint", "split")
    assert (first.n_parameters, first.flops) == (20, 60)
    assert first.metrics["a"]["accuracy"] == [50.0, 50.0, 45.0]

    swapped = Trained("joint", "joint", [joint.results[i] for i in (2, 1, 0)])
    other = make_rows([swapped, ours], singles(3), JUDGED_BY)[0].minus_split
    assert other.mean == pytest.approx(found.mean)
    assert other.p_value != pytest.approx(found.p_value), "seeds are pairs"


def test_the_first_split_is_the_reference_whatever_its_name_says():
    lines = [
        line("x, split", "joint", (50.0, 20.0), (51.0, 20.0)),
        line("plain", "split", (60.0, 20.0), (65.0, 20.0)),
        line("y, split", "split", (70.0, 20.0), (60.0, 20.0)),
    ]
    rows = make_rows(lines, singles(2), JUDGED_BY)
    assert [each.minus_split is None for each in rows] == [False, True, False, False]


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
    only, apart = make_rows(
        [line("s", "split", (60.0, 20.0), method="pcgrad")], singles(1), JUDGED_BY
    )
    assert (only.method, only.delta_m) == ("pcgrad", pytest.approx([10.0]))
    assert only.metrics["b"] == {"error": [20.0], "loss": [9.0]}
    assert apart.minus_split == Difference(pytest.approx(-10.0), 0.0)


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


def test_every_seed_is_a_candidate_against_its_own_baseline():
    base = singles(2)
    base["a"][1] = result(25.0, 0.0, 1, tasks=("a",))  # seed 1: half as good alone
    lines = [Trained("s", "split", [result(60.0, 20.0, 0), result(50.0, 20.0, 1)])]
    best = choose_best(lines, base, JUDGED_BY)
    assert (best.seed, best.validation_delta_m) == (1, pytest.approx(50.0))


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


def test_the_rows_of_a_role_are_a_family():
    """Holm: the smaller p value of two counts twice; joint training is a family of its own."""
    lines = [
        line("joint", "joint", (50.0, 20.0), (52.0, 20.0), (51.0, 20.0)),
        line("s", "split", (60.0, 20.0), (61.0, 20.0), (65.0, 20.0)),
        line("x", "control", (50.0, 20.0), (52.0, 20.0), (51.0, 20.0)),
        line("y", "control", (58.0, 20.0), (64.0, 20.0), (66.0, 20.0)),
    ]
    joint, _, x, y, _ = (each.minus_split for each in make_rows(lines, singles(3), JUDGED_BY))
    assert joint.adjusted == joint.p_value == pytest.approx(x.p_value)
    assert x.adjusted == pytest.approx(2 * x.p_value)
    assert y.adjusted == pytest.approx(max(y.p_value, 2 * x.p_value))


def test_a_row_that_others_repeat_is_compared_once():
    """Three rules that choose the same layers train one network: one hypothesis, not three."""
    split = line("s", "split", (60.0, 20.0), (61.0, 20.0), (65.0, 20.0))
    x, y = ((50.0, 20.0), (52.0, 20.0), (51.0, 20.0)), ((58.0, 20.0), (64.0, 20.0), (66.0, 20.0))

    def p_values(lines):
        rows = make_rows([line("joint", "joint", *x), split, *lines], singles(3), JUDGED_BY)
        return [each.minus_split.adjusted for each in rows if each.role == "rule"]

    once = p_values([line("x", "rule", *x), line("y", "rule", *y)])
    again = [line(name, "rule", *x) for name in ("same", "too")]
    same = line("the split", "rule", (60.0, 20.0), (61.0, 20.0), (65.0, 20.0))
    found = p_values([line("x", "rule", *x), *again, line("y", "rule", *y), same])
    assert found == [once[0], once[0], once[0], once[1], None]


def test_a_price_is_the_height_above_the_line_to_separate_networks():
    """Half-way in cost between joint (10) and separate (20), the line is half of joint's loss."""
    lines = [
        line("joint", "joint", (40.0, 20.0), (45.0, 20.0)),
        line("s", "split", (50.0, 20.0), (49.0, 20.0), size=15),
    ]
    joint, split, apart = make_rows(lines, singles(2), JUDGED_BY)
    assert [row.prices["FLOPs"].ratio for row in (joint, split, apart)] == [1.0, 1.5, 2.0]
    above = split.prices["parameters"].above
    # delta_m: joint -10 and -5, split 0 and -1; so the line at 1.5x is -5 and -2.5.
    assert above.mean == pytest.approx((5 + 1.5) / 2)
    assert above.interval[0] < above.mean < above.interval[1]
    assert joint.prices["FLOPs"].above == apart.prices["FLOPs"].above == Difference(0.0, 0.0)


def test_networks_of_some_tasks_alone_have_no_line():
    rows = make_rows(
        [line("s", "split", (60.0, 20.0))], {"a": singles(1)["a"]}, {"a": {"accuracy": 1}}
    )
    assert [row.role for row in rows] == ["split"]
    assert rows[0].prices["FLOPs"].above is None


def test_the_loss_is_relative_to_the_single_task_models():
    better = result(50.0, 20.0)
    better.test["a"]["loss"], better.test["b"]["loss"] = 4.5, 9.0
    row, _ = make_rows([Trained("s", "split", [better])], singles(1), JUDGED_BY)
    assert row.loss == [pytest.approx(25.0)]


def test_a_comparison_of_the_second_format_is_read(tmp_path):
    """It had no intervals; the differences are taken anew from what it holds."""
    comparison = make_comparison()
    comparison.save(tmp_path / "c.json")
    old = json.loads((tmp_path / "c.json").read_text())
    old["format"] = "recon-search/comparison/2"
    del old["digest"], old["rows"][-1]
    for each in old["rows"]:
        for name in ("loss", "prices"):
            del each[name]
        found = each["minus_split"]
        each["p_value"] = found and found["p_value"]
        each["minus_split"] = found and [found["mean"], found["deviation"]]
    (tmp_path / "c.json").write_text(json.dumps(old))
    read = Comparison.load(tmp_path / "c.json")
    assert [row.minus_split for row in read.rows] == [
        row.minus_split for row in comparison.rows[:-1]
    ]


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
