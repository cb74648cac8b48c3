"""Every benchmark runs at its smallest, as printed in its head: what nothing runs rots."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

QUICKSTART = str(ROOT / "recipes" / "quickstart.toml")
SMALL = (
    "--set data.train=64 --set data.validation=32 --set data.test=32 --set train.epochs=1 "
    "--set train.warmup_epochs=0 --set probe.epochs=1 --set probe.every=1 --set probe.window=[0,1]"
)
WORDS = {
    "bench_branch": "--backbone resnet18 --batch 2 --rounds 2",
    "bench_dense": "--steps 2 --side 32 --batch 2",
    "bench_loading": "--images 8 --workers 0 --rounds 2",
    "bench_peers": "--windows 2 --side 32 --batch 2 --samples 4 --methods EW",
    "bench_reliability": f"{QUICKSTART} --json read.json --seeds 2 --every 1 --most 100 {SMALL}",
    "bench_search": f"{ROOT}/recipes/results/search.json --json replayed.json --searches 2",
    "bench_stability": f"{QUICKSTART} --out probes --seeds 2 --sizes 1 --pairs 2 --ks 3 {SMALL}",
    "bench_step": "--workload vit --windows 2 --every 2",
    "bench_subset": "--json subset.json --seeds 2 --steps 8 --every 1 --train 64",
    "bench_tasks": "--json tasks.json --tasks 2 --side 32 --batch 2 --steps 2 --repeats 2",
    "split_grid": f"{QUICKSTART} --out grid --json g.json --ks 0 1 --rules count --seeds 1 {SMALL}",
}
NEEDS = {"bench_peers": "LibMTL"}

ELSEWHERE = {"evidence", "table_one", "trials"}
"""Commands that tests of their own run."""


def test_no_benchmark_is_left_out():
    commands = {
        path.stem
        for path in (ROOT / "tests" / "benchmarks").glob("*.py")
        if "__main__" in path.read_text("utf-8")
    }
    assert commands == WORDS.keys() | ELSEWHERE


@pytest.mark.slow
@pytest.mark.parametrize("name", WORDS)
def test_a_benchmark_runs(name, tmp_path):
    needed = NEEDS.get(name)
    if needed is not None and importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    words = [sys.executable, "-m", f"tests.benchmarks.{name}", *WORDS[name].split()]
    done = subprocess.run(
        words,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()
