"""The list of runs: whatever lies below a folder."""

import io
import json

import pytest
from rich.console import Console

from recon_search import artefact
from recon_search.runs.comparison import Comparison
from recon_search.views.board import entry_table, find_entries
from recon_search.views.doctor import examine
from recon_search.views.trials import write_summary
from tests.command import call
from tests.views.report.fakes import fake_run

SUMMARY = {"study": "s", "tally": "3 complete", "best": "best +1.00 %", "ended": "", "trials": []}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs, a search that was not judged, a damaged run, and what is none."""
    top = tmp_path_factory.mktemp("runs")
    for name in ("low", "deep/high", "broken"):
        (top / name).mkdir(parents=True)
        fake_run(top / name, 2)
    comparison = Comparison.load(top / "deep/high/comparison.json")
    for row in comparison.rows:
        if row.role == "split":
            row.delta_m[:] = [value + 10 for value in row.delta_m]
    comparison.save(top / "deep/high/comparison.json")
    begun = "2026-01-02T03:04:05+00:00"
    origin = {"command": "", "begun": begun, "device": "cpu", "environment": examine()}
    artefact.write_json(top / "low/origin.json", origin)
    text = (top / "broken/comparison.json").read_text()
    (top / "broken/comparison.json").write_text(text.replace('"verdict"', '"verdikt"'))
    (top / "searched").mkdir()
    (top / "searched/recipe.json").write_bytes((top / "low/recipe.json").read_bytes())
    write_summary(SUMMARY, top / "searched/search.json")
    (top / "notes").mkdir()
    (top / "notes/recipe.json").write_text("mine")
    return top


def test_the_best_comes_first_and_what_was_not_judged_last(runs):
    entries, faults = find_entries(runs)
    assert [(entry.folder, entry.kind) for entry in entries] == [
        ("deep/high", "run"),
        ("low", "run"),
        ("searched", "search"),
    ]
    high, low, searched = entries
    assert high.delta_m == pytest.approx(low.delta_m + 10)
    assert high.deviation == pytest.approx(low.deviation)
    assert low.begun.startswith("2026-01-02")
    assert (low.data, low.backbone, low.layers, low.seeds) == ("multi-digits", "resnet18", 3, 3)
    assert (low.parameters, low.flops) == pytest.approx((1.4, 1.9))
    comparison = Comparison.load(runs / "low/comparison.json")
    joint, split = comparison.rows[:2]
    pairs = zip(split.delta_m, joint.delta_m, strict=True)
    assert low.over_joint == pytest.approx(sum(a - b for a, b in pairs) / 3)
    assert low.interval[0] < low.over_joint < low.interval[1]
    assert searched.delta_m is None
    (fault,) = faults
    assert fault.startswith(f"{runs / 'broken'} was left out: ")
    assert "\n" not in fault


@pytest.mark.parametrize("width", [80, 120, 160])
def test_the_table_has_every_run_at_every_width(runs, width):
    console = Console(width=width, file=io.StringIO())
    console.print(entry_table(find_entries(runs)[0], runs, width))
    shown = console.file.getvalue()
    for text in ("high", "low", "searched", "1.40x"):
        assert text in shown
    assert all(len(line) <= width for line in shown.splitlines())


def test_the_command_prints_the_rows_and_names_what_is_damaged(runs):
    done = call("ls", "runs", runs, "--json", cwd=runs)
    assert done.code == 0
    rows = json.loads(done.output)
    assert [row["folder"] for row in rows] == ["deep/high", "low", "searched"]
    (line,) = done.error.splitlines()
    assert line.startswith("Warning: ")
    assert "low" in call("ls", "runs", runs / "low", cwd=runs).output


def test_a_folder_without_runs_says_how_to_make_one(tmp_path):
    (tmp_path / "runs").mkdir()
    done = call("ls", "runs", cwd=tmp_path)
    assert done.code == 0
    assert "recon-search run quickstart" in done.output
    missing = call("ls", "runs", "nowhere", cwd=tmp_path)
    assert missing.code == 2
    assert missing.error.startswith("error: nowhere must be read")


def test_before_any_run_there_is_none_to_list(tmp_path):
    assert "Make one" in call("ls", "runs", cwd=tmp_path).output
    assert call("ls", "runs", "elsewhere", cwd=tmp_path).code == 2
