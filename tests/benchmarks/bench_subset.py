"""How well a probe of random subsets of the tasks, or of sketches, ranks as one of all does.

    python -m tests.benchmarks.bench_subset --json subset.json [--seeds 3] [--steps 100]

Ten tasks on pairs of scikit-learn's digits: of each digit which it is, whether it is odd, above
four, and has a loop; whether both are odd or even alike, and whether the left is the larger. A
narrow ResNet18 is trained jointly, and at every `--every`-th step all ways of measuring look at the
same gradients: all tasks' whole ones; those of a random subset; sketches; both. For each rule are
printed Spearman's rho of the layers' values and the share of the top k in common, means over seeds:
with the measurement of all of the same training, and with that of all of another seed's training.
The first row's second pair is thus the ceiling: what two full probes have in common. Rules read
the last 40 % of the probe. The file is written after every seed; seeds that it holds are not run
again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from recon_search.conflict.gramian import layer_gramians, task_gradients
from recon_search.conflict.rules import Reading, find_rule
from recon_search.conflict.scores import ConflictScores
from recon_search.conflict.sketch import Sketch, Sketches
from recon_search.data.digits import multi_digits
from recon_search.data.resident import Part, ResidentFeed
from recon_search.data.source import Schema
from recon_search.model.network import build_model
from recon_search.recipe import BackboneConfig, HeadConfig, TrainConfig
from recon_search.tasks.classes import Classes
from recon_search.training.step import Learner

RULES = ("projection", "mass", "count")
READING = Reading(window=(0.6, 1.0))
SUBSETS = (3, 4, 6)
SIZES = (64, 256, 1024)
BOTH = (4, 256)
Values = dict[str, dict[str, list[float]]]
"""By way of measuring and rule, each layer's value."""


def make_feed(n_train: int) -> ResidentFeed:
    """Compose the pairs of digits, with labels of ten tasks."""
    sizes = {"train": n_train, "validation": 64, "test": 64}
    composed = multi_digits(sizes, 24, seed=0).open(torch.device("cpu"))  # type: ignore[arg-type]
    has_loop = torch.tensor([digit in (0, 6, 8, 9) for digit in range(10)])
    parts, n_classes = {}, {}
    for name, part in composed.parts.items():
        targets = {}
        for side in ("left", "right"):
            digit = part.targets[side]
            targets[side] = digit
            targets[f"{side} odd"] = digit % 2
            targets[f"{side} above four"] = (digit > 4).long()
            targets[f"{side} loop"] = has_loop[digit].long()
        left, right = targets["left"], targets["right"]
        targets["alike"] = ((left + right) % 2 == 0).long()
        targets["left larger"] = (left > right).long()
        n_classes = {task: 10 if task in ("left", "right") else 2 for task in targets}
        parts[name] = Part(part.inputs, targets)
    tasks = tuple(Classes(task, n) for task, n in n_classes.items())
    return ResidentFeed(Schema(tasks, composed.schema.shape, frozenset(n_classes)), parts)


