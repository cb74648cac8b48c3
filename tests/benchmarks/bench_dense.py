"""A joint step on three tasks of pixels: ours against the same network written by hand. One thread.

    python -m tests.benchmarks.bench_dense [--steps 20] [--side 64] [--batch 8] [--json FILE]

Both have a ResNet18 of timm, one FPN that all tasks share, heads of one convolution, the same
losses and SGD; the two take turns step by step. By hand the backbone is timm's own module, called
by `forward_intermediates`. On a CPU it is the process's CPU time that counts. Printed are
milliseconds a step and the ratio (median, quartiles); the losses of both must agree first.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from torch import Tensor

import recon_search as rs
from recon_search.methods.surgeon import create_surgeon
from recon_search.model.network import MultiTaskModel, build_model
from recon_search.recipe import BackboneConfig, HeadsConfig
from tests.benchmarks.bench_branch import spread

TASKS = (rs.Segments("what", 5), rs.Depth("depth"), rs.Normals("normals"))
HEADS = HeadsConfig.model_validate(
    {"head": {"kind": "linear", "neck": "shared"}, "necks": {"shared": {"kind": "fpn"}}}
)


def make_batch(n: int, side: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Random images and targets."""
    generator = torch.Generator().manual_seed(0)
    targets = {
        "what": torch.randint(5, (n, side, side), generator=generator),
        "depth": torch.rand(n, side, side, generator=generator) + 0.5,
        "normals": torch.randn(n, 3, side, side, generator=generator),
    }
    return torch.randn(n, 3, side, side, generator=generator), targets


def our_step(
    model: MultiTaskModel, images: Tensor, targets: dict[str, Tensor]
) -> Callable[[], float]:
    """Train jointly as `recon-search train` does."""
    surgeon = create_surgeon(model, "joint")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step() -> float:
        optimizer.zero_grad()
        outputs = model(images)
        losses = {task.name: task.loss(outputs[task.name], targets[task.name]) for task in TASKS}
        surgeon.backward(losses)
        optimizer.step()
        return sum(loss.item() for loss in losses.values())

    return step


def hand_step(
    model: MultiTaskModel, images: Tensor, targets: dict[str, Tensor]
) -> Callable[[], float]:
    """Train the same weights in the eager network, as one would write it."""
    call = model.backbone.call_of("what")
    backbone = timm.create_model("resnet18", num_classes=0)
    backbone.load_state_dict(model.backbone.task_state_dict("what"))
    heads = copy.deepcopy(model.heads)
    neck = heads["what"].neck
    for task in TASKS[1:]:
        heads[task.name].neck = neck
    parameters = [*backbone.parameters(), *heads.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=1e-3)

    def step() -> float:
        optimizer.zero_grad()
        maps = call.apply(backbone, images)
        merged = neck(maps)
        total = torch.zeros(())
        for task in TASKS:
            output = heads[task.name].head(merged)
            output = torch.nn.functional.interpolate(output, images.shape[-2:], mode="bilinear")
            total = total + task.loss(output, targets[task.name])
        total.backward()
        optimizer.step()
        return total.item()

    return step


def main() -> None:
    """Measure, print, and write the numbers if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--json", type=Path, help="write the numbers there, too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    backbone = BackboneConfig(name="resnet18")
    shape = (3, arguments.side, arguments.side)
    model = build_model(backbone, HEADS, TASKS, shape=shape).train()
    images, targets = make_batch(arguments.batch, arguments.side)
    by_hand, ours = hand_step(model, images, targets), our_step(model, images, targets)
    for _ in range(3):
        first, second = ours(), by_hand()
        if abs(first - second) > 1e-4 * abs(second):
            raise SystemExit(f"Both must have the same loss, got {first} and {second}.")
    times: dict[str, list[float]] = {"ours": [], "by hand": []}
    for _ in range(arguments.steps):
        for name, step in (("ours", ours), ("by hand", by_hand)):
            started = time.process_time()
            step()
            times[name].append(1000 * (time.process_time() - started))
    ratios = [a / b for a, b in zip(times["ours"], times["by hand"], strict=True)]
    found = {name: statistics.median(each) for name, each in times.items()}
    print(f"ours {found['ours']:.1f} ms, by hand {found['by hand']:.1f} ms: {spread(ratios)}")
    if arguments.json:
        arguments.json.write_text(json.dumps({**found, "ratios": ratios}, indent=2) + "\n")


if __name__ == "__main__":
    main()
