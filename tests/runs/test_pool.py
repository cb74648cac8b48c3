"""How many train at once, and which of them an error is of."""

import pytest
import torch

from recon_search import parallel
from recon_search.errors import TrainingError
from recon_search.recipe import load_recipe
from recon_search.runs import pool
from recon_search.runs.pool import n_workers, train_all
from recon_search.runs.run import Run
from recon_search.stages.probe import probe_training
from tests.stages.recipes import TINY


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY)
    return load_recipe(tmp_path / "tiny.toml")


@pytest.mark.parametrize(
    ("device", "asked", "expected"),
    [("cpu", None, 8), ("cpu", 3, 3), ("cuda", None, 1), ("cuda", 6, 6)],
)
def test_a_gpu_is_shared_where_that_is_asked_for(device, asked, expected, recipe, monkeypatch):
    monkeypatch.setattr(pool.os, "cpu_count", lambda: 8)
    run = Run(recipe, "nowhere", torch.device(device), asked)
    assert n_workers(run) == expected
    monkeypatch.setattr(parallel, "size", lambda: 2)
    assert n_workers(run) == 1, "a group of processes works on one training at a time"


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_error_says_of_which_training_it_is(workers, recipe, tmp_path, monkeypatch):
    """Also one that comes from another process."""
    sound, faulty = (probe_training(Run(recipe, tmp_path), seed) for seed in (0, 1))
    config = faulty.train.model_copy(update={"lr": 1e30})
    faulty = type(faulty)(faulty.tasks, None, config, faulty.backbone, 1, "too fast", test=False)
    run = Run(recipe, tmp_path / "out", workers=workers)
    with pytest.raises(TrainingError, match="must") as caught:
        train_all([sound, faulty], run, "both")
    assert caught.value.training == "too fast, seed 1"
