"""The paper's table at a thousandth of its size: in pieces, to the end, and nothing twice."""

import itertools
import json

import pytest

from recon_search.errors import TrainingError
from recon_search.recipe import BackboneConfig
from recon_search.runs import deadline, timing
from tests.benchmarks import bench_step, table_one, table_one_recipe
from tests.benchmarks.beside import PUBLISHED
from tests.benchmarks.evidence import table_of
from tests.idx import write_item_set

TINY = {
    "data.train": 40,
    "data.validation": 16,
    "data.test": 16,
    "backbone.args": "{ channels = [4, 4, 4, 4], layers = [1, 1, 1, 1] }",
    "backbone.features": 6,
    "train.epochs": 2,
    "train.milestones": [1],
    "train.batch_size": 20,
    "train.lr": 0.01,
    "train.measure_every": 0,
    "probe.epochs": 1,
    "split.k": 2,  # of the published order these two are in so short a network
    "compare.weight_trials": 2,
}
TICKS = 62
"""Looks at the clock that a sitting has."""


@pytest.fixture
def sit(tmp_path, monkeypatch):
    """Take sittings that end after so many looks at the clock."""
    ticks = itertools.count()
    monkeypatch.setattr(deadline, "now", lambda: float(next(ticks)))
    monkeypatch.setattr(timing, "STEPS", 1)
    monkeypatch.setattr(timing, "LEAST_STEPS", 1)
    monkeypatch.setattr(table_one, "TIMED", 1.0)
    monkeypatch.setattr(table_one, "WINDOWS", 2)
    monkeypatch.setattr(table_one, "EVERY", 1)
    backbone = BackboneConfig(
        name="resnet18", args={"channels": [2, 2, 2, 2], "layers": [1, 1, 1, 1]}
    )
    workload = bench_step.Workload("tiny", backbone, ("a", "b"), (2, 1, 8, 8))
    monkeypatch.setattr(bench_step, "WORKLOADS", {"tiny": workload})
    for name in ("mnist", "fashion-mnist"):
        write_item_set(tmp_path / "data" / name)
    options = [f"--set={key}={value}" for key, value in TINY.items()]
    options += ["--data-root", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    options += ["--results", str(tmp_path / "table-one.json"), "--seeds", "1", "--workers", "1"]

    def call(*more, minutes=(TICKS + table_one.RESERVE) / 60):
        limit = ["--max-minutes", str(minutes), "--device", "cpu"]
        table_one._main(table_one.parse([*options, *limit, *more]))
        path = tmp_path / "table-one.json"
        return json.loads(path.read_text()) if path.is_file() else None

    return call


def test_the_whole_table_in_short_sittings(sit, tmp_path, capsys, monkeypatch):
    real = table_one.train_all

    def faulty(trainings, run, title):
        if any(training.name == "least conflict 2, seed 0" for training in trainings):
            error = TrainingError("Every loss must be finite.")
            error.training = "least conflict 2, seed 0"
            raise error
        return real(trainings, run, title)

    first = sit()
    assert first["left"] > 0
    assert not first["rows"], "the first sitting is cut short before a split is trained"
    assert "No row is complete yet." in table_of(first)
    shown = capsys.readouterr().out
    assert "1 more begun. The same command goes on." in shown, "cut in the midst of a training"
    assert "epochs are left. By the steps timed they take" in shown
    assert "These are estimates" in shown

    with monkeypatch.context() as patch:
        patch.setattr(table_one, "train_all", faulty)
        found = sit()
    assert found["left"] > 1
    assert "least conflict 2, seed 0 failed: Every loss must be finite." in table_of(found)
    found = sit(minutes=1000)
    assert found["left"] == 0
    names = [row["name"] for row in found["rows"]]
    for method in table_one_recipe.METHODS:
        for kind in ("unsplit", "split", table_one.IN_PUBLISHED_ORDER):
            assert f"{method}, {kind}" in names
    assert len(names) == 3 * len(table_one_recipe.METHODS) + len(table_one_recipe.CONTROLS) + 1 + 1
    assert names[-1] == "separate networks"

    folders = list(tmp_path.glob("out/trainings/*"))
    records = [(folder / "metrics.jsonl").read_bytes().count(b"\n") for folder in folders]
    assert sum(each["epochs"] for each in found["sittings"]) == sum(records), "nothing twice"
    assert sum(each["finished"] for each in found["sittings"]) == len(folders)
    assert len(found["sittings"]) == 3

    table = table_of(found)
    published = json.loads((PUBLISHED / "recon-table-one.json").read_text())
    made = {name: of for name, of in published["rows"].items() if name in names}
    assert set(published["rows"]) - set(made) == {"BMTAS", "MMoE", "MMoE with Recon"}
    for name, of in made.items():
        numbers = " / ".join("" if number is None else f"{number:.2f}" for number in of)
        (line,) = (
            line
            for line in table.splitlines()
            if line.strip("| *").startswith(f"{name} ")
            or line.strip("| ").startswith(f"**{name}**")
        )
        assert f"| {numbers} |" in line
    assert published["source"] in table
    assert "| `bench_step`, tiny | ms |" in table
    assert "| unsplit, joint |" in table
    assert "0 trainings are left" in table

    capsys.readouterr()
    assert sit("--list") == found, "nothing is written"
    assert "Nothing is left to train." in capsys.readouterr().out


def test_a_mistake_is_one_line(tmp_path, monkeypatch):
    arguments = ["table_one", "--data-root", str(tmp_path), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", [*arguments, "--device", "cpu"])
    with pytest.raises(SystemExit, match="error: mnist needs the file train-labels-idx1-ubyte"):
        table_one.main()
    assert not (tmp_path / "out").exists()
