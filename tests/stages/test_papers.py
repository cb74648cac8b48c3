"""Papers' data sets through the commands, from looking at them to a model that is exported."""

import json
import statistics

import pytest
from safetensors.torch import load_file

from tests.command import call
from tests.data import papers

REST = """
[train]
epochs = 2
report_epochs = 2
batch_size = 4
lr = 0.001
optimizer = "adam"
[probe]
epochs = 1
every = 1
window = [0.0, 1.0]
[split]
rule = "count"
k = 2
[compare]
seeds = 1
methods = ["joint"]
controls = ["first-k"]
"""

VECTORS = """
[backbone]
name = "test_resnet"
args = { channels = [4, 4, 8, 8] }
features = 6
"""

PIXELS = """
[backbone]
name = "resnet18"
args = { channels = [4, 4, 8, 8] }
[necks.shared]
kind = "fpn"
hidden = 8
[head]
neck = "shared"
"""

RECIPES = {
    "nyuv2": f'[data]\nname = "nyuv2"\naugment = {{ zoom = [1.0, 1.2, 1.5], flip = 0.5 }}{PIXELS}',
    "cityscapes": f"""
[data]
name = "cityscapes"
[data.augment]
zoom = [1.0, 1.5]
[tasks.depth]
zoom = "multiply"
test_batch = 1
{PIXELS}""",
    "celeba": f'[data]\nname = "celeba"\ntasks = ["Bald", "Male", "Young"]{VECTORS}',
    "chestxray14": f'[data]\nname = "chestxray14"\ntasks = ["Effusion", "Hernia"]{VECTORS}',
    "pascal-context": f"""
[data]
name = "pascal-context"
image_size = [32, 32]
resize = "stretch"
tasks = ["semseg", "parts", "saliency", "normals"]
{PIXELS}""",
}


@pytest.mark.parametrize("name", RECIPES)
def test_from_the_files_to_an_exported_model(name, tmp_path, invoke):
    papers.WRITERS[name](tmp_path / "files")
    (tmp_path / "my.toml").write_text(f"seed = 0\n{RECIPES[name]}\n{REST}")
    there = ["--data-root", "files"]
    run = [*there, "--device", "cpu", "--out"]
    looked = invoke("data", "my.toml", *there, "--json")
    assert looked.code == 0, looked.error
    found = json.loads(looked.output)
    assert sum(found["samples"].values()) == {"celeba": 12, "chestxray14": 16}.get(name, 8)
    for arguments in (
        ("probe", "my.toml", *run, "out"),
        ("split", "my.toml", *there, "--scores", "out/scores.safetensors"),
        ("train", "my.toml", *run, "new", "--split", "split.json", "--json"),
    ):
        done = invoke(*arguments)
        assert done.code == 0, done.error
    result = json.loads(done.output)
    history = (tmp_path / result["directory"] / "metrics.jsonl").read_text().splitlines()
    reported = [json.loads(line)["test"] for line in history]
    for task, metrics in result["test"].items():
        for metric, value in metrics.items():
            mean = statistics.fmean(each[task][metric] for each in reported)
            assert value == pytest.approx(mean, nan_ok=True)
    task = found["tasks"][0]["name"]
    done = invoke("export", "new/model", "--task", task, "--out", "one.safetensors")
    assert done.code == 0, done.error
    assert load_file(tmp_path / "one.safetensors")


def test_forty_tasks_from_the_start_to_the_report(tmp_path):
    """Of the tasks 28 are measured at once, and two have a single-task model."""
    papers.write_celeba(tmp_path / "files", n=24, size=(16, 16))
    (tmp_path / "my.toml").write_text(f'seed = 0\n[data]\nname = "celeba"{VECTORS}{REST}')
    keys = {
        "probe.tasks_per_step": 28,
        "probe.epochs": 2,
        "train.batch_size": 2,
        "train.epochs": 1,
        "train.report_epochs": 1,
        "compare.single": '["Bald", "Young"]',
        "compare.delta_m": "flat",
        "split.grouping": "affinity",
        "split.max_groups": 3,
        "compare.controls": "[]",
    }
    options = [text for key, value in keys.items() for text in ("--set", f"{key}={value}")]
    done = call(
        *("run", "my.toml", "--data-root", "files", "--out", "out", "--device", "cpu"),
        *("--workers", 1, *options),
        cwd=tmp_path,
    )
    assert done.code == 0, done.error
    found = json.loads((tmp_path / "out/comparison.json").read_text())
    assert found["average"] == "flat"
    assert set(found["single"]) == {"Bald", "Young"}
    assert len(json.loads((tmp_path / "out/split.json").read_text())["tasks"]) == 40
    assert "5_o_Clock_Shadow" in (tmp_path / "out/report.html").read_text(encoding="utf-8")
