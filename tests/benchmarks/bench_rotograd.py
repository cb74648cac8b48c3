"""Time of a RotoGrad step against a plain joint step, interleaved in one run.

    python -m tests.benchmarks.bench_rotograd [--steps 48] [--device cpu] [--every 8]

ResNet18, 36x36, batch 64, T = 2, d = 512, one thread. The kinds take turns step by step, in windows
as long as the rotations' period. On a CPU it is the process's CPU time that counts, which other
work on the machine hardly changes. Printed are medians over windows, and the ratio of each window
to the plain steps beside it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from recon_search.recipe import BackboneConfig, HeadConfig
from recon_search.training.model import build_model
from recon_search.training.surgery import create_surgeon

BATCH, CLASSES = 64, 10


def make_step(method: str, options: dict[str, object], device: torch.device) -> Callable[[], None]:
    """Return a function that trains a fresh ResNet18 for one step."""
    tasks = {"a": CLASSES, "b": CLASSES}
    model = build_model(BackboneConfig(name="resnet18"), HeadConfig(), tasks, in_chans=1).to(device)
    surgeon = create_surgeon(model, method, options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    images = torch.randn(BATCH, 1, 36, 36, device=device)
    targets = torch.randint(CLASSES, (BATCH,), device=device)

    def step() -> None:
        features = model.backbone(images)
        losses = {
            task: F.cross_entropy(model.heads[task](features[task]), targets) for task in tasks
        }
        optimizer.zero_grad()
        surgeon.accumulate(losses, features)
        surgeon.combine()
        optimizer.step()
        surgeon.step()

    return step


def time_window(
    steps: dict[str, Callable[[], None]], n_steps: int, device: torch.device
) -> dict[str, float]:
    """Mean milliseconds a step over a window in which the kinds take turns."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    spent = dict.fromkeys(steps, 0.0)
    for _ in range(n_steps):
        for name, step in steps.items():
            if device.type == "cuda":
                torch.cuda.synchronize()
            started = clock()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            spent[name] += clock() - started
    return {name: 1000 * value / n_steps for name, value in spent.items()}


def main() -> None:
    """Print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--every", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    every = arguments.every
    kinds = {
        "joint": ("joint", {}),
        "rotate-only": ("rotate-only", {"every": every}),
        "rotograd": ("rotograd", {"every": every}),
    }
    steps = {name: make_step(*kind, device) for name, kind in kinds.items()}
    time_window(steps, every, device)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(max(1, arguments.steps // every)):
        for name, value in time_window(steps, every, device).items():
            times[name].append(value)
    for name, values in times.items():
        ratios = [own / plain for own, plain in zip(values, times["joint"], strict=True)]
        print(
            f"{name:12} {statistics.median(values):8.2f} ms a step, "
            f"{statistics.median(ratios):.3f} x joint ({min(ratios):.3f} to {max(ratios):.3f})"
        )


if __name__ == "__main__":
    main()
