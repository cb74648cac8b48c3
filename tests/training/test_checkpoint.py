"""Checkpoints that are of no training are refused, and say how to go on."""

import pytest
import torch

from recon_search import artefact
from recon_search.errors import ArtefactError
from recon_search.training.checkpoint import (
    FORMAT,
    PLAIN,
    UNSEALED,
    check_progress,
    load_checkpoint,
    restore_random_state,
    save_checkpoint,
)

STATE = {"a": [1, (2.5, None)], "t": torch.ones(2), "d": torch.float16, 3: {"nan": float("nan")}}


def records(n):
    return [{"epoch": k, "train": {}, "validation": {}} for k in range(1, n + 1)]


def test_state_is_read_as_it_was_written(tmp_path):
    save_checkpoint(tmp_path / "c", STATE)
    assert repr(load_checkpoint(tmp_path / "c")) == repr(STATE)


@pytest.mark.parametrize("kind", [PLAIN, UNSEALED])
def test_former_checkpoints_are_read(tmp_path, kind):
    save_checkpoint(tmp_path / "c", STATE)
    tensors, metadata = artefact.read_tensors(tmp_path / "c", "checkpoint", FORMAT)
    artefact.write_tensors(tmp_path / "c", tensors, {**metadata, "format": kind})
    assert repr(load_checkpoint(tmp_path / "c")) == repr(STATE)


@pytest.mark.parametrize(
    ("epoch", "history"),
    [(10**9, []), (-1, []), (0, []), (3, records(3)), (2, records(1)), (1.0, records(1)),
     (2, records(1) * 2), (1, [None]), (1, None), (1, [{"epoch": 1}])],
)  # fmt: skip
def test_a_training_stands_where_it_can(train_config, epoch, history):
    check_progress(2, records(2), train_config)
    with pytest.raises(ValueError, match=r"its epoch must|records of|the record of epoch"):
        check_progress(epoch, history, train_config)


@pytest.mark.parametrize(
    "skeleton",
    [None, 3, [], {}, {"list": []}, {"tensor": "gone"}, {"dict": [[[], {}]]}, {"dtype": "save"},
     {"dict": [["a", {"dtype": "nn"}]]}, {"value": {"a": 1}}],
    ids=str,
)  # fmt: skip
def test_a_skeleton_of_nothing_says_how_to_go_on(tmp_path, skeleton):
    artefact.write_tensors(tmp_path / "c", {}, {"format": FORMAT, "skeleton": skeleton})
    with pytest.raises(ArtefactError, match="Delete the file, and this training begins anew"):
        load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize("here", [0, 1, 2, 3])
def test_a_checkpoint_of_several_gpus_is_taken_up_where_there_are_more_or_fewer(here, monkeypatch):
    put_back = {}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: here)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, d: put_back.update({d: state}))
    restore_random_state({"cpu": torch.get_rng_state(), "cuda": ["first", "second"]})
    assert put_back == dict(list(enumerate(["first", "second"]))[:here])
