"""What many tasks cost: steps, memory, files, and a probe whole. CPU time, one thread.

    python -m tests.benchmarks.bench_tasks --json tasks.json [--tasks 2 10 40] [--sketch 1024]
    python -m tests.benchmarks.bench_tasks --json tasks.json --files

For each number of tasks T, joint training of one network on random images: a plain step; measured
steps of all tasks with whole gradients, in low memory, with sketches, of a random subset of the
tasks, and of a subset with sketches; a step of PCGrad, of CAGrad, and of CAGrad and UPGrad that
sample as many tasks. Each kind runs in a process of its own, which
takes turns with plain steps of its own network: the ratio to these counts. Memory is the most that
a step holds of tensors at once beyond the model. A probe's row is of whole probes, every
`--every`-th step measured and added to the scores, against as many plain steps. The files are those
of a probe of `--steps` measured steps of noise: its scores, a checkpoint of model, optimiser and
scores, and one of the scores alone. A join reads the scores and gives their digest, as workers of a
search do. `--files` measures these alone. The JSON file is written after every kind; kinds that it
holds are not measured again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from recon_search import artefact
from recon_search.conflict.scores import ConflictScores
from recon_search.conflict.sketch import Sketch
from recon_search.methods.protocol import Measure, Surgeon
from recon_search.methods.surgeon import create_surgeon
from recon_search.model.network import MultiTaskModel, build_model
from recon_search.recipe import BackboneConfig, HeadConfig
from recon_search.tasks.classes import Classes
from recon_search.training.checkpoint import save_checkpoint
from tests.memory import PeakMemory

Trained = tuple[MultiTaskModel, Surgeon, torch.optim.Optimizer]
"""A network and what trains it."""

CLASSES = 10
KINDS = {
    "plain": {},
    "measured": {"measure": True},
    "measured, low memory": {"measure": True, "low_memory": True},
    "measured, sketch": {"measure": True, "sketch": True},
    "measured, subset": {"measure": True, "subset": True},
    "measured, subset, sketch": {"measure": True, "subset": True, "sketch": True},
    "pcgrad": {"method": "pcgrad"},
    "cagrad": {"method": "cagrad"},
    "cagrad, sampled": {"method": "cagrad", "sampled": True},
    "upgrad": {"method": "upgrad"},
    "upgrad, sampled": {"method": "upgrad", "sampled": True},
}

WIDTHS = [16, 64, 256]
"""Numbers of a random gradient, by layer in turn: cosines spread by 0.25, 0.125 and 0.06."""

FILES = {
    "scores": 2, "sums beside": 2, "checkpoint": 1, "write": 2, "join": 2, "keep": 2
}  # fmt: skip
"""What is measured of files, with digits to print."""


def measure(arguments: argparse.Namespace, kind: str, n_tasks: int) -> dict[str, Any]:
    """Time one kind of step in turns with plain ones, and find its memory."""
    torch.set_num_threads(1)
    options = KINDS[kind]
    tasks = tuple(f"t{index}" for index in range(n_tasks))
    own, plain = (make(arguments, tasks, one) for one in (options, {}))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(arguments.batch, 3, arguments.side, arguments.side, generator=generator)
    targets = {t: torch.randint(CLASSES, (len(images),), generator=generator) for t in tasks}
    measured: Measure = bool(options.get("measure"))
    if options.get("subset") and arguments.subset < n_tasks:
        measured = tasks[: arguments.subset]
    for one in (plain, own):  # so that the optimisers hold what they keep
        step(*one, images, targets, False)
    with PeakMemory() as memory:
        step(*own, images, targets, measured)
    times: dict[str, list[float]] = {"own": [], "plain": []}
    for _ in range(arguments.repeats):
        for name, one, what in (("plain", plain, False), ("own", own, measured)):
            started = time.process_time()
            step(*one, images, targets, what)
            times[name].append(time.process_time() - started)
    ratios = [a / b for a, b in zip(times["own"], times["plain"], strict=True)]
    found = {
        "kind": kind,
        "tasks": n_tasks,
        "milliseconds": 1000 * statistics.median(times["own"]),
        "ratio": 1.0 if kind == "plain" else statistics.median(ratios),
        "mebibytes": memory.peak / 2**20,
    }
    if measured:
        found["probe"] = _whole_probe(arguments, plain, own, images, targets, measured)
    return found


def _whole_probe(
    arguments: argparse.Namespace,
    plain: Trained,
    own: Trained,
    images: Tensor,
    targets: dict[str, Tensor],
    measured: Measure,
) -> float:
    """Steps of a probe, one in `every` measured and added to its scores, against plain steps."""
    scores = ConflictScores(list(own[0].backbone.layers()), own[0].tasks)
    ratios = []
    for _ in range(arguments.repeats):
        seconds = {"own": 0.0, "plain": 0.0}
        for number in range(arguments.every):
            started = time.process_time()
            step(*plain, images, targets, False)
            between = time.process_time()
            gramians = step(*own, images, targets, measured if number == 0 else False)
            if gramians is not None:
                scores.update(gramians, at=0.5)
            seconds["own"] += time.process_time() - between
            seconds["plain"] += between - started
        ratios.append(seconds["own"] / seconds["plain"])
    return statistics.median(ratios)


def make(arguments: argparse.Namespace, tasks: tuple[str, ...], options: dict[str, Any]) -> Trained:
    """Make a network and what trains it."""
    torch.manual_seed(0)
    model = build_model(
        BackboneConfig(name=arguments.backbone),
        HeadConfig(),
        [Classes(task, CLASSES) for task in tasks],
        shape=(3, arguments.side, arguments.side),
    )
    surgeon = create_surgeon(
        model,
        options.get("method", "joint"),
        {"tasks_per_step": arguments.subset} if options.get("sampled") else None,
        low_memory=options.get("low_memory", False),
        sketch=Sketch(arguments.sketch) if options.get("sketch") else None,
    )
    return model, surgeon, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def step(
    model: MultiTaskModel,
    surgeon: Surgeon,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    targets: dict[str, Tensor],
    measured: Measure,
) -> Tensor | None:
    """Take one step; returns the Gramians."""
    outputs = model(images)
    losses: dict[str, Tensor | None] = {
        task: F.cross_entropy(outputs[task], target) for task, target in targets.items()
    }
    optimizer.zero_grad()
    gramians = surgeon.backward(losses, measure=measured)
    optimizer.step()
    return gramians


def write_files(arguments: argparse.Namespace, n_tasks: int) -> dict[str, float]:
    """Files of a probe of random gradients, in megabytes; seconds to write and to join them."""
    torch.set_num_threads(1)
    tasks = tuple(f"t{index}" for index in range(n_tasks))
    model, _, optimizer = make(arguments, tasks, {})
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    layers = list(model.backbone.layers())
    if arguments.layers:
        layers = [f"layer{index}" for index in range(arguments.layers)]
    scores = ConflictScores(layers, tasks)
    generator = torch.Generator().manual_seed(0)
    n_layers = len(scores.layers)
    widths = torch.tensor(WIDTHS).repeat(n_layers)[:n_layers, None, None]
    inside = torch.arange(max(WIDTHS)) < widths  # (L, 1, most)
    for number in range(arguments.steps):
        rows = inside * torch.randn(n_layers, n_tasks, max(WIDTHS), generator=generator)
        rows *= torch.randn(n_layers, n_tasks, 1, generator=generator).exp()
        scores.update(rows @ rows.mT, at=number / arguments.steps)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    with tempfile.TemporaryDirectory() as folder:
        file, small, whole = (Path(folder) / name for name in ("scores", "small", "whole"))
        save_checkpoint(whole, {**state, "scores": scores.state()})
        sums = list(Path(folder).glob("whole-sums-*"))
        return {
            "write": _seconds(lambda: scores.save(file), arguments.repeats),
            "join": _seconds(lambda: ConflictScores.load(file).digest, arguments.repeats),
            "keep": _seconds(
                lambda: save_checkpoint(small, {"scores": scores.state()}), arguments.repeats
            ),
            "scores": file.stat().st_size / 1e6,
            "sums beside": sum(each.stat().st_size for each in sums) / 1e6,
            "checkpoint": whole.stat().st_size / 1e6,
        }


def _seconds(call: Callable[[], object], repeats: int) -> float:
    """Median CPU time."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        call()
        times.append(time.process_time() - started)
    return statistics.median(times)


