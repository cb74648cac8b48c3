"""Plots of a comparison: a line for each rule, between joint training and separate networks."""

import math
import re
import statistics
from dataclasses import replace

import pytest

from recon_search.runs.comparison import Price, Row, by_rule
from recon_search.runs.paired import mean_of
from recon_search.views.report.answer import networks, prices
from recon_search.views.report.comparing import comparison_grid
from recon_search.views.report.costs import cost_grid, cost_plot
from tests.views.report.test_answer import comparison


def rule_row(name, flops, delta_m):
    return Row(name, "rule", "joint", {}, list(delta_m), 1000 * flops, 2000 * flops, None, None)


ROWS = [
    rule_row("rule count, 3 layers", 1.4, (-3.0, -4.0, -5.0)),
    rule_row("rule count, 1.2x FLOPs", 1.2, (-5.0, -5.5, -6.0)),
    rule_row("rule mass, 3 layers", 1.3, (-3.0, -3.5, -4.0)),
]


@pytest.fixture
def made():
    plain = comparison((-1.0, -2.0, -1.5))
    return replace(plain, rows=[*plain.rows, *ROWS])


def test_rules_of_several_rows_have_lines(made):
    assert {rule: [row.name for row in own] for rule, own in by_rule(made.rows).items()} == {
        "count": [ROWS[0].name, ROWS[1].name]
    }


def points(svg, kind):
    found = re.findall(rf'<(?:polyline|polygon) points="([^"]+)" class="{kind} ', svg)
    return [[tuple(map(float, pair.split(","))) for pair in each.split()] for each in found]


@pytest.mark.parametrize("cost", ["flops", "parameters"])
def test_a_rules_line_goes_from_joint_training_to_separate_networks(made, cost):
    svg = str(cost_plot(made, cost))
    (line,), (band,) = points(svg, "line"), points(svg, "band")
    (chord,) = re.findall(r'<polyline points="([^"]+)" class="chord"', svg)
    ends = [tuple(map(float, pair.split(","))) for pair in chord.split()]
    assert [line[0], line[-1]] == ends
    assert len(line) == 4, "both ends and two budgets"
    assert [x for x, _ in line] == sorted(x for x, _ in line)
    upper, lower = band[:4], band[:3:-1]
    for (x, y), (_, top), (_, bottom), row in zip(
        line, upper, lower, [made.rows[0], ROWS[1], ROWS[0], None], strict=True
    ):
        assert top <= y <= bottom
        width = 0.0 if row is None else statistics.stdev(row.delta_m)
        assert (bottom - top > 0) is (width > 0), x
    assert "<title>rule count</title>" in svg


def test_without_budgets_there_is_no_line(made):
    assert not points(str(cost_plot(replace(made, rows=made.rows[:3]), "flops")), "line")


def test_what_one_seed_does_not_have_has_no_column():
    several = comparison([1.0, -1.0, 0.3], control=([-3.0, -3.0, -3.0], 1.0, 0.01))
    several, one = (
        replace(each, directions={}) for each in (several, comparison([1.0], joint=[-5.0]))
    )
    grid = comparison_grid(one)
    assert grid.caption == "Test data, one seed"
    lacking = set(comparison_grid(several).headings) - set(grid.headings)
    assert lacking == {"delta_m, %\n(95 %)", "minus the split,\npaired (95 %)", "p"}
    assert all(len(line.cells) == len(grid.headings) for line in grid.lines)


def test_a_network_above_the_line_gives_more_for_its_cost_than_separate_networks_do(made):
    """The slopes tell the same as the heights do, on every row that costs more than joint."""
    priced = replace(made, rows=make_rows_with_prices(made))
    grid = cost_grid(priced)
    assert all(len(line.cells) == len(grid.headings) for line in grid.lines)
    place = grid.headings.index("points by\nadded FLOPs")
    slopes = [float(line.cells[place] or "nan") for line in grid.lines]
    *own, end = slopes
    told = 0
    for row, slope in zip(networks(priced), own, strict=True):
        above = row.prices["FLOPs"].above
        if above is None or math.isnan(slope) or abs(above.mean) < 0.1:
            continue
        assert (slope > end) is (above.mean > 0), row.name
        told += 1
    assert told >= 3


def make_rows_with_prices(found):
    """Rows with the heights above the line that a comparison works out."""
    dear = prices(found)
    ends = {"FLOPs": dear.single_flops, "parameters": dear.single_parameters}
    base = found.rows[0]
    rows = []
    for row in found.rows:
        paid = {
            "FLOPs": row.flops / base.flops,
            "parameters": row.n_parameters / base.n_parameters,
        }
        above = {
            name: [
                value - joint * (ends[name] - ratio) / (ends[name] - 1)
                for value, joint in zip(row.delta_m, base.delta_m, strict=True)
            ]
            for name, ratio in paid.items()
        }
        priced = {name: Price(paid[name], mean_of(above[name])) for name in paid}
        rows.append(replace(row, prices=priced))
    return rows


def test_a_cell_is_empty_where_nothing_is_added(made):
    (first, *_), grid = made.rows, cost_grid(made)
    slope = grid.headings.index("points by\nadded FLOPs")
    assert (grid.lines[0].cells[1], grid.lines[0].cells[slope]) == (first.name, "")
    assert not any("above line" in heading for heading in grid.headings), "of earlier versions"
