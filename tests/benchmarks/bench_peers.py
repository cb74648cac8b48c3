"""An epoch of ours and of LibMTL's on the same files, by the same network. One thread.

    pip install LibMTL
    python -m tests.benchmarks.bench_peers [--windows 5] [--side 64] [--batch 8] [--json FILE]

Files in the layout of the NYUv2 copies are generated, with three tasks of pixels. Each library
trains in a process of its own, without loading workers: a ResNet18 of timm under one FPN that all
tasks share (hard parameter sharing), heads of one convolution, the same losses, the same SGD. The
two take turns epoch by epoch; before that both must have the same losses. The peer runs as it was
published: its trainer, its weighting, its architecture, by equal weights (EW), PCGrad and CAGrad.
Metrics cost it nothing here. It expects a GPU, and torch and torchvision as they were in 2022;
what stands in for these is in `their_epoch`, `_stand_in` and `Encoder.zero_grad`.

Printed are CPU seconds of a step with all that belongs to it (files read, batches made, losses,
gradients, update), which other work on the machine hardly changes; the ratio (median and
quartiles over windows); and the most memory that tensors held at once in an epoch of a process of
its own, the network, its optimiser's state and the gradients among them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from recon_search.data.array_files import read_image, read_label
from recon_search.methods.surgeon import create_surgeon
from recon_search.model.network import MultiTaskModel, build_model
from recon_search.recipe import parse_recipe
from recon_search.runs.run import Run
from recon_search.training.loop import _run_epoch
from recon_search.training.optimisation import create_optimizer
from recon_search.training.step import Learner, Stepper
from tests.benchmarks.bench_branch import spread
from tests.data import test_arrays as nyuv2
from tests.memory import PeakMemory

METHODS = {"EW": "joint", "PCGrad": "pcgrad", "CAGrad": "cagrad"}
"""The peer's name and ours."""

READ = "files read"
Epoch = Callable[[], None]


def make_run(root: Path, method: str, batch: int) -> Run:
    """The network and the data, for both."""
    recipe = {
        "data": {"name": "arrays", "root": str(root), "cache": "none", "workers": 0},
        "tasks": nyuv2.NYU,
        "backbone": {"name": "resnet18"},
        "head": {"kind": "linear", "neck": "shared"},
        "necks": {"shared": {"kind": "fpn"}},
        "train": {
            "method": METHODS.get(method, "joint"),
            "epochs": 1,
            "batch_size": batch,
            "lr": 1e-3,
            "momentum": 0.9,
            "scheduler": "constant",
        },
        "probe": {"epochs": 1},
    }
    return Run(parse_recipe(recipe), root)


def make_model(run: Run) -> MultiTaskModel:
    """The same weights every time."""
    recipe, schema = run.recipe, run.schema
    return build_model(recipe.backbone, recipe.heads, schema.tasks, shape=schema.shape, seed=0)


def our_epoch(run: Run, model: MultiTaskModel) -> Epoch:
    """Train as `recon-search train` does, without what it does between epochs."""
    config, feed = run.recipe.train, run.feed
    n_updates = feed.n_steps("train", config.batch_size, shuffled=True)
    learner = Learner(model, run.schema.tasks, feed, config)
    surgeon = create_surgeon(model, config.method)
    optimizer = create_optimizer(model, config)
    stepper = Stepper(learner, surgeon, optimizer, None, None, n_updates, seed=0)

    def epoch() -> None:
        _run_epoch(stepper, 0, n_updates, None, None)

    return epoch


class Files(torch.utils.data.Dataset[Any]):
    """The same files, read by the same functions, as a data set of torch's."""

    def __init__(self, run: Run) -> None:
        self.folder, self.tasks = Path(str(run.recipe.data.root)) / "train", run.schema.tasks
        self.names = sorted(path.name for path in (self.folder / "image").iterdir())

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        name = self.names[index]
        image, _ = read_image(self.folder / "image" / name, 3)
        size = tuple(image.shape[-2:])
        return image, {t.name: read_label(t, self.folder / t.name / name, size) for t in self.tasks}  # type: ignore[arg-type]


def make_loader(run: Run) -> torch.utils.data.DataLoader[Any]:
    """Shuffled batches of the training part, without the last if it is short."""
    size = run.recipe.train.batch_size
    return torch.utils.data.DataLoader(Files(run), batch_size=size, shuffle=True, drop_last=True)


