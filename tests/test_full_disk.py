"""Whatever a command writes: the disk may refuse any of it, and nothing is lost or left.

A command that is refused says so in one line; every file is the old one or the new one, whole; and
the same command afterwards ends with the same bytes as one that nothing has disturbed.
"""

import errno
import itertools
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.command import call
from tests.refusals import Refusals, check_line, files
from tests.stages.recipes import TINY
from tests.stages.test_predict_maps import save_model

SMALL = TINY.replace("train = 128", "train = 64").partition("[compare]")[0]
SMALL = SMALL.replace("epochs = 2", "epochs = 1").replace("k = 3", "k = 1")
SMALL += """
[compare]
seeds = 1
controls = []
methods = ["joint"]
[search]
trials = 2
pruner = "none"
[search.space]
"split.k" = { low = 1, high = 4 }
"""
OLD = b"written before"
ERRORS = errno.EROFS, errno.ENOSPC
TOLD = {
    errno.EROFS: "Read-only file system. Change who may use it, or choose another place.",
    errno.ENOSPC: "No space left on device. Free some, or choose another place.",
}
GIVEN = "small.toml", "in.pth", "model", "images", "done"

ONCE = {
    "split": ("split", "small.toml", "--scores", "done/scores.safetensors", "--out", "s.json"),
    "split --show": ("split", "--show", "done/split.json", "--out", "s.svg"),
    "rank": ("rank", "done", "--window", 0, 1),
    "rank --plot": ("rank", "done", "--window", 0, 1, "--plot", "new/r.png"),
    "export timm": ("export", "done/model", "--task", "left"),
    "export safetensors": ("export", "done/model", "--format", "safetensors", "--out", "new/m"),
    "export one task": (
        *("export", "done/model", "--format", "safetensors", "--task", "left"),
        *("--out", "m.safetensors"),
    ),
    "convert": ("convert", "in.pth", "out.safetensors"),
    "init": ("init", "own-data", "--out", "new/my.toml"),
    "init --force": ("init", "own-data", "--out", "new/my.toml", "--force"),
    "data": ("data", "small.toml"),
    "predict": (
        *("predict", "model", "images", "--out", "new/said.csv", "--paint"),
        *("--grid", "g.png", "--device", "cpu"),
    ),
    "predict to lines": ("predict", "model", "images", "--out", "s.jsonl", "--device", "cpu"),
    "predict to Parquet": ("predict", "model", "images", "--out", "s.parquet", "--device", "cpu"),
    "report": ("report", "done"),
    "export onnx": ("export", "done/model", "--format", "onnx"),
    "export program": ("export", "done/model", "--format", "torch-export", "--task", "left"),
}
FAST = "split", "rank", "export timm", "export safetensors", "convert", "init", "predict", "report"
"""Tried by default: one for each way of writing."""
NOTHING = {
    "validate": ("validate", "small.toml"),
    "plan": ("plan", "small.toml", "--device", "cpu", "--workers", 1),
    "evaluate": ("evaluate", "done/model", "small.toml", "--device", "cpu"),
    "ls runs": ("ls", "runs", "."),
    "rank --json": ("rank", "done", "--window", 0, 1, "--json"),
    "data --json": ("data", "small.toml", "--json"),
    "split --show": ("split", "--show", "done/split.json", "--json"),
}
FREE = {"report.html", "model.pt2", "model.onnx", "left.pt2"}
"""Files that tell the time, or whose writers draw names at random: they may differ each time."""

RUN = ("--device", "cpu", "--workers", 1)
LONG = {
    "run": ("run", "small.toml", *RUN),
    "probe": ("probe", "small.toml", *RUN),
    "train": ("train", "small.toml", *RUN),
    "compare": (
        *("compare", "small.toml", "--split", "done/split.json"),
        *("--scores", "done/scores.safetensors", *RUN),
    ),
    "ablate": (
        *("ablate", "small.toml", "--layers", 1, "--seeds", 1),
        *("--scores", "done/scores.safetensors", *RUN),
    ),
}
WHEN = [0, 3, 8, 15, 31, 60]
"""Deeds at which a longer command is refused, by default: one after another, each time resumed."""


