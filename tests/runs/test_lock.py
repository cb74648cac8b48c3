"""One process at a time works in a folder; the lock of a dead one is taken over."""

import errno
import io
import json
import os
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import pytest

from recon_search import owners
from recon_search.errors import BusyError, FileError
from recon_search.recipe import parse_recipe
from recon_search.runs import lock
from recon_search.runs import trainer as trainings
from recon_search.runs.lock import held
from recon_search.runs.result import Result
from recon_search.runs.run import Run
from recon_search.runs.trainer import train
from recon_search.runs.training import Training
from recon_search.training.checkpoint import write_history
from tests.stages.recipes import TINY

HOLD = """
import sys, time
from pathlib import Path
from recon_search.runs.lock import held
with held(Path(sys.argv[1]), "train"):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(folder):
    """Hold a folder in another process."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    return process


def end(process, *, by_force):
    if by_force:
        process.kill()
    else:
        process.stdin.close()
    process.wait()
    process.stdout.close()
    if by_force:
        process.stdin.close()


def leave(folder, **changes):
    """Leave a lock behind, as a process of this machine that is gone unless something else."""
    gone = owners.owner().rpartition(":")[0] + ":999999999"
    about = {"owner": gone, "host": "h", "pid": 1, "since": "then", "work": "run", "mark": "m"}
    (folder / lock.FILE).write_text(json.dumps({**about, **changes}))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lock, "POLL", 0.01)
    monkeypatch.setattr(lock, "SETTLE", 0.01)


def test_a_second_process_is_told_who_works_there(tmp_path):
    process = hold(tmp_path)
    with pytest.raises(BusyError, match=rf"process {process.pid} on .* \(train, since 20.*--out"):
        held(tmp_path, "run").__enter__()
    end(process, by_force=False)
    assert not list(tmp_path.iterdir())
    with held(tmp_path, "run"):
        assert json.loads((tmp_path / lock.FILE).read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_the_lock_of_a_process_that_was_killed_is_taken_over_at_once(tmp_path):
    end(hold(tmp_path), by_force=True)
    assert (tmp_path / lock.FILE).exists()
    with held(tmp_path, "run"):
        pass
    assert not list(tmp_path.iterdir())


def test_who_waits_gets_it_when_it_is_let_go(tmp_path):
    waited = []
    process = hold(tmp_path)

    def wait(other):
        waited.append(other)
        if len(waited) == 3:
            end(process, by_force=False)

    with held(tmp_path, "train", wait):
        pass
    assert len(waited) >= 3
    assert f"process {process.pid}" in waited[0]


def test_another_machines_lock_is_stale_without_signs_of_life(tmp_path):
    leave(tmp_path, owner="elsewhere:1")
    with pytest.raises(BusyError, match="process 1 on h "):
        held(tmp_path, "run").__enter__()
    old = time.time() - lock.STALE - 5
    os.utime(tmp_path / lock.FILE, (old, old))
    with held(tmp_path, "run"):
        pass


def test_signs_of_life_are_given(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with held(tmp_path, "run"):
        os.utime(tmp_path / lock.FILE, (1, 1))
        ends = time.monotonic() + 20
        while (tmp_path / lock.FILE).stat().st_mtime < 2:
            assert time.monotonic() < ends
            time.sleep(0.01)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"owner": 3}', '{"owner": "x"}', "[" * 100_000, "9" * 5000]
)
def test_a_lock_that_says_nothing_counts_by_its_age(tmp_path, content):
    (tmp_path / lock.FILE).write_text(content)
    with pytest.raises(BusyError, match="works there"):
        held(tmp_path, "run").__enter__()
    os.utime(tmp_path / lock.FILE, (1, 1))
    with held(tmp_path, "run"):
        pass


@pytest.mark.parametrize("links", [True, False])
def test_of_many_at_once_one_works(tmp_path, monkeypatch, links):
    """On file systems without hard links too, and where a dead one's lock is there to take."""
    if not links:

        def refuse(*_):
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(lock.os, "link", refuse)
    monkeypatch.setattr(lock, "SETTLE", 0.2)
    leave(tmp_path)
    inside, most = [], []

    def work():
        with held(tmp_path, "run", lambda other: None):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 6