class Encoder(nn.Module):
    """What all tasks share, as plain modules: normalisation, timm's ResNet18, the FPN."""

    def __init__(self, run: Run, model: MultiTaskModel) -> None:
        super().__init__()
        import timm

        first = run.schema.names[0]
        self.backbone = timm.create_model("resnet18", num_classes=0)
        self.backbone.load_state_dict(model.backbone.task_state_dict(first))
        self.neck = model.heads[first].neck
        self.call, self.normalise = model.backbone.call_of(first), run.feed.inputs.normalise

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Keep `.grad`, as torch did when the peer was written: it puts the result there."""
        super().zero_grad(set_to_none=False)

    def forward(self, images: Tensor) -> Any:
        return tuple(self.neck(self.call.apply(self.backbone, self.normalise(images))))


class Decoder(nn.Module):
    """A task's convolution, and its output brought to the size of the image."""

    def __init__(self, head: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.head, self.size = head, size

    def forward(self, merged: Any) -> Tensor:
        output = self.head(list(merged))
        return nn.functional.interpolate(output, self.size, mode="bilinear", align_corners=False)


def their_epoch(run: Run, model: MultiTaskModel, method: str) -> tuple[Epoch, nn.Module]:
    """Train by the peer's own trainer; returns its network, too."""
    _stand_in()
    from LibMTL import Trainer, architecture, weighting
    from LibMTL.loss import AbsLoss
    from LibMTL.metrics import AbsMetric

    class Loss(AbsLoss):  # type: ignore[misc]
        def __init__(self, task: Any) -> None:
            super().__init__()
            self.compute_loss = task.loss

    class NoMetric(AbsMetric):  # type: ignore[misc]
        def update_fun(self, pred: Tensor, gt: Tensor) -> None:
            pass

        def score_fun(self) -> list[float]:
            return [1.0]

    encoder, size = Encoder(run, model), run.schema.shape[1:]
    config = run.recipe.train
    task_dict = {
        task.name: {
            "metrics": ["none"],
            "metrics_fn": NoMetric(),
            "loss_fn": Loss(task),
            "weight": [1],
        }
        for task in run.schema.tasks
    }
    decoders = nn.ModuleDict({t: Decoder(model.heads[t].head, size) for t in model.tasks})
    cpu = torch.device("cpu")
    with mock.patch.object(torch, "device", return_value=cpu):  # it asks for cuda:0
        trainer = Trainer(
            task_dict=task_dict,
            weighting=getattr(weighting, method),
            architecture=architecture.HPS,
            encoder_class=lambda: encoder,
            decoders=decoders,
            rep_grad=False,
            multi_input=False,
            optim_param={"optim": "sgd", "lr": config.lr, "momentum": config.momentum},
            scheduler_param=None,
            weight_args={"calpha": 0.5, "rescale": 1} if method == "CAGrad" else {},
            arch_args={},
        )
    loader = make_loader(run)
    return lambda: trainer.train(loader, [], epochs=1), trainer.model


def _stand_in() -> None:
    """Give the peer a module of older torchvision that it imports, and iterators their `next`."""
    utils = types.ModuleType("torchvision.models.utils")
    utils.load_state_dict_from_url = torch.hub.load_state_dict_from_url  # type: ignore[attr-defined]
    sys.modules.setdefault("torchvision.models.utils", utils)
    iterators = torch.utils.data.dataloader._BaseDataLoaderIter
    iterators.next = iterators.__next__  # type: ignore[attr-defined]


def prepare(library: str, method: str, root: Path, batch: int) -> tuple[Epoch, int, list[float]]:
    """What a library's process needs: an epoch, its number of steps, and the first losses."""
    torch.set_num_threads(1)
    run = make_run(root, method, batch)
    model = make_model(run)
    n_steps = run.feed.n_steps("train", batch, shuffled=True)
    network: nn.Module = model
    if method == READ:
        steps = (
            (lambda: run.feed.steps("train", batch, (0, 0)))
            if library == "ours"
            else make_loader(run).__iter__
        )
        epoch: Epoch = lambda: [None for _ in steps()].clear()  # noqa: E731
    elif library == "ours":
        epoch = our_epoch(run, model)
    else:
        epoch, network = their_epoch(run, model, method)
    return epoch, n_steps, _losses(run, network, is_ours=network is model)


def work(library: str, method: str, root: Path, batch: int) -> None:
    """Be the process of a library: an epoch for every line read, its seconds a step for each."""
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        epoch, n_steps, losses = prepare(library, method, root, batch)
        print(json.dumps(losses), file=answers, flush=True)
        for _ in sys.stdin:
            started = time.process_time()
            epoch()
            print((time.process_time() - started) / n_steps, file=answers, flush=True)


def weigh(library: str, method: str, root: Path, batch: int) -> None:
    """Be a process that counts: the most MiB of tensors in an epoch, networks and states too."""
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr), PeakMemory() as memory:
        epoch, _, _ = prepare(library, method, root, batch)
        epoch()
    print(memory.peak / 2**20, file=answers, flush=True)


