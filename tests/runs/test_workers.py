"""Processes that work for another end with it, and in order when it is told to."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recon_search import interruption
from tests.command import call
from tests.stages.recipes import TINY

LIMIT = 300.0
"""Seconds that a machine with much else to do may take."""

SMALL = TINY.replace("epochs = 2", "epochs = 6").partition("[compare]")[0]
SMALL += """
[compare]
seeds = 1
controls = []
[search]
trials = 3
pruner = "none"
heartbeat = 1
[search.space]
"split.k" = { low = 1, high = 6 }
"""
RUN = ("run", "small.toml", "--device", "cpu", "--workers", "2", "--out")
SEARCH = ("search", "small.toml", "--device", "cpu", "--workers", "2", "--out")


@contextlib.contextmanager
def started(command, out, cwd):
    """Start a command as the first of a group of processes; none of them is left."""
    words = [sys.executable, "-m", "recon_search", *command, out]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        words,
        cwd=cwd,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def group(leader):
    """Numbers of the living processes that a leader's group has beside it."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            number, _, rest = stat.read_text().partition(" (")
            state, _, its_group, *_ = rest.rpartition(") ")[2].split()
            if int(its_group) == leader and int(number) != leader and state not in "ZX":
                found.append(int(number))
    return found


def wait_until(holds, process=None):
    ends = time.monotonic() + LIMIT
    while not holds():
        assert time.monotonic() < ends
        assert process is None or process.poll() is None, process.stderr.read()
        time.sleep(0.02)


@pytest.fixture
def place(tmp_path):
    (tmp_path / "small.toml").write_text(SMALL)
    return tmp_path


pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


def test_a_signal_to_the_parent_alone_ends_the_workers_steps(place):
    with started(RUN, "out", place) as process:
        wait_until(lambda: list(place.glob("out/trainings/*/checkpoint.safetensors")), process)
        os.kill(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, error
    (line,) = error.splitlines()
    assert line.startswith("Interrupted by SIGINT: ")
    assert line.endswith("Go on with --resume.")
    assert "trainings are done, " in line
    assert not group(process.pid)
    assert not list(place.rglob(".*")), "no lock, no temporary file"


def test_a_signal_to_all_while_workers_import_is_one_line(place):
    with started(RUN, "out", place) as process:
        wait_until(lambda: len(group(process.pid)) > 1, process)
        time.sleep(1)  # in which they begin to import what takes seconds
        os.killpg(process.pid, signal.SIGTERM)
        _, error = process.communicate(timeout=LIMIT)
    assert process.returncode == 143, error
    (line,) = error.splitlines()
    assert line.startswith("Interrupted by SIGTERM: ")
    assert line.endswith("Go on with --resume.")
    assert not group(process.pid)


def test_workers_end_when_their_parent_is_killed_while_they_import(place):
    with started(RUN, "out", place) as process:
        wait_until(lambda: len(group(process.pid)) > 1, process)  # workers, and what tracks them
        process.kill()
        process.wait()
        wait_until(lambda: not group(process.pid))
    assert not (place / "out/comparison.json").exists()


def outcome(folder):
    """What must not depend on deaths: every training's model, and the comparison's numbers."""
    found = {
        path.relative_to(folder): path.read_bytes()
        for path in folder.glob("trainings/*/model/model.safetensors")
    }
    rows = json.loads((folder / "comparison.json").read_text())["rows"]
    return found, [(row["name"], row["delta_m"]) for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("command", [RUN, SEARCH], ids=["run", "search"])
def test_twenty_deaths_at_random_moments_change_nothing(place, command):
    resumed = [] if command is SEARCH else ["--resume"]
    assert call(*command, "whole", cwd=place).code == 0
    draw = random.Random(0)
    for death in range(20):
        with started(
            (*command[:-1], *(resumed if death else []), "--out"), "out", place
        ) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(draw.uniform(2, 12))
            os.killpg(process.pid, draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
            process.wait(LIMIT)
            wait_until(lambda leader=process.pid: not group(leader))
    done = call(*command, "out", *resumed, cwd=place)
    assert done.code == 0, done.error
    if command is RUN:  # which trials a search runs depends on the time they take
        assert outcome(place / "out") == outcome(place / "whole")
    assert not [path for path in (place / "out").rglob(".*") if path.name != ".lock"]
    assert not list(place.glob("out/trainings/*/checkpoint*"))
    for path in place.glob("out/trainings/*/metrics.jsonl"):
        epochs = [json.loads(line)["epoch"] for line in path.read_text().splitlines()]
        assert epochs == list(range(1, len(epochs) + 1))


DYING = """
import os, sys
if __name__ != "__main__":
    os._exit(3)  # as where memory is short while it starts
import multiprocessing
from recon_search.runs import worker
context = multiprocessing.get_context("spawn")
call = print, (bytes(10**7),)
process = worker.start(context, context.Event(), context.Queue(), call)
process.join()
print(process.exitcode)
"""


def test_a_worker_that_dies_before_it_reads_what_to_do_is_not_waited_for(tmp_path):
    (tmp_path / "dying.py").write_text(DYING)
    done = subprocess.run(
        [sys.executable, "dying.py"], cwd=tmp_path, capture_output=True, timeout=60, text=True
    )
    assert done.stdout == "3\n", done.stderr


def test_a_terminal_that_goes_away_is_an_interruption_unless_nohup_says_otherwise():
    before = signal.getsignal(signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with interruption.handled():
            signal.raise_signal(signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with pytest.raises(interruption.Interrupted) as left, interruption.handled():
            signal.raise_signal(signal.SIGHUP)
        assert left.value.signal == signal.SIGHUP
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
