"""What the disk refuses is one clear line, and what is no regular file is neither read nor written.

As root nothing is forbidden, so the system's refusals are injected where they cannot be provoked.
"""

import errno
import os
import resource
import signal
import socket
import subprocess
import sys

import pytest
import torch

from recon_search import artefact, owners
from recon_search.disk import describe, refuse_special
from recon_search.errors import FileError
from recon_search.views.map_files import map_files
from tests.stages.recipes import TINY

ERRORS = [
    (errno.ENOSPC, "No space left on device. Free some"),
    (errno.EROFS, "Read-only file system. Change who may use it"),
    (errno.EACCES, "Permission denied. Change who may use it"),
    (errno.ESTALE, "Stale file handle. Check the disk"),
    (errno.EIO, "Input/output error. Check the disk"),
]


def refuse(number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(("number", "text"), ERRORS)
@pytest.mark.parametrize("at", ["fsync", "mkstemp", "replace"])
def test_a_write_that_the_system_refuses_leaves_the_old_file_and_no_other(
    tmp_path, monkeypatch, number, text, at
):
    path = tmp_path / "value.json"
    artefact.write_json(path, 1)
    owner = {"fsync": artefact.os, "mkstemp": artefact.tempfile, "replace": artefact.Path}[at]
    monkeypatch.setattr(owner, at, refuse(number))
    with pytest.raises(FileError, match=rf"value\.json must be written, the system says: {text}"):
        artefact.write_json(path, 2)
    assert artefact.read_json(path, "value") == 1
    assert os.listdir(tmp_path) == ["value.json"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n" * 300 + ".json", "File name too long. Choose a shorter name"),
        ("file/value.json", "File exists. A file stands where a folder is needed"),
        ("file/deeper/value.json", "Not a directory. A part of its path is a file"),
        ("folder", "Is a directory. A folder has that name"),
    ],
)
def test_a_path_that_cannot_be_is_one_line(tmp_path, name, text):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match=f"must be written, the system says: {text}"):
        artefact.write_json(tmp_path / name, 1)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "mine"


def test_a_name_as_long_as_the_system_takes_is_written(tmp_path):
    path = tmp_path / ("n" * 250 + ".json")
    artefact.write_json(path, 1)
    assert artefact.read_json(path, "value") == 1


def test_a_link_is_followed_and_stays_a_link(tmp_path):
    (tmp_path / "real.json").write_text("0")
    (tmp_path / "link.json").symlink_to("real.json")
    artefact.write_json(tmp_path / "link.json", 1)
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_text() == "1\n"


def make_special(path, kind):
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(os.path.relpath(path))  # of short names alone
    else:
        path.symlink_to("/dev/full")


