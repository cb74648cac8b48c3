"""Checkpoints that are of no training are refused, and say how to go on."""

from pathlib import Path

import pytest
import torch

from recon_search import artefact
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import ArtefactError
from recon_search.training.checkpoint import (
    FORMAT,
    PLAIN,
    UNSEALED,
    WHOLE,
    check_progress,
    delete_checkpoint,
    load_checkpoint,
    restore_random_state,
    save_checkpoint,
)

STATE = {"a": [1, (2.5, None)], "t": torch.ones(2), "d": torch.float16, 3: {"nan": float("nan")}}


def records(n):
    return [{"epoch": k, "train": {}, "validation": {}} for k in range(1, n + 1)]


def measured(n_steps, n_tasks=2):
    """Packed sums of some steps without conflict."""
    scores = ConflictScores(["stem", "block"], [f"task {k}" for k in range(n_tasks)])
    for _ in range(n_steps):
        scores.update(torch.eye(n_tasks).expand(2, n_tasks, n_tasks))
    return scores.state()


def same(found, expected):
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) for name in found
    )


def test_state_is_read_as_it_was_written(tmp_path):
    save_checkpoint(tmp_path / "c", STATE)
    assert repr(load_checkpoint(tmp_path / "c")) == repr(STATE)


@pytest.mark.parametrize("kind", [WHOLE, PLAIN, UNSEALED])
def test_former_checkpoints_are_read_with_their_sums(tmp_path, kind):
    save_checkpoint(tmp_path / "c", {"state": {**STATE, "scores": measured(1)}})
    tensors, metadata = artefact.read_tensors(tmp_path / "c", "checkpoint", FORMAT)
    _, whole = metadata["skeleton"]["dict"][0]
    artefact.write_tensors(tmp_path / "c", tensors, {"format": kind, "skeleton": whole})
    found = load_checkpoint(tmp_path / "c")
    assert same(found.pop("scores"), measured(1))
    assert repr(found) == repr(STATE)


def test_sums_stand_beside_the_checkpoint_which_does_not_grow_with_the_pairs(tmp_path):
    sizes = []
    for n_tasks in (2, 40):
        path = tmp_path / f"{n_tasks}.safetensors"
        save_checkpoint(path, {**STATE, "scores": measured(1, n_tasks)})
        assert same(load_checkpoint(path)["scores"], measured(1, n_tasks))
        sizes.append(path.stat().st_size)
    assert sizes[0] == sizes[1]
    assert len(list(tmp_path.iterdir())) == 4


def test_of_sums_only_those_stay_that_the_checkpoint_speaks_of(tmp_path):
    other = tmp_path / "other-sums-0123456789abcdef.safetensors"
    other.touch()
    for n_steps in (1, 2, 2):
        save_checkpoint(tmp_path / "c.safetensors", {**STATE, "scores": measured(n_steps)})
        assert same(load_checkpoint(tmp_path / "c.safetensors")["scores"], measured(n_steps))
        assert len(list(tmp_path.glob("c-sums-*"))) == 1
    delete_checkpoint(tmp_path / "c.safetensors")
    delete_checkpoint(tmp_path / "c.safetensors")
    assert list(tmp_path.iterdir()) == [other]


def test_a_death_while_a_checkpoint_is_deleted_leaves_it_to_be_found(tmp_path, monkeypatch):
    path, unlink = tmp_path / "c.safetensors", Path.unlink
    save_checkpoint(path, {**STATE, "scores": measured(1)})

    def die(self, **options):
        unlink(self, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", die)
        with pytest.raises(KeyboardInterrupt):
            delete_checkpoint(path)
    assert list(tmp_path.iterdir()) == [path]
    delete_checkpoint(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dies_at", [0, 1])
def test_a_death_between_sums_and_checkpoint_leaves_the_last_pair(tmp_path, monkeypatch, dies_at):
    path, writes = tmp_path / "c.safetensors", []
    save_checkpoint(path, {**STATE, "scores": measured(1)})
    write = artefact.write_tensors

    def die(*arguments):
        writes.append(arguments)
        if len(writes) > dies_at:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(artefact, "write_tensors", die)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, {**STATE, "scores": measured(2)})
    assert same(load_checkpoint(path)["scores"], measured(1))


def test_sums_that_are_gone_or_of_others_are_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {**STATE, "scores": measured(1)})
    (sums,) = tmp_path.glob("c-sums-*")
    save_checkpoint(tmp_path / "d.safetensors", {**STATE, "scores": measured(2)})
    (others,) = tmp_path.glob("d-sums-*")
    others.replace(sums)
    with pytest.raises(ArtefactError, match=r"holds other sums.*Delete the file"):
        load_checkpoint(path)
    sums.unlink()
    with pytest.raises(ArtefactError, match=r"found no file at .*-sums-.*Delete the file"):
        load_checkpoint(path)
    artefact.write_tensors(path, {}, {"format": FORMAT, "skeleton": {"dict": []}, "sums": "../c"})
    with pytest.raises(ArtefactError, match=r"its sums are named '\.\./c'"):
        load_checkpoint(path)


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