def test_who_was_taken_over_leaves_the_others_lock(tmp_path):
    with held(tmp_path, "run"):
        leave(tmp_path, mark="another")
    assert json.loads((tmp_path / lock.FILE).read_text())["mark"] == "another"


def test_a_folder_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="must be written, the system says"):
        held(tmp_path / "file/out", "run").__enter__()


def test_a_second_command_in_a_folder_is_refused_in_one_line(tmp_path, invoke):
    (tmp_path / "tiny.toml").write_text(TINY)
    process = hold(tmp_path / "out")
    for command in ("run", "probe", "train"):
        done = invoke(command, "tiny.toml", "--out", "out", "--device", "cpu")
        assert done.code == 2
        (line,) = done.error.splitlines()
        rule = "error: out must be worked in by one process at a time"
        assert line.startswith(f"{rule}, process {process.pid}")
    end(process, by_force=True)
    assert os.listdir(tmp_path / "out") == [lock.FILE], "nothing was written"


def test_who_finds_a_training_under_way_waits_and_takes_its_result(tmp_path, monkeypatch):
    """As two workers of a search in one folder, or a search and a run's leftover worker."""
    recipe = parse_recipe(tomllib.loads(TINY))
    run = Run(recipe, tmp_path)
    training = Training(run.schema.names, None, recipe.train, recipe.backbone, 0, "one", test=False)
    directory = training.directory(run)
    result = Result(training.tasks, "joint", 0, 1, 1, {"left": {"loss": 1.0}}, 1.0, directory)
    monkeypatch.setattr(trainings, "fit_training", None)  # it must not be trained again
    process = hold(directory)

    def finish():
        time.sleep(0.2)
        write_history(directory, [{"epoch": 1, "validation": result.validation}])
        result.save()
        end(process, by_force=False)

    other = threading.Thread(target=finish)
    other.start()
    heard = []
    found = train(training, run, after_epoch=heard.append)
    other.join()
    assert found.validation == result.validation
    assert [record["epoch"] for record in heard] == [1]
    assert not (directory / lock.FILE).exists()


def test_a_checkpoint_that_a_process_left_which_died_just_before_its_end_is_removed(tmp_path):
    recipe = parse_recipe(tomllib.loads(TINY))
    run = Run(recipe, tmp_path)
    training = Training(run.schema.names, None, recipe.train, recipe.backbone, 0, "one", test=False)
    directory = training.directory(run)
    write_history(directory, [])
    (directory / "checkpoint.safetensors").write_bytes(b"left")
    Result(training.tasks, "joint", 0, 1, 1, {"left": {"loss": 1.0}}, 1.0, directory).save()
    train(training, run)
    assert sorted(os.listdir(directory)) == ["metrics.csv", "metrics.jsonl", "result.json"]


def test_a_pipe_in_the_place_of_the_lock_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / lock.FILE)
    with pytest.raises(FileError, match=r"\.lock must be a regular file, it is a pipe"):
        held(tmp_path, "run").__enter__()
    assert not (tmp_path / lock.FILE).is_file()


def test_a_disk_that_fills_while_the_lock_is_written_leaves_none(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no hard links")

    class Full(io.StringIO):
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    def give(self, mode="r", *rest, **options):
        if mode != "x":
            return opened(self, mode, *rest, **options)
        self.touch(exist_ok=False)
        return Full()

    opened = Path.open
    monkeypatch.setattr(lock.os, "link", refuse)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", give)
        with pytest.raises(FileError, match="No space left"):
            held(tmp_path, "run").__enter__()
    assert os.listdir(tmp_path) == []
    with held(tmp_path, "run"):
        pass


def test_a_lock_that_is_a_link_to_nothing_keeps_nobody_out_for_ever(tmp_path):
    (tmp_path / lock.FILE).symlink_to("gone")
    os.utime(tmp_path / lock.FILE, (1, 1), follow_symlinks=False)
    with held(tmp_path, "train"):
        assert not (tmp_path / lock.FILE).is_symlink()
