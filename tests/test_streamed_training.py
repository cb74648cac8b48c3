"""A streamed, augmented table trains alike: after a kill in mid-epoch, and by two processes."""

import json
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from tests.command import call
from tests.sources import write_source
from tests.test_parallel import ENVIRONMENT, torchrun

TRAINED = {
    "data.cache": '"none"',
    "data.workers": 2,
    "backbone.args": '{ channels = [4, 4, 8, 8], norm_layer = "groupnorm1" }',
    "train.epochs": 3,
    "train.batch_size": 10,
    "train.method": '"pcgrad"',
    "train.ema": 0.5,
    "data.augment.color_jitter": 0.3,
    "data.augment.random_erasing": 0.3,
}
STEPS = 4
"""Updates an epoch: 40 samples."""


def command(out, *more):
    """Train on the table."""
    settings = [part for pair in TRAINED.items() for part in ("--set", "{}={}".format(*pair))]
    return ["train", "mine.toml", "--out", out, "--device", "cpu", *settings, *more]


def left_by(folder, out):
    """The model's tensors and the history, without what time it took."""
    (metrics,) = (folder / out).glob("trainings/*/metrics.jsonl")
    history = [json.loads(line) for line in metrics.read_text().splitlines()]
    for record in history:
        del record["seconds"]
    return load_file(folder / out / "model/model.safetensors"), history


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with a training without interruption."""
    folder = tmp_path_factory.mktemp("table")
    write_source("table", folder)
    done = call(*command("whole"), cwd=folder)
    assert done.code == 0, done.error
    return folder


def test_a_training_killed_in_mid_epoch_leaves_the_same_bytes(whole):
    killed = [sys.executable, "-m", "tests.killed_worker", str(STEPS + 2), *command("killed")]
    done = subprocess.run(
        killed, cwd=whole, env=ENVIRONMENT, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list((whole / "killed").glob("trainings/*/checkpoint.safetensors"))
    assert not (whole / "killed/model").exists()
    done = call(*command("killed", "--resume"), cwd=whole)
    assert done.code == 0, done.error
    names = [f"{out}/model/model.safetensors" for out in ("whole", "killed")]
    first, second = ((whole / name).read_bytes() for name in names)
    assert first == second
    assert left_by(whole, "killed")[1] == left_by(whole, "whole")[1]


def test_two_processes_train_the_model_of_one(whole):
    """In single precision: to rounding, which a few steps magnify little."""
    with torchrun("recon_search", *command("two"), cwd=whole) as running:
        running.communicate(timeout=120)
        assert running.returncode == 0, (whole / "errors").read_text()
    tensors, history = left_by(whole, "two")
    expected, one = left_by(whole, "whole")
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(tensors[name], tensor, rtol=1e-3, atol=1e-5, msg=name)
    for mine, theirs in zip(history, one, strict=True):
        assert mine["train"] == pytest.approx(theirs["train"], rel=1e-4)
