"""Documents say what result files say: no number of theirs is typed."""

import json

import pytest

from tests.benchmarks.evidence import BLOCK, DOCUMENTS, RESULTS, ROOT, filled, rows_of, table_of

FOUND = [name for name in DOCUMENTS if (ROOT / name).is_file()]


@pytest.mark.parametrize("name", FOUND)
def test_tables_are_those_of_the_result_files(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert filled(text) == text, "python -m tests.benchmarks.evidence tables"
    assert text.count("<!-- result: ") == len(BLOCK.findall(text)), "every block has its end"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_a_result_says_how_it_came_about_and_is_shown(path):
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["command"].startswith(("recon-search ", "python -m tests.benchmarks."))
    assert all(result[name] for name in ("commit", "machine", "versions", "trainings"))
    if result.get("kind") != "search":
        rows = rows_of(result)
        assert all(len(row.delta_m) == len(result["seeds"]) for row in rows)
        assert all(row.name in table_of(result) for row in rows)
    shown = "".join((ROOT / name).read_text(encoding="utf-8") for name in FOUND)
    assert f"<!-- result: {path.stem} -->" in shown
