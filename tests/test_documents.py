"""Documents say what result files say: no number of theirs is typed."""

import json
import re

import pytest

from tests.benchmarks.evidence import BLOCK, DOCUMENTS, RESULTS, ROOT, filled, table_of
from tests.benchmarks.summaries import rows_of

FOUND = [name for name in DOCUMENTS if (ROOT / name).is_file()]


@pytest.mark.parametrize("name", FOUND)
def test_tables_are_those_of_the_result_files(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert filled(text) == text, "python -m tests.benchmarks.evidence tables"
    begun = re.findall(r"<!-- \w+: ", text)
    assert len(begun) == text.count("<!-- end -->") == len(BLOCK.findall(text))


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_a_result_says_how_it_came_about_and_is_shown(path):
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["command"].startswith(("recon-search ", "python -m tests.benchmarks."))
    assert all(result[name] for name in ("commit", "machine", "versions", "trainings"))
    if result.get("kind") != "search":
        rows = rows_of(result)
        assert all(len(row.delta_m) == len(result["seeds"]) for row in rows)
        assert all(row.name in table_of(result) for row in rows)
    blocks = [each for name in FOUND for each in BLOCK.findall((ROOT / name).read_text("utf-8"))]
    assert path.stem in {name for _, _, named, _ in blocks for name in named.split(", ")}