def slowly(commands, fast):
    """Names of commands, by marker but for the fast ones."""
    return [
        name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in commands
    ]


pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with all that commands read, and a run that nothing has disturbed."""
    folder = tmp_path_factory.mktemp("disk")
    (folder / "small.toml").write_text(SMALL)
    torch.save({"weight": torch.arange(5000.0)}, folder / "in.pth")
    save_model(folder / "model")
    (folder / "images").mkdir()
    for index in range(2):
        Image.new("RGB", (40, 32), (index, 9, 200)).save(folder / f"images/{index}.png")
    done = call("run", "small.toml", "--out", "done", *RUN, cwd=folder)
    assert done.code == 0, done.error
    for name in ("report.html", "conflicts.png"):  # are to be written
        (folder / "done" / name).unlink(missing_ok=True)
    return folder


def copied(place, folder):
    """Make a folder with all that commands read."""
    folder.mkdir()
    for name in GIVEN:
        copy = shutil.copytree if (place / name).is_dir() else shutil.copyfile
        copy(place / name, folder / name)
    return folder


def changed(folder, given):
    """What a command has written into a folder, by name."""
    return {name: content for name, content in files(folder).items() if given.get(name) != content}


def check_refused(folder, given, new):
    """Make sure that every file is the old one or the new one."""
    found = files(folder)
    assert found.keys() <= given.keys() | new.keys()
    for name, content in found.items():
        is_free = os.path.basename(name) in FREE
        assert content in (given.get(name), new.get(name)) or (is_free and len(content) > 100), name


@pytest.fixture
def known(place, tmp_path):
    """Run a command where nothing disturbs it; returns what it has written, and where to go on."""

    def run(words, *, is_new=False):
        whole = copied(place, tmp_path / "whole")
        given = files(whole)
        done = call(*words, cwd=whole)
        assert done.code == 0, done.error
        new = changed(whole, given)
        again = copied(place, tmp_path / "again")
        for name in () if is_new else new:  # the last good ones
            (again / name).parent.mkdir(parents=True, exist_ok=True)
            (again / name).write_bytes(OLD)
        return new, again, files(again)

    return run


def refuse_each(words, new, again, given, numbers):
    """Refuse a deed, then another one, then none."""
    for number in numbers:
        error = ERRORS[number % 2]
        with Refusals(again, number, error) as refusals:
            done = call(*words, cwd=again)
        if not refusals.refused:
            break
        check_line(done, TOLD[error])
        check_refused(again, given, new)
    else:
        done = call(*words, cwd=again)
    assert done.code == 0, done.error
    found = changed(again, given)
    assert found.keys() == new.keys()
    assert all(found[name] == new[name] for name in new if os.path.basename(name) not in FREE)


@pytest.mark.parametrize("command", FAST)
def test_a_command_that_is_refused_a_deed_leaves_old_or_new_files(known, command):
    """The first one, as where a folder may only be read, and one after something is written."""
    words = ONCE[command]
    new, again, given = known(words, is_new=command == "init")
    assert new
    refuse_each(words, new, again, given, [1, 4])


@pytest.mark.slow
@pytest.mark.parametrize("command", ONCE)
def test_a_command_that_is_refused_any_deed_leaves_old_or_new_files(known, command):
    words = ONCE[command]
    new, again, given = known(words, is_new=command == "init")
    refuse_each(words, new, again, given, itertools.count())


@pytest.mark.parametrize("command", slowly(NOTHING, set(NOTHING) - {"plan"}))
def test_what_only_looks_writes_nothing(place, command):
    with Refusals(place, 0) as refusals:
        done = call(*NOTHING[command], cwd=place)
    assert done.code == 0, done.error
    assert refusals.seen == []


def in_a_child(work):
    """Do something in a copy of this process, whose limits and rights cannot be had back."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


BOTH = ONCE | {"search": ("search", "small.toml", "--scores", "done/scores.safetensors", *RUN)}
BOTH |= {f"{name} anew": words for name, words in LONG.items()}


LIMITED = "split", "convert", "predict to Parquet", "search", "run anew"
"""Tried by default."""


