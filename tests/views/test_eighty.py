"""Tables in a terminal of 80 columns, and in wider ones: nothing is cut off."""

from pathlib import Path

import pytest
from rich.console import Console

from recon_search.views.board import Entry, entry_table
from recon_search.views.keys import key_rows, key_table
from recon_search.views.methods import method_table
from recon_search.views.trials import read_summary, trial_table
from tests.views.report.fakes import fake_search

WIDTHS = (80, 100, 120, 190)
ENTRY = Entry(
    *("long/name-of-a-run", "run", "judged", "multi-fashion-mnist", "resnet18", "joint"),
    *("2026-01-01", -10.25, 11.5, -10.0, (-12.5, 10.75), 1.99, 1.01, 3, 5),
)  # fmt: skip


def printed(table, width):
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    out = tmp_path_factory.mktemp("search")
    fake_search(out)
    return read_summary(out / "search.json")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["trials", "runs", "methods", "keys"])
def test_no_table_is_cut(name, width, trials):
    make = {
        "trials": lambda: trial_table(trials, width),
        "runs": lambda: entry_table([ENTRY], Path("runs"), width),
        "methods": lambda: method_table(width),
        "keys": lambda: key_table(key_rows("search")),
    }[name]
    text = printed(make(), width)
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())
    assert set(text.split()) >= {word for word in printed(make(), 400).split() if word.isalpha()}


def test_a_wider_terminal_has_no_fewer_columns(trials):
    heads = [len(trial_table(trials, width).columns) for width in WIDTHS]
    assert heads == sorted(heads)
    assert heads[0] < heads[-1] == 9
