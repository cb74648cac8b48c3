"""One thread a test process, for small tensors gain nothing from more; and a small model.

What tests write lives in memory where there is room: every artefact is forced to the disk before it
counts, which takes a third of the tests' time on a slow one.
"""

import functools
import os
import shutil

import pytest
import torch

from recon_search.data.registry import find_source
from recon_search.graph.split import Split
from recon_search.model.network import build_model
from recon_search.recipe import BackboneConfig, DataConfig, HeadConfig, TrainConfig
from recon_search.tasks.classes import Classes
from tests.command import call
from tests.methods.gradients import randomise

BACKBONE = BackboneConfig(name="resnet18", args={"channels": [4, 4, 8, 8]}, features=6)
HEAD = HeadConfig(activation="relu")


def pairs(canvas=12):
    """A feed of small pairs of digits.

    With 12 pixels the last blocks of a ResNet see one pixel, which the convolutions of bfloat16 by
    3x3 and with stride 2 of torch 2.14 get wrong on a CPU with AMX; 20 leave two.
    """
    config = DataConfig(name="multi-digits", train=96, validation=32, test=32, canvas=canvas)
    return find_source(config).open(torch.device("cpu"))


@pytest.fixture(scope="session")
def data():
    """A feed of small pairs of digits."""
    return pairs()


@pytest.fixture
def make_model():
    """Build a small float64 model for T tasks with some layers split, and change its weights."""

    def make(split_layers=(), n_tasks=2, groups=None, seed=0, init="copy", as_built=False):
        tasks = tuple("abc"[:n_tasks])
        partition = groups or tuple((task,) for task in tasks)
        split = Split(tasks, dict.fromkeys(split_layers, partition))
        classes = [Classes(task, 5) for task in tasks]
        model = build_model(
            BACKBONE, HEAD, classes, shape=(1,), split=split, init=init, seed=seed
        ).double()
        return model if as_built else randomise(model)

    return make


@pytest.fixture
def invoke(tmp_path):
    """Run a command in this process, in an empty folder (see `call`)."""
    return functools.partial(call, cwd=tmp_path)


@pytest.fixture
def train_config():
    return TrainConfig(epochs=2, batch_size=32, lr=0.05)


MEMORY = "/dev/shm"

if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 4 * 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)

pytest.register_assert_rewrite("tests.tasks.contract", "tests.data.contract")
torch.set_num_threads(1)
