"""Nothing is lost: a command that dies, is stopped, or meets a full disk goes on to the same bytes.

Deaths and full disks are injected at every write of a command in turn.
"""

import errno
import itertools
import os
import signal
from pathlib import Path

import pytest

from recon_search import artefact
from recon_search.training.step import Stepper
from tests.command import call
from tests.stages.pixels import SCENES
from tests.stages.recipes import TINY

SMALL = TINY.replace("train = 128", "train = 64").replace("every = 1", "every = 2")
SMALL = SMALL.partition("[compare]")[0] + "[compare]\nseeds = 1\ncontrols = []\n"
TRAIN = ("train", "small.toml", "--device", "cpu", "--workers", 1)


def contents(folder):
    """By name, the bytes of all files that do not tell the time."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".safetensors" or path.name in ("split.json", "config.json"):
            found[str(path.relative_to(folder))] = path.read_bytes()
        assert path.name != "checkpoint.safetensors"
        assert not path.name.startswith("."), f"{path} was left behind"
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a recipe and a training that nothing has disturbed."""
    folder = tmp_path_factory.mktemp("deaths")
    (folder / "small.toml").write_text(SMALL)
    done = call(*TRAIN, "--out", "whole", cwd=folder)
    assert done.code == 0, done.error
    return folder


class Writes:
    """Counts the files that are written below a folder, and lets something happen at one."""

    def __init__(self, folder, number=None, happens=None):
        self.folder, self.number, self.happens = folder, number, happens
        self.seen = []

    def __enter__(self):
        self._patch = pytest.MonkeyPatch()
        fsync = os.fsync

        def hear(handle):
            path = Path(os.readlink(f"/proc/self/fd/{handle}"))
            if path.is_relative_to(self.folder.resolve()):
                self.seen.append(path)
                if len(self.seen) - 1 == self.number:
                    self.happens()
            fsync(handle)

        self._patch.setattr(artefact.os, "fsync", hear)
        return self

    def __exit__(self, *_):
        self._patch.undo()


def count(command, folder, out):
    """Number of files that a command writes."""
    with Writes(folder / out) as writes:
        done = call(*command, "--out", out, cwd=folder)
    assert done.code == 0, done.error
    return len(writes.seen)


def fill():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def in_a_child(command, folder, out, number):
    """Run a command in a copy of this process that dies at a write; returns how it ended."""
    child = os.fork()
    if child == 0:
        try:
            with Writes(folder / out, number, die):
                call(*command, "--out", out, cwd=folder)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_a_training_killed_at_any_write_or_with_a_full_disk_there_goes_on_to_the_same_bytes(place):
    n_writes = count(TRAIN, place, "counted")
    assert n_writes > 8
    expected = contents(place / "whole")
    assert contents(place / "counted") == expected, "the same twice"
    for number in range(n_writes):
        out = f"dead{number}"
        assert in_a_child(TRAIN, place, out, number) == -signal.SIGKILL
        left = list((place / out).rglob(".*"))
        assert left, "nobody could clean up"
        with Writes(place / out, number=1, happens=fill):  # and then the disk is full
            full = call(*TRAIN, "--out", out, "--resume", cwd=place)
        assert full.code == 2
        (line,) = full.error.splitlines()
        assert line.startswith(f"error: {out}")
        assert line.endswith("No space left on device. Free some, or choose another place.")
        artefact._sweep_once.cache_clear()  # as in a process of its own
        done = call(*TRAIN, "--out", out, "--resume", cwd=place)
        assert done.code == 0, done.error
        assert contents(place / out) == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("steps", [(0,), (1, 2)])
def test_a_signal_ends_the_step_and_the_same_command_goes_on_to_the_same_bytes(
    place, monkeypatch, number, steps
):
    out, begin, taken = f"stopped{number}-{len(steps)}", Stepper.begin, []
    for step in steps:

        def strike(stepper, at, step=step):
            taken.append(at)
            if at == step:
                os.kill(os.getpid(), number)
            begin(stepper, at)

        monkeypatch.setattr(Stepper, "begin", strike)
        resumed = ["--resume"] if step != steps[0] else []
        done = call(*TRAIN, "--out", out, *resumed, cwd=place)
        assert done.code == 128 + number
        assert done.error == (
            f"Interrupted by {signal.Signals(number).name}: train: 0 of 1 trainings are done, 1 "
            "more begun. Go on with --resume.\n"
        )
        assert not (place / out / "model").exists()
    assert call(*TRAIN, "--out", out, "--resume", cwd=place).code == 0
    assert taken == list(range(len(taken))), "no step is taken twice"
    assert contents(place / out) == contents(place / "whole")
    whole, stopped = (
        [
            line.partition(', "seconds"')[0]
            for path in sorted((place / name).rglob("metrics.jsonl"))
            for line in path.read_text().splitlines()
        ]
        for name in ("whole", out)
    )
    assert stopped == whole