def show_files(found: dict[str, Any], sizes: list[int]) -> None:
    """Print sizes and times, a column for each number of tasks."""
    table = Table("files", title="MB, and CPU seconds", title_justify="left")
    for n_tasks in sizes:
        table.add_column(f"T = {n_tasks}", justify="right")
    for name, digits in FILES.items():
        files = [found[f"{n_tasks}/files"][name] for n_tasks in sizes]
        table.add_row(name, *(f"{size:.{digits}f}" for size in files))
    Console(width=120).print(table)


def show(found: dict[str, Any], sizes: list[int], every: int) -> None:
    """Print the steps by kind, a column for each number of tasks."""
    table = Table("step", title="x plain (MiB above the model)", title_justify="left")
    for n_tasks in sizes:
        table.add_column(f"T = {n_tasks}", justify="right")
    for kind in KINDS:
        rows = [found[f"{n_tasks}/{kind}"] for n_tasks in sizes]
        texts = [f"{row['ratio']:.2f} ({row['mebibytes']:.0f})" for row in rows]
        if kind == "plain":
            texts = [f"{row['milliseconds']:.0f} ms ({row['mebibytes']:.0f})" for row in rows]
        table.add_row(kind, *texts)
        if kind.startswith("measured"):
            table.add_row(
                f"  probe, every {every}th step", *(f"{row['probe']:.2f}" for row in rows)
            )
    Console(width=120).print(table)


def main() -> None:
    """Measure each kind in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=[2, 10, 40])
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--sketch", type=int, default=1024, help="numbers a layer and task")
    parser.add_argument("--subset", type=int, default=4, help="tasks measured a step")
    parser.add_argument("--every", type=int, default=16, help="steps from one measured to the next")
    parser.add_argument("--steps", type=int, default=300, help="measured steps behind the files")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--layers", type=int, help="of the files, others than the network has")
    parser.add_argument("--files", action="store_true", help="measure files alone")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--one", nargs=2, metavar=("KIND", "T"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments, arguments.one[0], int(arguments.one[1]))))
        return
    path = arguments.json
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    for n_tasks in arguments.tasks:
        for kind in {} if arguments.files else KINDS:
            if f"{n_tasks}/{kind}" not in found:
                command = [sys.executable, "-m", "tests.benchmarks.bench_tasks", *sys.argv[1:]]
                command += ["--one", kind, str(n_tasks)]
                done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
                found[f"{n_tasks}/{kind}"] = json.loads(done.stdout)
                artefact.write_json(path, found)
        found[f"{n_tasks}/files"] = write_files(arguments, n_tasks)
        artefact.write_json(path, found)
    if not arguments.files:
        show(found, arguments.tasks, arguments.every)
    show_files(found, arguments.tasks)


if __name__ == "__main__":
    main()
