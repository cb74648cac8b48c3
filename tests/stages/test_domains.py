"""Four domains in Office-Home's layout, from the first look to the report."""

import json

import pytest
import torch

import recon_search as rs
from recon_search.conflict.scores import ConflictScores
from recon_search.runs.comparison import Comparison
from tests.command import call
from tests.data.benchmarks import write_office

DOMAINS = ["Art", "Clipart", "Product", "Real_World"]
CPU = ("--device", "cpu")
RECIPE = """
seed = 0
[data]
name = "office-home"
root = "domains"
image_size = [16, 16]
[data.augment]
flip = 0.5
[backbone]
name = "test_resnet"
args = { channels = [4, 4, 8, 8] }
features = 6
[train]
method = "pcgrad"
epochs = 1
batch_size = 8
lr = 0.01
[probe]
epochs = 2
every = 1
tasks_per_step = 3
window = [0.0, 1.0]
[split]
rule = "count"
k = 2
[compare]
seeds = 1
controls = []
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("domains")
    write_office(folder / "domains", spelt={"Real_World": "Real World"})
    (folder / "mine.toml").write_text(RECIPE)
    done = call("run", "mine.toml", "--out", "out", *CPU, "--workers", 1, cwd=folder)
    assert done.code == 0, done.error
    return folder


def told(*arguments, cwd):
    """What a command says in JSON."""
    done = call(*arguments, "--json", cwd=cwd)
    assert done.code == 0, done.error
    return json.loads(done.output)


def test_the_data_command_warns_that_no_image_is_shared(folder):
    found = told("data", "mine.toml", "--out", "sheet.png", cwd=folder)
    assert [pair["both"] for pair in found["overlaps"]] == [0] * 6
    assert [task["samples"]["train"] for task in found["tasks"]] == [12, 24, 12, 24]
    assert [task["labelled"]["train"] for task in found["tasks"]] == [12, 24, 12, 24]
    assert any("found to be noise below 30% of shared" in line for line in found["advice"])
    assert not any("label more samples for both" in line for line in found["advice"])


def test_a_run_compares_all_networks_on_every_domain(folder):
    found = Comparison.load(folder / "out/comparison.json")
    assert list(found.directions) == list(found.single) == DOMAINS
    assert (folder / "out/report.html").is_file()
    scores = ConflictScores.load(folder / "out/scores.safetensors")
    assert scores.pair_steps.sum() == 2 * 3 * 3  # 24 images in batches of 8; three pairs a step


def test_a_plan_lists_the_single_task_models_of_the_domains(folder):
    lines = told("plan", "mine.toml", *CPU, cwd=folder)["lines"]
    singles = [line["name"] for line in lines if line["role"] == "single"]
    assert singles == [f"single {domain}" for domain in DOMAINS]


def test_the_model_is_judged_by_every_domain_s_own_images(folder):
    best = Comparison.load(folder / "out/comparison.json").best
    reported = json.loads((folder / best.directory / "result.json").read_text())["test"]
    found = told("evaluate", "out/model", "mine.toml", "--part", "test", *CPU, cwd=folder)
    assert found["metrics"] == reported
    assert list(reported) == DOMAINS
    assert found["n_samples"] == 3 * (1 + 2 + 1 + 2)


def test_the_model_predicts_and_is_exported_like_any_other(folder):
    done = call("predict", "out/model", "domains/Art/Calendar", *CPU, cwd=folder)
    assert done.code == 0, done.error
    header = (folder / "predictions.csv").read_text().splitlines()[0]
    assert all(domain in header for domain in DOMAINS)
    assert call("export", "out/model", "--task", "Product", cwd=folder).code == 0
    assert (folder / "Product.safetensors").is_file()
    model = rs.load(folder / "out/model")
    assert list(model(torch.zeros(1, 3, 16, 16), tasks=["Art"])) == ["Art"]


@pytest.mark.parametrize("key", ["train.method", "probe.method"])
def test_rotograd_is_refused_before_anything_is_trained(key, folder):
    done = call("validate", "mine.toml", "--set", f"{key}=rotograd", cwd=folder)
    assert done.code == 2
    assert "Method 'rotograd' turns the tasks' gradients of one image's features" in done.error
    assert done.error.count("\n") == 1
