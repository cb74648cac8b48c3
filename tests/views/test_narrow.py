"""A comparison in a terminal of 80 columns, whatever the number of tasks."""

import io
import re

import pytest
from rich.console import Console

from recon_search.views.narrow import comparison_tables
from tests.views.report.fakes import LINES, fake_comparison, names_of


@pytest.fixture(scope="module")
def comparisons(tmp_path_factory):
    return {
        n: fake_comparison(tmp_path_factory.mktemp(f"of-{n}"), names_of(n)) for n in (2, 6, 7, 40)
    }


def printed(comparison, width):
    console = Console(width=width, file=io.StringIO())
    for table in comparison_tables(comparison, width):
        console.print(table)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 150])
@pytest.mark.parametrize("n_tasks", [2, 6, 40])
def test_no_number_is_broken_or_cut(comparisons, n_tasks, width):
    comparison = comparisons[n_tasks]
    text = printed(comparison, width)
    assert max(map(len, text.splitlines())) <= width
    for row in comparison.rows[:-1]:
        mean = sum(row.delta_m) / len(row.delta_m)
        assert re.search(rf"{re.escape(f'{mean:+.2f}')} ± \d+\.\d\d", text)
        assert f"{row.flops / comparison.rows[0].flops:.2f}x" in text
    assert {"separate", "networks"} <= set(text.split())


def test_few_metrics_stay_in_one_table_where_it_fits(comparisons):
    assert len(comparison_tables(comparisons[2], 190)) == 1
    assert len(comparison_tables(comparisons[2], 80)) == 2
    assert len(comparison_tables(comparisons[7], 1000)) == 2


def test_of_many_tasks_the_worst_and_the_best_are_shown_and_the_others_counted(comparisons):
    _, tasks = comparison_tables(comparisons[40], 150)
    names, worth = (list(tasks.columns[place].cells) for place in (0, 2))
    assert len(names) == 11
    assert names[5] == "... 30 more ..."
    values = [float(value) for value in worth if value]
    assert values == sorted(values)
    assert "30 of 40 tasks lie between. report.html has all." in tasks.caption


def test_the_split_is_shown_however_few_networks_fit(comparisons):
    _, tasks = comparison_tables(comparisons[40], 60)
    headings = [column.header for column in tasks.columns]
    place = next(n for n, line in enumerate(LINES, start=1) if line[1] == "split")
    assert str(place) in headings
    shown = len(headings) - 4
    assert f"{len(LINES) - shown} networks do not fit." in tasks.caption
