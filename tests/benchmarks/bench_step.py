"""What a training step costs: plain, measured, PCGrad, RotoGrad, and the peers'. One thread.

    python -m tests.benchmarks.bench_step [--workload resnet18 vit] [--windows 3] [--json FILE]

The kinds take turns step by step, in windows of `--every` steps, which is also how often a probe
measures in one of the rows; rotations move every 8 steps, the method's default. On a CPU it is the
process's CPU time that counts, which other work on the machine hardly changes. Printed are
milliseconds a step, the ratio to the plain joint steps of the same window (median and quartiles
over windows), and the memory that a step needs at most beyond what lies between steps.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from recon_search.conflict.gramian import layer_gramians, task_gradients
from recon_search.conflict.scores import ConflictScores
from recon_search.methods.surgeon import create_surgeon
from recon_search.model.network import MultiTaskModel, build_model
from recon_search.recipe import BackboneConfig, HeadConfig
from recon_search.tasks.classes import Classes
from tests.benchmarks.bench_branch import spread
from tests.memory import PeakMemory

CLASSES = 10
Step = Callable[[int], None]
"""Takes the number of the step."""


@dataclass(frozen=True)
class Workload:
    """A backbone, the tasks, and the images of a batch."""

    name: str
    backbone: BackboneConfig
    tasks: tuple[str, ...]
    images: tuple[int, int, int, int]

    def batch(self, device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(self.images, generator=generator)
        targets = {
            task: torch.randint(CLASSES, self.images[:1], generator=generator)
            for task in self.tasks
        }
        return images.to(device), {task: target.to(device) for task, target in targets.items()}

    def model(self, device: torch.device) -> MultiTaskModel:
        tasks = [Classes(task, CLASSES) for task in self.tasks]
        return build_model(self.backbone, HeadConfig(), tasks, shape=self.images[1:]).to(device)


WORKLOADS = {
    "resnet18": Workload(
        "ResNet18, 36x36, batch 64, T = 2",
        BackboneConfig(name="resnet18"),
        ("a", "b"),
        (64, 1, 36, 36),
    ),
    "vit": Workload(
        "ViT-Tiny, 64x64, batch 64, T = 3",
        BackboneConfig(name="vit_tiny_patch16_224", args={"img_size": 64}),
        ("a", "b", "c"),
        (64, 3, 64, 64),
    ),
}


def main() -> None:
    """Measure, print a table a workload, and write the numbers if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workload", choices=WORKLOADS, nargs="+", default=list(WORKLOADS))
    parser.add_argument("--kind", nargs="+", help="only these kinds, beside `joint`")
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--every", type=int, default=16, help="steps a window")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write the rows there, too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    rows = []
    for name in arguments.workload:
        torch.manual_seed(0)
        kinds = make_kinds(WORKLOADS[name], device, arguments.every)
        if arguments.kind:
            kinds = {kind: kinds[kind] for kind in ("joint", *arguments.kind)}
        measured = measure(kinds, arguments.windows, arguments.every, device)
        rows += [{"workload": WORKLOADS[name].name, **row} for row in measured]
        show(WORKLOADS[name].name, measured)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def make_kinds(workload: Workload, device: torch.device, every: int) -> dict[str, Step]:
    """Make every kind of step, each on a network of its own."""

    def ours(method: str = "joint", n: int = 0, low_memory: bool = False, **options: Any) -> Step:
        return our_step(workload, device, method, n, options, low_memory)

    kinds = {
        "joint": ours(),
        "probe, every step": ours(n=1),
        f"probe, every {every} steps": ours(n=every),
        "probe, every step, low memory": ours(n=1, low_memory=True),
        "probe, every step, batched": batched_step(workload, device),
        "pcgrad": ours("pcgrad"),
        "rotograd": ours("rotograd"),
        "rotate-only": ours("rotate-only"),
        "TorchJD mtl_backward + PCGrad": torchjd_step(workload, device, parallel=1),
        "TorchJD, vectorised": torchjd_step(workload, device, parallel=None),
    }
    with contextlib.suppress(ImportError):  # it is no requirement of the tests
        kinds["rotograd package"] = package_step(workload, device)
    return kinds


def our_step(
    workload: Workload,
    device: torch.device,
    method: str,
    n: int,
    options: dict[str, Any],
    low_memory: bool,
) -> Step:
    """Train by a method; every n-th step is measured, none for 0."""
    model = workload.model(device)
    surgeon = create_surgeon(model, method, options, low_memory=low_memory)
    scores = ConflictScores(list(model.backbone.layers()), workload.tasks)
    optimizer = sgd(model)
    images, targets = workload.batch(device)

    def step(number: int) -> None:
        measure = n > 0 and number % n == 0
        losses, features = forward(model, images, targets)
        optimizer.zero_grad()
        surgeon.accumulate(losses, features, measure=measure)
        gramians = surgeon.combine(measure=measure)
        if gramians is not None:
            scores.update(gramians)
        optimizer.step()
        surgeon.step()

    return step


