"""The example of data of one's own runs as it is printed, shortened."""

from pathlib import Path

from recon_search.artefact import read_json

RECIPES = Path(__file__).parents[2] / "recipes"
SHORT = {
    "data.args": "{ n_train = 96, n_validation = 32 }",
    "train.epochs": 1,
    "train.warmup_epochs": 0,
    "probe.epochs": 1,
    "probe.every": 1,
    "compare.seeds": 1,
    "compare.controls": "[]",
}


def test_the_example_of_data_of_ones_own_runs(invoke, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(RECIPES)
    short = [part for key, value in SHORT.items() for part in ("--set", f"{key}={value}")]
    recipe = RECIPES / "own-data.toml"
    done = invoke("run", recipe, "--out", "out", "--device", "cpu", "--workers", 1, *short)
    assert done.code == 0, done.error
    assert "Images are kept in memory" in done.output
    config = read_json(tmp_path / "out/model/config.json", "model")
    assert [task["kind"] for task in config["tasks"]] == ["classes", "values"]
    assert config["tasks"][1]["weight"] == 0.5
    assert config["input"]["shape"] == [1, 16, 16]
    assert config["input"]["resize"] == "crop"
