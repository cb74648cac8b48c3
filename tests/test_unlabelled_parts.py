"""A task without a label in a part that judges: said in a line, and everything else goes on."""

import json
import math

import pytest

from recon_search.artefact import read_json
from recon_search.runs.comparison import Comparison
from recon_search.stages import judge
from recon_search.stages.search import work
from tests.command import call
from tests.sources import REST, write_source

CPU = ("--device", "cpu", "--workers", 1)


def write_recipe(folder, parts):
    """Data whose task b has no label in some parts."""
    (folder / "mine.toml").write_text(f"""
seed = 0
[data]
name = "factory"
factory = "tests.data.factories:unlabelled"
args = {{ parts = {json.dumps(parts)} }}
{REST}
""")


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


@pytest.mark.parametrize("parts", [["validation"], ["test"], ["validation", "test"]], ids=" ".join)
def test_a_run_leaves_the_task_out_of_delta_m_and_says_so(invoke, tmp_path, parts):
    write_recipe(tmp_path, parts)
    seen = invoke("data", "mine.toml", "--json")
    assert seen.code == 0, seen.error
    advice = " ".join(json.loads(seen.output)["advice"])
    assert all(f"b: no label in the {part} part" in advice for part in parts)
    done = invoke("run", "mine.toml", "--out", "out", *CPU)
    assert done.code == 0, done.error
    said = Comparison.load(tmp_path / "out/comparison.json")
    assert said.warning.startswith("Warning: delta_m leaves out what is no number: ")
    for part in ("validation", "test"):
        assert (f"on {part} data accuracy of 'b'" in said.warning) == (part in parts)
    assert math.isfinite(said.best.validation_delta_m)
    assert all(math.isfinite(value) for row in said.rows for value in row.delta_m)
    assert math.isnan(said.single["b"]["accuracy"][0]) == ("test" in parts)
    assert "delta_m leaves out" in (tmp_path / "out/report.html").read_text()
    assert "delta_m leaves out" in " ".join(done.output.split())


def test_a_search_and_a_training_alone_end_too_and_json_has_null(invoke, tmp_path, monkeypatch):
    monkeypatch.setattr(judge, "search", work)
    write_recipe(tmp_path, ["validation", "test"])
    done = invoke("search", "mine.toml", "--out", "out", *CPU)
    assert done.code == 0, done.error
    trials = read_json(tmp_path / "out/search.json", "summary")["trials"]
    assert sum(trial["state"] == "complete" for trial in trials) >= 2
    assert all(math.isfinite(t["delta_m"]) for t in trials if t["state"] == "complete")
    done = invoke("train", "mine.toml", "--out", "alone", "--json", *CPU)
    result = json.loads(done.output, parse_constant=refuse)
    assert result["test"]["b"]["accuracy"] is None
    assert result["test"]["a"]["accuracy"] >= 0
    assert "kept in memory" in done.error
    assert call("report", "out", cwd=tmp_path).code == 0


def test_one_task_alone_is_refused_in_words_of_the_data(invoke, tmp_path):
    write_source("image-folder", tmp_path)
    text = (tmp_path / "mine.toml").read_text().replace("[tasks.place]\n", "")
    (tmp_path / "mine.toml").write_text(text.replace('root = "trees"', 'root = "trees/animal"'))
    code, _, error = invoke("validate", "mine.toml")
    assert code == 2
    assert "there must be two at least, the data have animal alone" in error