def probe(arguments: argparse.Namespace, feed: ResidentFeed, seed: int) -> Values:
    """Train jointly, and measure in every way at once."""
    tasks = feed.schema.names
    backbone = BackboneConfig(name="resnet18", args={"channels": [8, 16, 32, 64]})
    model = build_model(
        backbone, HeadConfig(), feed.schema.tasks, shape=feed.schema.shape, seed=seed
    )
    config = TrainConfig(epochs=1, batch_size=32, lr=0.003, optimizer="adamw")
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr)
    learner = Learner(model, feed.schema.tasks, feed, config)
    layers = {
        name: [p for copy in own for p in copy.parameters]
        for name, own in model.backbone.layers().items()
    }
    names = ["all", *(f"{n} of {len(tasks)} tasks" for n in SUBSETS)]
    names += [f"sketch {n}" for n in SIZES]
    names += [f"{BOTH[0]} of {len(tasks)} tasks, sketch {BOTH[1]}"]
    scores = {name: ConflictScores(list(layers), tasks) for name in names}
    sketches = [Sketch(n, seed) for n in SIZES]
    generator = torch.Generator().manual_seed(seed)
    wanted = [p for p in model.parameters() if p.requires_grad]
    stream = itertools.chain.from_iterable(
        feed.steps("train", config.batch_size, (seed, epoch)) for epoch in itertools.count()
    )
    for number, batches in enumerate(itertools.islice(stream, arguments.steps * arguments.every)):
        losses, _ = learner.losses(batches)
        optimizer.zero_grad()
        if number % arguments.every:
            torch.stack(list(losses.values())).sum().backward()
            optimizer.step()
            continue
        found = task_gradients(list(losses.values()), [wanted] * len(tasks))
        for parameter in wanted:
            parameter.grad = sum(one[parameter] for one in found if parameter in one)  # type: ignore[assignment]
        at = number / (arguments.steps * arguments.every)
        exact = layer_gramians(found, layers)
        order = torch.randperm(len(tasks), generator=generator).tolist()
        drawn = {n: [tasks[index] for index in order[:n]] for n in SUBSETS}
        scores["all"].update(exact, at=at)
        for n in SUBSETS:
            scores[f"{n} of {len(tasks)} tasks"].update(exact, at=at, present=drawn[n])
        for sketch in sketches:
            kept = Sketches(sketch, [[layer] for layer in layers.values()], len(tasks))
            for task, gradients in enumerate(found):
                kept.take_all(task, gradients)
            estimate = kept.gramians(exact)
            sketch.step += 1
            scores[f"sketch {sketch.size}"].update(estimate, at=at)
            if sketch.size == BOTH[1]:
                scores[names[-1]].update(estimate, at=at, present=drawn[BOTH[0]])
        optimizer.step()
    return {
        name: {rule: find_rule(rule).evaluate(own, READING).tolist() for rule in RULES}
        for name, own in scores.items()
    }


def agreement(pairs: list[tuple[list[float], list[float]]], k: int) -> str:
    """Means over pairs: Spearman's rho, and the share of the top k in common."""
    rhos = [float(spearmanr(*pair).statistic) for pair in pairs]
    shares = [len(top(a, k) & top(b, k)) / k for a, b in pairs]
    return f"{statistics.fmean(rhos):.2f} / {statistics.fmean(shares):.2f}"


def top(values: list[float], k: int) -> set[int]:
    """Indices of the k highest values, ties in order."""
    return set(sorted(range(len(values)), key=lambda index: -values[index])[:k])


def show(found: list[Values], k: int) -> None:
    """Print one line a way of measuring."""
    table = Table("measured", title=f"rho / top {k} in common", title_justify="left")
    for rule in RULES:
        table.add_column(f"{rule}: all, same seed", justify="right")
        table.add_column("all, another", justify="right")
    for name in found[0]:
        cells = []
        for rule in RULES:
            same = [(one[name][rule], one["all"][rule]) for one in found]
            others = [
                (one[name][rule], other["all"][rule])
                for one, other in itertools.permutations(found, 2)
            ]
            cells += [agreement(same, k), agreement(others, k)]
        table.add_row(name, *cells)
    Console(width=140).print(table)


def main() -> None:
    """Probe every seed, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100, help="measured steps of a probe")
    parser.add_argument("--every", type=int, default=4, help="steps from one measured to the next")
    parser.add_argument("--train", type=int, default=4000, help="pairs of digits")
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    feed = make_feed(arguments.train)
    path = arguments.json
    found: list[Values] = json.loads(path.read_text()) if path.is_file() else []
    for seed in range(len(found), arguments.seeds):
        found.append(probe(arguments, feed, seed))
        path.write_text(json.dumps(found) + "\n")
    show(found[: arguments.seeds], arguments.k)


if __name__ == "__main__":
    main()
