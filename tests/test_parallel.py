"""One training by two processes under a real torchrun: equal to one process, and no orphans."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from recon_search import parallel
from recon_search.tasks.classes import IGNORED
from recon_search.training import loop
from tests import parallel_worker as worker

ROOT = Path(__file__).parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
NAMES = [
    *worker.CASES,
    *(f"{name}, partial" for name in worker.PARTIAL),
    *(f"{name}, apart" for name in worker.APART),
    *(f"{name}, pixels" for name in worker.PIXELS),
]


@contextlib.contextmanager
def torchrun(*arguments, cwd):
    """Run torchrun for the block; standard error goes to the file `errors`."""
    command = [*TORCHRUN, "-m", *map(str, arguments)]
    with (
        (Path(cwd) / "errors").open("w") as errors,
        subprocess.Popen(
            command, cwd=cwd, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as running,
    ):
        try:
            yield running
        finally:
            running.terminate()  # and with it its workers, where the block failed


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two processes leave behind."""
    folder = tmp_path_factory.mktemp("two")
    with torchrun("tests.parallel_worker", folder, cwd=folder) as running:
        assert running.wait(timeout=300) == 0, (folder / "errors").read_text()
    return folder


@pytest.fixture(scope="module")
def facts(folder):
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def double_precision():
    undo = worker.in_double_precision()
    yield
    undo()


@pytest.fixture(scope="module")
def by_one(double_precision):
    return worker.run_cases()


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_train_the_model_of_one(by_one, folder, name):
    expected = by_one[name]
    first, second = (load_file(folder / rank / f"{name}.safetensors") for rank in "01")
    assert set(first) == set(expected)
    for key, tensor in expected.items():
        if not tensor.is_floating_point():  # conflict counts
            assert torch.equal(first[key], tensor), key
        else:
            torch.testing.assert_close(first[key], tensor, rtol=1e-9, atol=1e-11, msg=key)
        assert torch.equal(second[key], first[key]), key


def test_the_cases_measure_conflicts_and_move_the_parameters(by_one):
    for name, found in by_one.items():
        frozen = worker.CASES[name.partition(",")[0]].freeze
        model = worker.make_model(frozen, is_dense=name.endswith(", pixels"))
        for key, parameter in model.named_parameters(prefix="model"):
            if ".backbone." in key and key in found and not ("pixels" in name and ".fc." in key):
                moved = bool((found[key] != parameter).any())
                assert moved is parameter.requires_grad, (name, key)
    for name in ("pcgrad", "probe"):
        counts = by_one[name]["scores.counts"]
        assert counts.sum() == (5 if name == "pcgrad" else 2) * counts[..., 0].numel()
        assert counts[..., :100].sum() > 0  # some cosines are negative


def test_some_batches_have_labels_in_one_process_only_and_some_in_none():
    data = worker.make_data(is_partial=True)
    seen = set()
    parts = [data.steps("train", worker.BATCH, (0, 0), share=(rank, 2)) for rank in (0, 1)]
    for (here,), (there,) in zip(*parts, strict=True):
        pair = (part.targets["c"] for part in (here, there))
        seen.add(tuple(bool((labels != IGNORED).any()) for labels in pair))
    assert (False, False) in seen
    assert {(True, False), (False, True)} & seen


def test_dropout_differs_by_process_and_is_the_same_after_an_interruption(facts):
    first, second = facts
    assert first["left by"] == "KeyboardInterrupt"
    assert second["left by"] == "LeftError"
    assert first["resumed equal"]
    assert second["resumed equal"]
    assert first["seed"] != second["seed"]


def test_one_process_goes_on_with_what_two_began(folder, double_precision):
    config = worker.CONFIG.model_copy(update={"epochs": 3, "method": "pcgrad"})
    model = worker.make_model(drop_path_rate=0.5)
    history = loop.fit(model, worker.make_data(), config, seed=0, directory=folder / "cut")
    assert [record["epoch"] for record in history] == [1, 2, 3]
    losses = [sum(record["train"].values()) for record in history]
    assert losses[2] < losses[0]


def test_batches_that_cannot_be_divided_are_refused(facts):
    for own in facts:
        assert "must be a multiple of the number of processes" in own["refused"]
        assert "7 images for 2 processes" in own["refused"]


def test_the_first_process_leads_through_trainings_that_fail_or_are_pruned(facts):
    first, second = facts
    assert "Every loss must be finite" in first["failed"]
    assert first["pruned"] == "pruned after epoch 1"
    assert first["results"] == [2, 3, 2]
    assert first["fits"] == second["fits"] == [0, 1, 2, 3]


def test_alone_everything_is_as_if_there_were_no_group():
    tensor = torch.ones(2)
    with parallel.group(torch.device("cpu")):
        assert (parallel.rank(), parallel.size()) == (0, 1)
        assert parallel.mean([tensor])[0] is tensor
        assert parallel.from_first(tensor) is tensor
        assert parallel.agree(tensor) is tensor
    with pytest.raises(ZeroDivisionError):
        parallel.on_first(lambda: 1 / 0)


TINY = """
[data]
name = "multi-digits"
train = 64
validation = 16
test = 16
canvas = 12
[backbone]
name = "test_resnet"
args = { channels = [4, 4, 8, 8], norm_layer = "groupnorm1" }
[train]
method = "pcgrad"
epochs = 20
batch_size = 32
lr = 0.01
[probe]
epochs = 1
[split]
k = 1
"""


def workers_of(running):
    """Process ids of torchrun's workers by rank."""
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    found = {}
    for child in map(int, children):
        variables = Path(f"/proc/{child}/environ").read_text().split("\0")
        rank = [v.removeprefix("RANK=") for v in variables if v.startswith("RANK=")]
        if rank:
            found[int(rank[0])] = child
    return found


def is_running(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition, seconds):
    for _ in range(int(seconds * 50)):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_a_killed_process_ends_all_and_the_command_goes_on_from_the_last_epoch(tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY)
    command = ["recon_search", "train", "tiny.toml", "--out", "out"]
    with torchrun(*command, cwd=tmp_path) as running:
        wait_for(lambda: list(tmp_path.glob("out/trainings/*/metrics.jsonl")), 120)
        workers = workers_of(running)
        os.kill(workers[1], signal.SIGKILL)
        killed = time.monotonic()
        output, _ = running.communicate(timeout=60)
        assert time.monotonic() - killed < 20
        assert running.returncode != 0
    assert all(line.startswith("train: ") for line in output.splitlines()), "no result"
    assert sorted(workers) == [0, 1]
    wait_for(lambda: not any(is_running(process) for process in workers.values()), 5)
    errors = (tmp_path / "errors").read_text()
    assert errors.count("error: All processes must live") <= 1  # torchrun may be faster
    assert "Signal 9 (SIGKILL)" in errors

    (metrics,) = tmp_path.glob("out/trainings/*/metrics.jsonl")
    before = metrics.read_text().splitlines()
    assert 0 < len(before) < 20
    assert not metrics.with_name("result.json").exists()
    with torchrun(*command, "--resume", cwd=tmp_path) as running:
        output, _ = running.communicate(timeout=120)
        assert running.returncode == 0, (tmp_path / "errors").read_text()
    after = metrics.read_text().splitlines()
    assert after[: len(before)] == before  # what was learned was not learned again
    assert [json.loads(line)["epoch"] for line in after] == list(range(1, 21))
    said = [line.partition(":")[0] for line in output.splitlines()]
    assert [who for who in said if not who.startswith("train")][:2] == ["left", "right"]
    assert output.count("Model directory") == 1
    assert (tmp_path / "out/model/model.safetensors").is_file()