SPECIAL = ["a pipe", "a socket", "a device"]


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_file_is_neither_read_nor_replaced(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "value.json"
    make_special(path, kind)
    for use in (
        lambda: artefact.write_json(path, 1),
        lambda: artefact.read_json(path, "value"),
        lambda: artefact.read_tensors(path, "value"),
        lambda: refuse_special(path),
    ):
        with pytest.raises(FileError, match=f"value.json must be a regular file, it is {kind}"):
            use()
    assert not path.is_file()
    assert os.listdir(tmp_path) == ["value.json"]


COMMANDS = [
    ("run", "{}"),
    ("validate", "{}"),
    ("rank", "{}"),
    ("split", "tiny.toml", "--scores", "{}"),
    ("split", "tiny.toml", "--counts", "{}"),
    ("split", "tiny.toml", "--counts", "counts.json", "--out", "{}"),
    ("split", "--show", "{}"),
    ("train", "tiny.toml", "--split", "{}"),
    ("train", "tiny.toml", "--out", "{}"),
    ("train", "tiny.toml", "--set", "backbone.weights={}"),
    ("compare", "tiny.toml", "--split", "{}", "--scores", "{}"),
    ("search", "tiny.toml", "--scores", "{}"),
    ("probe", "tiny.toml", "--out", "{}"),
    ("export", "{}"),
    ("export", "model", "--out", "{}"),
    ("evaluate", "{}", "tiny.toml"),
    ("predict", "{}", "image.png"),
    ("predict", "model", "{}"),
    ("predict", "model", "image.png", "--out", "{}"),
    ("report", "{}"),
    ("convert", "{}", "out.safetensors"),
    ("convert", "in.pth", "{}"),
    ("init", "quickstart", "{}"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_reads_a_pipe_or_replaces_it(tmp_path, invoke, command):
    """A reader of a pipe would wait for ever."""
    (tmp_path / "tiny.toml").write_text(TINY)
    (tmp_path / "counts.json").write_text('{"bn1": 1}')
    os.mkfifo(tmp_path / "pipe.csv")
    signal.alarm(60)
    try:
        done = invoke(*(word.format("pipe.csv") for word in command))
    finally:
        signal.alarm(0)
    assert done.code == 2
    assert "Traceback" not in done.error
    assert not (tmp_path / "pipe.csv").is_file()


def test_an_error_elsewhere_in_a_command_is_one_line(tmp_path, invoke, monkeypatch):
    (tmp_path / "tiny.toml").write_text(TINY)
    (tmp_path / "file").write_text("")
    done = invoke("train", "tiny.toml", "--out", "file/deeper", "--device", "cpu")
    assert done.code == 2
    assert len(done.error.splitlines()) == 1
    assert "file" in done.error
    from recon_search.recipe import shipped

    monkeypatch.setattr(shipped, "shipped_recipes", refuse(errno.EMFILE))
    done = invoke("ls", "recipes")
    assert done.code == 2
    assert done.error == (
        "error: A file must be used, the system says: Too many open files. Raise `ulimit -n`.\n"
    )


def test_a_limit_on_the_size_of_files_is_one_line(tmp_path):
    """As on a full disk, the system ends a write in the middle."""
    path = tmp_path / "a.safetensors"
    artefact.write_tensors(path, {}, {"old": 1})
    before = path.read_bytes()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # a limit that was lowered stays so
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
            artefact.write_tensors(path, {"a": torch.zeros(5000)}, {})
        except FileError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as said:
        assert "File too large. Raise the limit on the size of files" in said.read()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.safetensors"]


@pytest.mark.parametrize("name", ["value.json", "a@b-1.json", "no ending", ".hidden", "x" * 240])
def test_what_a_dead_process_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path, name):
    machine = owners.token().rpartition("-")[0]
    living = artefact.temporary_prefix(tmp_path / name) + "abc_1234.json"
    dead = living.replace(owners.token(), f"{machine}-999999999")
    elsewhere = living.replace(owners.token(), "00000000-7")
    old = elsewhere.replace("abc_1234", "abc_1235")
    mine = [name, f".{name[:200]}.json", ".value.json.12345678.json"]
    for each in (living, dead, elsewhere, old, *mine):
        (tmp_path / each).write_text("")
    (tmp_path / f".maps.{machine}-999999999.abcdefgh").mkdir()
    os.utime(tmp_path / old, (1, 1))
    artefact.sweep(tmp_path)
    assert set(os.listdir(tmp_path)) == {living, elsewhere, *mine}


def test_maps_do_not_replace_what_is_no_file(tmp_path):
    (tmp_path / "maps").mkdir()
    os.mkfifo(tmp_path / "maps/a.png")
    with (
        pytest.raises(FileError, match="must be a regular file, it is a pipe"),
        map_files(tmp_path / "maps", []) as files,
    ):
        (files._place / "a.png").write_bytes(b"map")
    assert not (tmp_path / "maps/a.png").is_file()
    assert os.listdir(tmp_path) == ["maps"]


def test_a_line_break_in_a_name_breaks_no_line():
    error = OSError(errno.ENOENT, "No such file or directory", "a\nb\x1b[31m")
    assert describe(error) == (
        "a\\nb\\x1b[31m must be used, the system says: No such file or directory. Check the path."
    )


UNNAMED = ["", "new\nline", "\x1b[31mred", os.fsdecode(b"caf\xe9")]


@pytest.mark.parametrize("name", UNNAMED, ids=ascii)
@pytest.mark.parametrize(
    "command",
    [
        ("train", "tiny.toml", "--out", "{}"),
        ("validate", "{}"),
        ("validate", "tiny.toml", "--data-root", "{}"),
        ("rank", "{}"),
        ("convert", "in.pth", "{}"),
        ("export", "{}"),
    ],
    ids=" ".join,
)
def test_a_path_that_no_line_can_say_is_refused(tmp_path, invoke, command, name):
    """Safetensors cannot open what is no UTF-8, and would say so after the training."""
    (tmp_path / "tiny.toml").write_text(TINY)
    done = invoke(*(word.format(name) for word in command))
    assert done.code == 2
    assert done.error.startswith("error: A path must be ")
    assert len(done.error.splitlines()) == 1
    assert "\x1b" not in done.error
    assert os.listdir(tmp_path) == ["tiny.toml"]


def test_links_in_a_circle_are_one_line(tmp_path):
    path = tmp_path / "a.json"
    path.symlink_to("b.json")
    (tmp_path / "b.json").symlink_to("a.json")
    (tmp_path / "new").mkdir()
    (tmp_path / "new/a.json").write_text("1")
    for write in (
        lambda: artefact.write_json(path, 1),
        lambda: artefact.bring(tmp_path / "new", tmp_path),
    ):
        with pytest.raises(FileError, match=r"a\.json must be written.*Links lead in a circle"):
            write()
    assert path.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["a.json", "b.json", "new"]


def test_what_is_brought_follows_links_and_replaces_all_or_nothing(tmp_path):
    new, target = tmp_path / "new", tmp_path / "target"
    (target / "c").mkdir(parents=True)
    new.mkdir()
    for name in "abc":
        (new / name).write_text(name)
    (target / "b").symlink_to("elsewhere")
    with pytest.raises(FileError, match="c must be written, the system says: Is a directory"):
        artefact.bring(new, target)
    assert sorted(os.listdir(target)) == ["b", "c"]
    (target / "c").rmdir()
    artefact.bring(new, target)
    assert (target / "b").is_symlink()
    assert {(target / name).read_text() for name in ("a", "elsewhere", "c")} == {*"abc"}


def test_the_disk_behind_standard_output_and_closed_streams_are_no_tracebacks(tmp_path):
    def shell(text):
        command = f"{sys.executable} -m recon_search {text}"
        return subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, timeout=60)

    done = shell("ls recipes > /dev/full")
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: ")
    assert done.stderr.count(b"\n") == 1
    assert shell("init quickstart >&- 2>&- <&-").returncode == 0
    assert b"Written" not in (tmp_path / "quickstart.toml").read_bytes()


@pytest.mark.parametrize(
    "command",
    [
        ("split", "tiny.toml", "--counts", "counts.json", "--out", "counts.json"),
        ("split", "tiny.toml", "--counts", "counts.json", "--out", "tiny.toml"),
        ("convert", "in.safetensors", "in.safetensors"),
        ("data", "tiny.toml", "--out", "tiny.toml"),
    ],
    ids=" ".join,
)
def test_what_a_command_reads_it_does_not_write_over(tmp_path, invoke, command):
    (tmp_path / "tiny.toml").write_text(TINY)
    (tmp_path / "counts.json").write_text('{"bn1": 1}')
    torch.save({"weight": torch.ones(3)}, tmp_path / "in.safetensors")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    done = invoke(*command)
    assert (done.code, len(done.error.splitlines())) == (2, 1)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
