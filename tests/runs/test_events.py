"""`events.jsonl` holds what was heard, line by line, whatever became of the run."""

import json
import os
import pickle
import signal

import optuna
import pytest

from recon_search.disk import FileError
from recon_search.runs.events import EventLog
from recon_search.runs.listener import Listener, Listeners
from recon_search.training.step import Stepper
from tests.command import call
from tests.stages.recipes import TINY

SMALL = TINY.replace("train = 128", "train = 64")


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def told(path):
    """The events without their times."""
    return [(each["event"], each.get("stage"), each.get("epoch")) for each in read(path)]


@pytest.fixture
def log(tmp_path):
    return EventLog(tmp_path / "events.jsonl")


def test_every_line_is_an_object_of_its_stage(tmp_path, log):
    with log.over("compare", 2):
        log.start("one")
        log.epoch("one", {"epoch": 1, "train": {"a": float("inf")}, "seconds": 2.0})
        log.finish("one", 2.5)
    log.say("Warning: [b]odd[/b]\nname ✓")
    begin, epoch, done, end, said = read(tmp_path / "events.jsonl")
    assert (begin["event"], begin["stage"], begin["trainings"]) == ("begin", "compare", 2)
    assert (epoch["training"], epoch["epoch"], epoch["train"]) == ("one", 1, {"a": None})
    assert (done["event"], done["seconds"]) == ("done", 2.5)
    assert (end["event"], end["stage"]) == ("end", "compare")
    assert "stage" not in said
    assert said["text"].endswith("name ✓")


def test_a_line_that_was_cut_is_left_behind_by_the_next(tmp_path, log):
    path = tmp_path / "events.jsonl"
    log.say("one")
    path.write_text(path.read_text() + '{"event": "sa')
    EventLog(path).say("two")
    first, cut, last = path.read_text().splitlines()
    assert json.loads(first)["text"] == "one"
    assert json.loads(last)["text"] == "two"
    assert cut == '{"event": "sa'


def test_each_line_is_one_write_so_that_processes_may_share_the_file(tmp_path, log, monkeypatch):
    writes, write = [], os.write
    monkeypatch.setattr(
        os, "write", lambda handle, text: writes.append(text) or write(handle, text)
    )
    other = EventLog(tmp_path / "events.jsonl")
    for number in range(3):
        log.say(f"one {number}")
        other.say(f"two {number}")
    assert b"".join(writes) == (tmp_path / "events.jsonl").read_bytes()
    assert all(line.count(b"\n") == 1 and line.endswith(b"\n") for line in writes)


def test_another_process_writes_of_the_stage_into_the_same_file(tmp_path, log):
    listener = Listeners([Listener(), log])
    with log.over("search", 2):
        apart = pickle.loads(pickle.dumps(listener.apart("search")))
        apart.epoch("trial 3", {"epoch": 1})
    assert told(tmp_path / "events.jsonl") == [
        ("begin", "search", None),
        ("epoch", "search", 1),
        ("end", "search", None),
    ]


def test_a_disk_that_refuses_is_one_line(tmp_path):
    (tmp_path / "events.jsonl").mkdir()
    with pytest.raises(FileError, match=r"events\.jsonl must be written, the system says: "):
        EventLog(tmp_path / "events.jsonl").say("text")


def test_trials_that_end_are_lines_once(tmp_path, log):
    study = optuna.create_study(direction="maximize")
    study.add_trial(optuna.trial.create_trial(value=1.0))
    with log.over("search", 3):
        log.study("s", 3, study.trials, study.directions)
        study.add_trial(optuna.trial.create_trial(value=2.0, user_attrs={"layers": ["a"]}))
        for _ in range(2):
            log.study("s", 3, study.trials, study.directions)
    (trial,) = [each for each in read(tmp_path / "events.jsonl") if each["event"] == "trial"]
    assert (trial["trial"], trial["values"], trial["layers"]) == (1, [2.0], ["a"])


def test_a_run_that_goes_on_goes_on_with_its_lines(tmp_path, monkeypatch):
    (tmp_path / "small.toml").write_text(SMALL)
    command = ("train", "small.toml", "--device", "cpu", "--workers", 1, "--out", "out")
    begin = Stepper.begin
    with monkeypatch.context() as patch:

        def strike(stepper, at):
            if at == 3:  # the last of the second epoch: none is left of it
                os.kill(os.getpid(), signal.SIGTERM)
            begin(stepper, at)

        patch.setattr(Stepper, "begin", strike)
        assert call(*command, cwd=tmp_path).code == 143
    path = tmp_path / "out/events.jsonl"
    assert told(path) == [
        ("begin", "train", None),
        ("epoch", "train", 1),
        ("end", "train", None),
    ]
    before = path.read_bytes()
    done = call(*command, "--resume", cwd=tmp_path)
    assert done.code == 0, done.error
    assert path.read_bytes().startswith(before)
    assert told(path)[3:] == [
        ("begin", "train", None),
        ("epoch", "train", 2),
        ("done", "train", None),
        ("end", "train", None),
    ]
    (metrics,) = path.parent.glob("trainings/*/metrics.jsonl")
    assert [own["validation"] for own in read(metrics)] == [
        each["validation"] for each in read(path) if each["event"] == "epoch"
    ]
    assert "seed 0, epoch 2: training loss" in done.output
    quiet = call(*command, "--resume", "--quiet", cwd=tmp_path)
    assert quiet.code == 0, quiet.error
    assert "train 1/1" in done.output
    assert "train 1/1" not in quiet.output
    assert "test accuracy" in quiet.output
    known = call(*command, "--resume", "--verbose", cwd=tmp_path)
    assert "(known" in known.output
