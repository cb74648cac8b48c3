"""What tables say of spread and of trust."""

import io
import math

import pytest
import torch
from rich.console import Console
from rich.text import Text

from recon_search.conflict.reliability import Reliability
from recon_search.conflict.rules import Reading
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import RecipeError
from recon_search.runs.comparison import Best, Comparison, Row
from recon_search.runs.paired import Difference
from recon_search.views.ranking import (
    describe_reliability,
    ranking_rows,
    ranking_summary,
    ranking_table,
)
from recon_search.views.tables import comparison_table, full_width


def cells(n_seeds):
    """The rows of a comparison of two networks."""

    def row(name, role, accuracy, delta_m, minus_split):
        metrics = {"a": {"accuracy": accuracy[:n_seeds], "loss": [0.1] * n_seeds}}
        values = delta_m[:n_seeds]
        return Row(name, role, "joint", metrics, values, 10, 10, None, minus_split, values)

    difference = Difference(-3.0, 0.5)
    if n_seeds > 1:
        difference = Difference(-3.0, 0.5, (-4.0, -2.0), 0.02, 0.04, 3.0)
    rows = [
        row("joint", "joint", [90.0, 92.0], [-1.0, -3.0], difference),
        row("split", "split", [90.0, 92.0], [1.0, 1.0], None),
    ]
    single = {"a": {"accuracy": [91.0, 93.0][:n_seeds]}}
    table = comparison_table(
        Comparison(
            seeds=list(range(n_seeds)),
            threshold=0.0,
            directions={"a": {"accuracy": 1}},
            single=single,
            single_parameters=20,
            rows=rows,
            verdict="",
            best=Best("split", 0, 1.0, ""),
        )
    )
    return table.title, [list(column.cells) for column in table.columns]


def test_every_mean_has_its_spread_beside_it():
    title, columns = cells(2)
    assert title == "Test data, mean ± standard deviation over 2 seeds"
    assert columns[1] == ["92.00 ± 1.41", "91.00 ± 1.41", "91.00 ± 1.41"]
    assert columns[2] == ["0", "-2.00 ± 1.41", "+1.00 ± 0.00"]
    assert columns[3] == ["", "-3.00 [-4.00, -2.00]", ""]
    assert columns[4] == ["", "0.040", ""]
    assert columns[5] == ["", "-2.00 ± 1.41", "+1.00 ± 0.00"]


@pytest.mark.parametrize("average", ["per-task", "flat"])
def test_both_averages_are_shown_where_they_differ(average):
    """Of a one metric is 10 % better, of b two are 10 % worse."""
    metrics = {"a": {"x": [11.0]}, "b": {"y": [9.0], "z": [1.1]}}
    directions = {"a": {"x": 1}, "b": {"y": 1, "z": -1}}
    single = {"a": {"x": [10.0]}, "b": {"y": [10.0], "z": [1.0]}}
    values = {"per-task": 0.0, "flat": -10 / 3}
    row = Row("split", "split", "joint", metrics, [values[average]], 10, 10, None, None)
    best = Best("split", 0, 1.0, "")
    table = comparison_table(
        Comparison([0], 0.0, directions, single, 20, [row], "", best, average=average)
    )
    shown = {column.header: list(column.cells) for column in table.columns[4:6]}
    found = {"per-task": "+0.00", "flat": "-3.33"}
    order = sorted(found, key=lambda each: each != average)
    assert list(shown) == [f"delta_m\n{each}, %" for each in order]
    assert [own[1].replace("-0.00", "+0.00") for own in shown.values()] == [found[o] for o in order]


def test_one_seed_has_no_spread():
    title, columns = cells(1)
    assert title == "Test data, one seed"
    assert columns[2] == ["0", "-1.00", "+1.00"]
    assert columns[3] == ["", "-3.00", ""]


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


def measured(n_tasks, absent=None):
    """Scores of one layer per kind of name; two tasks may never meet."""
    tasks = [f"task-{index}" for index in range(n_tasks)]
    names = ["conv1", "stages.3.blocks.11.attn.qkv"]
    scores = ConflictScores(names, tasks)
    for step in range(4):
        gramians = torch.eye(n_tasks).repeat(2, 1, 1)
        gramians[:, 0, 1] = gramians[:, 1, 0] = -0.5
        left_out = absent[step % 2] if absent else None
        here = [task for task in tasks if task != left_out]
        scores.update(gramians, at=step / 4, present=here)
    return scores


def printed(scores, rule="projection", width=110):
    console = Console(width=width, file=io.StringIO())
    console.print(ranking_table(scores, rule, Reading(), 1))
    return console.file.getvalue()