@pytest.mark.parametrize("command", slowly(BOTH, LIMITED))
def test_a_limit_on_the_size_of_files_ends_a_write_in_its_middle(place, tmp_path, command):
    """Really refused by the system, whoever writes."""
    again = copied(place, tmp_path / "again")
    given = files(again)

    def limited():
        sys.dont_write_bytecode = True  # Python would leave halves of it for later processes
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
        done = call(*BOTH[command], cwd=again)
        check_line(done, ".")
        assert any(text in done.error for text in ("File too large", "disk I/O error")), done.error

    in_a_child(limited)
    found = files(again)
    lost = {name for name in given if found.get(name) != given[name]}
    assert not lost
    assert all(len(found[name]) <= 200 for name in found.keys() - given.keys())


def lasting(folder):
    """Bytes by name of the files that tell no time, but for what is written to go on from."""
    return {
        name: content
        for name, content in files(folder).items()
        if name.endswith((".safetensors", "split.json", "config.json", "recipe.json"))
        and not Path(name).name.startswith("checkpoint")
    }


def resume_each(words, again, numbers, expected):
    """Refuse one deed of a command, then one of the same that goes on, and so forth."""
    for number in numbers:
        error = ERRORS[number % 2]
        with Refusals(again, number, error) as refusals:
            done = call(*words, "--resume", cwd=again)
        if not refusals.refused:
            break
        check_line(done, TOLD[error])
        found = lasting(again)
        assert found.items() <= expected.items()
    else:
        done = call(*words, "--resume", cwd=again)
    assert done.code == 0, done.error
    assert lasting(again) == expected
    assert not list(again.rglob("checkpoint*"))
    for path in again.rglob("*.jsonl"):
        assert all(line.endswith("}") for line in path.read_text().splitlines()), path


def long_command(place, tmp_path, command):
    """Return a command's words, where to be refused, and what it writes where nothing refuses."""
    words = (*LONG[command], "--out", "out")
    whole, again = (copied(place, tmp_path / name) for name in ("whole", "again"))
    if command == "run":
        shutil.copytree(place / "done", whole / "out")
    else:
        done = call(*words, cwd=whole)
        assert done.code == 0, done.error
    return words, again, lasting(whole)


@pytest.mark.parametrize("command", ["run"])
def test_a_longer_command_goes_on_after_every_refusal(place, tmp_path, command):
    words, again, expected = long_command(place, tmp_path, command)
    resume_each(words, again, WHEN, expected)


@pytest.mark.slow
@pytest.mark.parametrize("command", LONG)
def test_a_longer_command_goes_on_after_a_refusal_of_each_deed(place, tmp_path, command):
    words, again, expected = long_command(place, tmp_path, command)
    resume_each(words, again, itertools.count(), expected)


@pytest.fixture
def disk(tmp_path):
    """A disk of its own, and what sets its size in kilobytes."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def set_size(kilobytes):
        how = "remount," * os.path.ismount(folder) + f"size={kilobytes}k"
        words = ["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(folder)]
        if subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("nobody else may make disks here")
        return folder

    yield set_size
    if os.path.ismount(folder):
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def outcome(folder):
    """Bytes of every training's model: which a search trains depends on the time they take."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.glob("out/trainings/*/model/model.safetensors")
    }


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "search"])
def test_a_small_disk_that_grows_ends_with_the_same_bytes(place, tmp_path, disk, command):
    given = ("--scores", "done/scores.safetensors", "--set", "search.retries=99")
    given = given if command == "search" else ()
    words = (command, "small.toml", *given, "--device", "cpu", "--workers", 2, "--out")
    whole = copied(place, tmp_path / "whole")
    assert call(*words, "out", cwd=whole).code == 0
    resumed, n_refused = ["--resume"] if command == "run" else [], 0
    for size in itertools.count(8, 64):
        out = disk(size) / "out"
        done = call(*words, out, *resumed, cwd=place)
        if done.code == 0:
            break
        n_refused += 1
        assert done.code == 2
        (line,) = [line for line in done.error.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in done.error
        assert any(text in line for text in ("No space left", "disk is full")), line
    assert n_refused > 4
    if command == "run":
        assert outcome(out.parent) == outcome(whole)
    assert not [path for path in out.rglob(".*") if path.name != ".lock"]