@torch.no_grad()
def _losses(run: Run, network: nn.Module, *, is_ours: bool) -> list[float]:
    """Each task's loss on the first files, in evaluation mode."""
    files = Files(run)
    images, targets = torch.utils.data.default_collate([files[0], files[1]])
    network.eval()
    outputs = network(run.feed.inputs.normalise(images) if is_ours else images)
    return [float(task.loss(outputs[task.name], targets[task.name])) for task in run.schema.tasks]


def measure(method: str, root: Path, batch: int, windows: int) -> dict[str, Any]:
    """Let both take turns; the first window warms up and is left out."""
    libraries = "ours", "LibMTL"
    children = {each: _start("--work", each, method, root, batch) for each in libraries}
    losses = [_ask(child) for child in children.values()]
    if any(abs(a - b) > 1e-4 * abs(b) for a, b in zip(*losses, strict=True)):
        raise SystemExit(f"Both must have the same losses, got {losses[0]} and {losses[1]}.")
    seconds: dict[str, list[float]] = {library: [] for library in libraries}
    for _ in range(windows + 1):
        for library, child in children.items():
            seconds[library].append(_ask(child, "epoch"))
    for child in children.values():
        child.communicate()
    kept = {library: own[1:] for library, own in seconds.items()}
    return {
        **{library: statistics.median(own) for library, own in kept.items()},
        "ratios": [b / a for a, b in zip(*kept.values(), strict=True)],
        "memory": {each: _ask(_start("--weigh", each, method, root, batch)) for each in libraries},
    }


def _start(role: str, library: str, method: str, root: Path, batch: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.benchmarks.bench_peers"),
            *(role, library, method, str(root), "--batch", str(batch)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if "BENCH_VERBOSE" not in os.environ else None,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def _ask(child: subprocess.Popen[str], line: str | None = None) -> Any:
    assert child.stdin is not None and child.stdout is not None  # noqa: PT018
    if line is not None:
        print(line, file=child.stdin, flush=True)
    answer = child.stdout.readline()
    if not answer:
        raise SystemExit(
            "A library's process ended without an answer. Install LibMTL, or set BENCH_VERBOSE=1 "
            "to see why."
        )
    return json.loads(answer)


def main() -> None:
    """Measure, print, and write the numbers if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--samples", type=int, default=48)
    parser.add_argument("--methods", nargs="+", default=[READ, *METHODS], choices=[READ, *METHODS])
    parser.add_argument("--json", type=Path, help="write the numbers there, too")
    for role in ("--work", "--weigh"):
        parser.add_argument(role, nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for act, given in ((work, arguments.work), (weigh, arguments.weigh)):
        if given is not None:
            library, method, root = given
            act(library, method, Path(root), arguments.batch)
            return
    table = Table(title=f"ResNet18 and FPN, {arguments.side}x{arguments.side}, T = 3")
    for heading in ("", "ours, ms a step", "LibMTL", "LibMTL / ours", "ours, MiB", "LibMTL"):
        table.add_column(heading, justify="right")
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        size = {"H": arguments.side, "W": arguments.side}
        with mock.patch.multiple(nyuv2, **size):
            nyuv2.write_tree(Path(folder), {"train": arguments.samples, "val": 2 * arguments.batch})
        for method in arguments.methods:
            found = measure(method, Path(folder), arguments.batch, arguments.windows)
            results[method] = found
            times = [f"{1000 * found[library]:.1f}" for library in ("ours", "LibMTL")]
            memory = [f"{found['memory'][library]:.0f}" for library in ("ours", "LibMTL")]
            ratio = "{median:.2f} ({low:.2f} to {high:.2f})".format(**spread(found["ratios"]))
            table.add_row(method, *times, ratio, *memory)
            if arguments.json:
                arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