@pytest.mark.parametrize("method", ["dwa", "uw", "rotograd", "random", "graddrop"])
def test_what_methods_remember_of_an_epoch_survives_a_signal(place, monkeypatch, method):
    command = (*TRAIN, "--method", method, "--set", "train.ema=0.9", "--set", "train.accumulate=2")
    known = call(*command, "--out", f"whole-{method}", cwd=place)
    assert known.code == 0, known.error
    begin = Stepper.begin
    with monkeypatch.context() as patch:

        def strike(stepper, at):
            if at == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            begin(stepper, at)

        patch.setattr(Stepper, "begin", strike)
        assert call(*command, "--out", f"stopped-{method}", cwd=place).code == 143
    assert call(*command, "--out", f"stopped-{method}", "--resume", cwd=place).code == 0
    assert contents(place / f"stopped-{method}") == contents(place / f"whole-{method}")


def test_pixels_under_many_options_killed_in_mid_epoch_go_on_to_the_same_bytes(tmp_path):
    (tmp_path / "small.toml").write_text(SCENES)
    options = {
        "epochs": 2,
        "batch_size": 4,
        "accumulate": 2,
        "clip_grad": 1.0,
        "patience": 2,
        "ema": 0.9,
        "layer_decay": 0.8,
        "grad_checkpointing": "true",
        "freeze": '["layer1.*"]',
    }
    sets = [word for key, value in options.items() for word in ("--set", f"train.{key}={value}")]
    command = (*TRAIN, "--method", "pcgrad", *sets, "--out")
    done = call(*command, "whole", cwd=tmp_path)
    assert done.code == 0, done.error
    child = os.fork()
    if child == 0:
        begin = Stepper.begin

        def strike(stepper, at):
            if at == 3:  # the second of the second epoch
                die()
            begin(stepper, at)

        Stepper.begin = strike
        try:
            call(*command, "dead", cwd=tmp_path)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert list((tmp_path / "dead").rglob("checkpoint.safetensors"))
    artefact._sweep_once.cache_clear()  # as in a process of its own
    done = call(*command, "dead", "--resume", cwd=tmp_path)
    assert done.code == 0, done.error
    assert contents(tmp_path / "dead") == contents(tmp_path / "whole")


def test_a_record_an_epoch_short_is_written_anew_from_the_checkpoint(place, monkeypatch):
    """A kill between the checkpoint and its copy leaves the copy behind."""
    out, writes = "short", itertools.count()
    write = artefact.write_text

    def stop(path, text):
        if Path(path).name == "metrics.jsonl" and next(writes) == 1:
            raise KeyboardInterrupt
        write(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(artefact, "write_text", stop)
        assert call(*TRAIN, "--out", out, cwd=place).code != 0
    (record,) = (place / out).rglob("metrics.jsonl")
    assert len(record.read_text().splitlines()) == 1
    assert call(*TRAIN, "--out", out, "--resume", cwd=place).code == 0
    assert len(record.read_text().splitlines()) == 2


@pytest.mark.parametrize("content", [None, "", "{", '{"epoch": 1}\n', "[]\n", '{"epoch": 2}\n'])
def test_a_record_that_is_damaged_is_one_line(tmp_path, content):
    from recon_search.errors import ArtefactError
    from recon_search.runs.result import Result

    result = Result(("a",), "joint", 0, 1, 1, {"a": {"loss": 1.0}}, 1.0, tmp_path)
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(ArtefactError, match=r"A result needs the record of .*metrics\.jsonl"):
        result.history()
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "validation": {"a": {"loss": 1.0}}}\n')
    assert len(result.history()) == 1