def batched_step(workload: Workload, device: torch.device) -> Step:
    """Train jointly; the tasks' backward passes of a measured step are vectorised."""
    model = workload.model(device)
    layers = {name: blocks[0].parameters for name, blocks in model.backbone.layers().items()}
    shared = [parameter for parameters in layers.values() for parameter in parameters]
    parameters = [[*shared, *model.heads[task].parameters()] for task in workload.tasks]
    scores = ConflictScores(list(layers), workload.tasks)
    optimizer = sgd(model)
    images, targets = workload.batch(device)

    def step(number: int) -> None:
        losses, _ = forward(model, images, targets)
        found = task_gradients(list(losses.values()), parameters, batched=True)
        scores.update(layer_gramians(found, layers))
        optimizer.zero_grad()
        for gradients in found:
            for parameter, gradient in gradients.items():
                known = parameter.grad
                parameter.grad = gradient if known is None else known + gradient
        optimizer.step()

    return step


def torchjd_step(workload: Workload, device: torch.device, parallel: int | None) -> Step:
    """Train with TorchJD's own backward pass and PCGrad."""
    from torchjd.aggregation import PCGrad
    from torchjd.autojac import jac_to_grad, mtl_backward

    model = workload.model(device)
    shared = [p for p in model.backbone.parameters() if p.requires_grad]
    aggregator = PCGrad()
    optimizer = sgd(model)
    images, targets = workload.batch(device)

    def step(number: int) -> None:
        losses, features = forward(model, images, targets)
        optimizer.zero_grad()
        mtl_backward(
            list(losses.values()),
            features[workload.tasks[0]],
            tasks_params=[model.heads[task].parameters() for task in workload.tasks],
            shared_params=shared,
            parallel_chunk_size=parallel,
        )
        jac_to_grad(shared, aggregator)
        optimizer.step()

    return step


def package_step(workload: Workload, device: torch.device) -> Step:
    """Train with the RotoGrad authors' package, rotations by Adam in every step."""
    import rotograd

    config = workload.backbone
    backbone = timm.create_model(
        config.name, in_chans=workload.images[1], num_classes=0, **config.args
    )
    width = backbone.num_features
    heads: list[nn.Module] = [nn.Linear(width, CLASSES) for _ in workload.tasks]
    parameters = [*backbone.parameters(), *(p for head in heads for p in head.parameters())]
    model = rotograd.RotoGrad(backbone, heads, width).to(device).train()
    backbone.to(device)
    for head in heads:
        head.to(device)
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
    rotations = torch.optim.Adam(model.parameters(), lr=1e-3)
    images, targets = workload.batch(device)

    def step(number: int) -> None:
        outputs = model(images)
        losses = [F.cross_entropy(o, t) for o, t in zip(outputs, targets.values(), strict=True)]
        optimizer.zero_grad()
        rotations.zero_grad()
        model.backward(losses)
        optimizer.step()
        rotations.step()

    return step


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser of every kind."""
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def forward(
    model: MultiTaskModel, images: Tensor, targets: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses and features by task."""
    features = model.backbone(images)
    losses = {
        task: F.cross_entropy(model.heads[task](features[task]), target)
        for task, target in targets.items()
    }
    return losses, features


def measure(
    kinds: dict[str, Step], windows: int, every: int, device: torch.device
) -> list[dict[str, Any]]:
    """Time the kinds in turns, after two steps of each for its memory and to warm up."""
    memory = {}
    for name, step in kinds.items():
        step(1)
        memory[name] = peak(step, device)
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(windows):
        for name, value in time_window(kinds, every, device).items():
            times[name].append(value)
    rows = []
    for name, values in times.items():
        ratios = [own / plain for own, plain in zip(values, times["joint"], strict=True)]
        row = {"kind": name, "milliseconds": statistics.median(values), **spread(ratios)}
        rows.append({**row, "peak_mib": memory[name] / 2**20})
    return rows


def time_window(kinds: dict[str, Step], n_steps: int, device: torch.device) -> dict[str, float]:
    """Mean milliseconds a step over a window in which the kinds take turns."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    spent = dict.fromkeys(kinds, 0.0)
    gc.collect()
    for number in range(n_steps):
        for name, step in kinds.items():
            if device.type == "cuda":
                torch.cuda.synchronize()
            started = clock()
            step(number)
            if device.type == "cuda":
                torch.cuda.synchronize()
            spent[name] += clock() - started
    return {name: 1000 * value / n_steps for name, value in spent.items()}


def peak(step: Step, device: torch.device) -> int:
    """Bytes that a step, measured if its kind measures, needs beyond those before it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(0)
        return torch.cuda.max_memory_allocated() - before
    with PeakMemory() as memory:
        step(0)
    return memory.peak


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print one table."""
    table = Table("step", title=f"{title}, one thread", title_justify="left")
    for column in ("ms", "x joint", "quartiles", "peak MiB"):
        table.add_column(column, justify="right")
    for row in rows:
        quartiles = f"{row['low']:.3f} to {row['high']:.3f}"
        numbers = (f"{row['milliseconds']:.1f}", f"{row['median']:.3f}", quartiles)
        table.add_row(row["kind"], *numbers, f"{row['peak_mib']:.0f}")
    console = Console()
    (console if console.is_terminal else Console(width=100)).print(table)


if __name__ == "__main__":
    main()