@pytest.mark.parametrize("n_tasks", [2, 6, 40])
def test_a_ranking_is_readable_however_many_tasks_there_are(n_tasks):
    scores = measured(n_tasks)
    table = ranking_table(scores, "projection", Reading(), 1)
    assert len(table.columns) == (7 if n_tasks == 2 else 6)
    text = printed(scores)
    assert "stages.3.blocks.11.attn.qkv" in text
    assert "Not measured" not in text
    assert max(map(len, text.splitlines())) <= 110


@pytest.mark.parametrize(("n_tasks", "width"), [(2, 80), (4, 80), (4, 60), (40, 80), (40, 55)])
def test_a_ranking_leaves_out_what_a_narrow_terminal_has_no_room_for(n_tasks, width):
    table = ranking_table(measured(n_tasks), "projection", Reading(), 1, width)
    assert full_width(table) <= width
    headings = [column.header for column in table.columns]
    assert {"#", "layer", "projection"} <= set(headings)
    assert ("parameters" in headings) == (width >= 80)


@pytest.mark.parametrize("n_tasks", [3, 40])
def test_pairs_that_never_met_are_named(n_tasks):
    scores = measured(n_tasks, absent=["task-0", "task-1"])
    text = " ".join(printed(scores, "first-k").split())
    assert "the two never had a loss in the same step: task-0-task-1." in text
    rows = ranking_rows(scores, "first-k", Reading())
    assert rows[0]["conflicts"]["task-0-task-1"] is None
    assert rows[0]["conflicts"]["task-0-task-2"] == 0
    summary = ranking_summary(scores, "first-k", Reading(), 1)
    assert summary["steps"]["task-0-task-1"] == 0
    with pytest.raises(RecipeError, match="'task-0' and 'task-1' never had a loss"):
        printed(scores)


def test_few_of_many_pairs_that_never_met_are_named():
    scores = ConflictScores(["conv1"], [f"t{index}" for index in range(40)])
    scores.update(torch.eye(40)[None], present=["t0", "t1", "t2"])
    text = " ".join(printed(scores, "first-k").split())
    assert "t0-t3, t0-t4, t0-t5, t0-t6, t0-t7, t0-t8 and 771 more." in text


def test_a_pair_says_its_own_steps_where_they_differ():
    scores = measured(3, absent=["task-0", "nobody"])
    text = printed(scores, "first-k")
    assert text.count("of 2") == 2
    assert "of 4" not in text


def test_scores_without_a_step_show_controls_alone():
    scores = ConflictScores(["conv1", "bn1"], ["a", "b"])
    assert [row["conflicts"] for row in ranking_rows(scores, "first-k", Reading())] == [
        {"a-b": None}
    ] * 2
    with pytest.raises(RecipeError, match="needs measured steps"):
        ranking_rows(scores, "projection", Reading())


@pytest.mark.parametrize(
    ("units", "headings"),
    [
        ({"age": {"mae": "[years]", "r2": ""}}, ["age\nmae [years]", "age\nr2"]),
        ({"age": {"mae": "%"}}, ["age\nmae %", "age\nr2"]),
        ({}, ["age\nmae", "age\nr2"]),
    ],
)
def test_every_metric_is_shown_in_its_unit(units, headings):
    metrics = {"age": {"mae": [3.0], "r2": [0.5]}}
    rows = [Row("s", "split", "joint", metrics, [1.0], 10, 10, None, None)]
    best = Best("s", 0, 1.0, "")
    judged_by = {"age": {"mae": -1, "r2": 1}}
    table = comparison_table(
        Comparison([0], 0.0, judged_by, metrics, 20, rows, "", best, units=units)
    )
    shown = [Text.from_markup(column.header).plain for column in table.columns[1:3]]
    assert shown == headings


def test_a_comparison_that_knows_no_units_is_of_accuracies():
    comparison = Comparison([0], 0.0, {"a": {"accuracy": 1}}, {}, 20, [], "", Best("s", 0, 1.0, ""))
    assert comparison.unit("a", "accuracy") == "%"


NAMES = ("[/red]", "[bold]y[/bold]", "a{0}[b]", "\\[x]")


def test_layers_and_tasks_are_shown_on_a_terminal_as_they_are():
    scores = ConflictScores(NAMES, NAMES[:2], {"layer_infos": [
        {"name": name, "type": f"T{name}", "n_parameters": 1, "is_norm": False} for name in NAMES
    ]})  # fmt: skip
    scores.update(torch.eye(2).expand(len(NAMES), 2, 2))
    console = Console(force_terminal=True, width=200, file=io.StringIO(), color_system=None)
    console.print(ranking_table(scores, "count", Reading(0.0, (0.0, 1.0)), 1))
    shown = console.file.getvalue()
    for name in NAMES:
        assert f" {name} " in shown
        assert f"T{name}" in shown
    assert f"{NAMES[0]}-{NAMES[1]}" in shown
