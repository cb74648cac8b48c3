"""Writers of curves hear epochs, and what is missing is said before anything is trained."""

import importlib.util
import pickle
import sys
import types

import pytest

from recon_search.errors import RecipeError
from recon_search.runs.listener import Listeners
from recon_search.runs.writers import WRITERS, TrackerLog, check_writers
from tests.command import call
from tests.stages.recipes import TINY

RECORDS = [
    {"epoch": 1, "lr": 0.1, "train": {"a": 2.0}, "validation": {"a": {"accuracy": 50.0}}},
    {"epoch": 2, "lr": 0.05, "train": {"a": 1.0}, "validation": {"a": {"accuracy": 75.0}}},
]
NAME = "joint, split/[odd], seed 0"


def hear(log):
    """Let a log hear two trainings that are under way at once."""
    with log.over("compare", 2):
        for record in RECORDS:
            log.epoch(NAME, record)
            log.epoch("other, seed 1", record)
        log.finish(NAME, 1.0)


def test_tensorboard_reads_every_number_of_every_training(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    hear(WRITERS["tensorboard"](tmp_path))
    folders = sorted((tmp_path / "tensorboard").iterdir())
    assert [folder.name for folder in folders] == [
        "joint, split__odd_, seed 0",
        "other, seed 1",
    ]
    for folder in folders:
        board = EventAccumulator(str(folder))
        board.Reload()
        assert set(board.Tags()["scalars"]) == {"lr", "train/a", "validation/a/accuracy"}
        points = board.Scalars("validation/a/accuracy")
        assert [(point.step, point.value) for point in points] == [(1, 50.0), (2, 75.0)]


def test_a_search_in_other_processes_writes_beside_what_is_written(tmp_path):
    """As workers get it: pickled, of all listeners the part that goes along."""
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    here = WRITERS["tensorboard"](tmp_path)
    here.epoch("probe", RECORDS[0])
    every = Listeners([TrackerLog("wandb", tmp_path), here])
    hear(pickle.loads(pickle.dumps(every.apart("search"))))
    here.end()
    folders = {folder.name: folder for folder in (tmp_path / "tensorboard").iterdir()}
    assert set(folders) == {"probe", "joint, split__odd_, seed 0", "other, seed 1"}
    for name, steps in (("probe", [1]), ("other, seed 1", [1, 2])):
        board = EventAccumulator(str(folders[name]))
        board.Reload()
        assert [point.step for point in board.Scalars("lr")] == steps


@pytest.mark.parametrize("package", ["trackio", "wandb"])
def test_trackers_get_one_run_with_a_name_a_training(tmp_path, monkeypatch, package):
    begun, logged, ended = [], [], []
    run = types.SimpleNamespace(log=logged.append, finish=lambda: ended.append(True))
    fake = types.SimpleNamespace(init=lambda **options: begun.append(options) or run)
    monkeypatch.setitem(sys.modules, package, fake)
    hear(WRITERS[package](tmp_path / "run"))
    assert begun == [{"project": "recon-search", "name": "run"}]
    assert len(logged) == 4
    assert logged[2] == {
        f"{NAME}/lr": 0.05,
        f"{NAME}/train/a": 1.0,
        f"{NAME}/validation/a/accuracy": 75.0,
    }
    assert ended == [True]


def test_wandb_takes_what_it_is_given(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    hear(TrackerLog("wandb", tmp_path / "run"))
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_a_writer_that_is_missing_is_one_line_before_anything_is_written(tmp_path, monkeypatch):
    (tmp_path / "small.toml").write_text(TINY)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    done = call("train", "small.toml", "--log", "tensorboard", "--out", "out", cwd=tmp_path)
    assert done.code == 2
    assert done.error == (
        "error: --log tensorboard needs the package tensorboard, which is not installed. Run: pip "
        "install 'recon-search[tensorboard]'\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_writer_that_nobody_knows_is_told_by_near_names():
    with pytest.raises(RecipeError, match=r"got 'tensorbord'\. Did you mean 'tensorboard'\?"):
        check_writers(["tensorbord"])
