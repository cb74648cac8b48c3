"""Four workers on a real PostgreSQL: one is killed in a trial, one loses the database."""

import contextlib
import glob
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from recon_search.recipe import load_recipe
from recon_search.search.tally import tally
from tests.stages.recipes import TINY
from tests.stages.scores import TASKS, noisy_scores

pytestmark = pytest.mark.postgres

N_TRIALS = 8
SEARCH = f"""
[search]
trials = {N_TRIALS}
pruner = "none"
heartbeat = 2
"""


def find_program(name):
    """A program of PostgreSQL's server, which Debian keeps out of the PATH."""
    return next(iter(sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))), shutil.which(name))


@pytest.fixture(scope="module")
def server():
    """URL of a database, port included, that lives as long as this module's tests."""
    initdb, postgres = find_program("initdb"), find_program("postgres")
    if initdb is None or postgres is None:
        pytest.skip("PostgreSQL's server is not installed: apt-get install postgresql")
    # Its programs refuse to run as root; the Debian package brings a user for them.
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path("/tmp") / f"recon-search-postgres-{os.getpid()}"  # short: it holds a socket
    folder.mkdir()
    process = None
    try:
        if user is not None:
            shutil.chown(folder, user)
        data = folder / "data"
        subprocess.run(
            [initdb, "-D", data, "-U", "tester", "-A", "trust", "--no-sync"],
            user=user, check=True, capture_output=True, cwd=folder,
        )  # fmt: skip
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [postgres, "-D", data, "-p", str(port), "-k", folder, "-F"]
        process = subprocess.Popen(
            command, user=user, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(lambda: can_connect(port), 60)
        yield port
    finally:
        if process is not None:
            process.terminate()
            process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def can_connect(port):
    import psycopg

    try:
        psycopg.connect(f"host=127.0.0.1 port={port} user=tester dbname=postgres").close()
    except psycopg.OperationalError:
        return False
    return True


def url_of(port):
    return f"postgresql+psycopg://tester@127.0.0.1:{port}/postgres"


def wait_until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"nothing came in {seconds} s"
        time.sleep(0.1)


class Cable:
    """A way to the server that can be cut: connections end, and new ones are refused."""

    def __init__(self, port):
        self._target = port
        self._pairs = []
        self._listener = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.mend()

    def mend(self):
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._pairs:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._pairs.clear()

    def _accept(self, listener):
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            self._pairs += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    @staticmethod
    def _pump(source, sink):
        try:
            while chunk := source.recv(65536):
                sink.sendall(chunk)
        except OSError:
            pass
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def start_worker(out, url, name, *options):
    command = [sys.executable, "-m", "tests.stages.search_worker", out, url, name, *options]
    with (out / f"{name}.log").open("w") as log:
        return subprocess.Popen(
            [str(part) for part in command],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            cwd=Path(__file__).parents[2],
        )


def test_every_trial_is_accounted_for_and_no_epoch_is_trained_twice(server, tmp_path):
    (tmp_path / "recipe.toml").write_text(TINY.replace("train = 128", "train = 64") + SEARCH)
    noisy_scores(load_recipe(tmp_path / "recipe.toml")).save(tmp_path / "scores.safetensors")
    cable = Cable(server)
    names = ("victim", "islander", "third", "fourth")
    workers = {}
    try:
        for name in names:
            url = url_of(cable.port if name == "islander" else server)
            workers[name] = start_worker(tmp_path, url, name, "--stop-in-first-trial")
        for name in names:
            stopped, worker = tmp_path / f"{name}.stopped", workers[name]
            wait_until(lambda at=stopped, of=worker: at.is_file() or of.poll() is not None, 240)
            assert stopped.is_file(), (tmp_path / f"{name}.log").read_text()
        workers["victim"].send_signal(signal.SIGKILL)
        cable.cut()
        for name in names:  # the islander's next word to the database finds nobody
            (tmp_path / f"{name}.go").touch()
        time.sleep(3)  # less than its trial may be silent
        cable.mend()
        for name in names[1:]:
            assert workers[name].wait(240) == 0, (tmp_path / f"{name}.log").read_text()
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
        cable.cut()

    storage = optuna.storages.RDBStorage(url_of(server))
    trials = optuna.load_study(study_name="study", storage=storage).get_trials(deepcopy=False)
    storage.engine.dispose()
    now = tally(trials)
    assert now.spent == now.complete == N_TRIALS
    assert (now.running, now.failed, now.retried) == (0, 0, 1)

    killed = next(t for t in trials if t.user_attrs["owner"].startswith("victim"))
    again = next(t for t in trials if t.user_attrs.get("retry_of") == killed.number)
    assert killed.state == TrialState.FAIL
    # Until it was begun anew, its split was free for whoever drew it too.
    assert trials[again.user_attrs.get("same_as", again.number)].state == TrialState.COMPLETE
    assert not again.user_attrs["owner"].startswith("victim")
    assert again.user_attrs["training"] == killed.user_attrs["training"]

    cut_off = (tmp_path / "islander.stopped").read_text()
    drew = [t for t in trials if t.user_attrs.get("training") == cut_off]
    (own,) = [t for t in drew if "same_as" not in t.user_attrs]
    assert own.state == TrialState.COMPLETE
    assert own.user_attrs["owner"].startswith("islander"), "it waited and went on"

    epochs = [line.split() for line in (tmp_path / "epochs.txt").read_text().splitlines()]
    trained = Counter((training, epoch) for _, training, epoch in epochs)
    assert set(trained.values()) == {1}, "no epoch of any split or baseline was trained twice"
    distinct = {t.user_attrs["training"] for t in trials if "training" in t.user_attrs}
    assert {training for training, _ in trained} >= distinct
    assert len({training for training, _ in trained}) == len(distinct) + len(TASKS)
    begun = {name for name, training, epoch in epochs if training == killed.user_attrs["training"]}
    assert len(begun) == 2, "the killed trial's second epoch was trained elsewhere"
