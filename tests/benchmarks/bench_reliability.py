"""How far rankings can be trusted, by measured steps, by how far apart these lie, and by rule.

    python -m tests.benchmarks.bench_reliability recipes/multi-fashion-mnist-small.toml \
        --data-root FOLDER --json reliability.json [--seeds 3] [--every 1 4 16]

Joint trainings of the recipe's unsplit network at a constant learning rate, one for each seed and
distance n between measured steps. Each is read when it has measured 100, 300, 1,000 and 3,000
steps, as if it had ended there. For every reading and rule are printed, as means over seeds or
pairs of seeds: Kendall's tau between the two halves of one probe; Kendall's tau between the probes
of two seeds; the share of the top k that two seeds agree on (k / L by chance). The file is written
after every reading; readings that it holds are not computed again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau

from recon_search import artefact
from recon_search.conflict.reliability import measure_reliability
from recon_search.conflict.rules import Reading, find_rule
from recon_search.conflict.scores import ConflictScores
from recon_search.data.registry import find_source
from recon_search.data.source import Feed
from recon_search.graph.layers import describe
from recon_search.methods.surgeon import create_surgeon
from recon_search.model.network import build_model, create_backbone
from recon_search.recipe import Recipe, load_recipe
from recon_search.training.step import Learner

LENGTHS = (100, 300, 1000, 3000)
LATE = (0.6, 1.0)
RULES = {
    "count": Reading(),
    "count, late": Reading(window=LATE),
    "projection": Reading(),
    "projection, late": Reading(window=LATE),
    "mass, late": Reading(window=LATE),
}
"""Names to print, the first word is the rule; and how the scores are read."""


def probe(
    recipe: Recipe, feed: Feed, seed: int, every: int, lengths: list[int]
) -> Iterator[tuple[int, ConflictScores]]:
    """Yield the scores at each length, every one as if the probe had ended there."""
    schema = feed.schema
    backbone = create_backbone(recipe.backbone, in_chans=schema.shape[0])
    infos = describe(backbone)
    layer_infos = [
        {"name": i.name, "type": i.type, "n_parameters": i.n_parameters, "is_norm": i.is_norm}
        for i in infos
    ]
    readings = {
        length: ConflictScores(
            [info.name for info in infos], schema.names, {"layer_infos": layer_infos}
        )
        for length in lengths
    }
    model = build_model(
        recipe.backbone, recipe.head, schema.tasks, shape=schema.shape, seed=seed
    ).to(feed.device)
    combiner = create_surgeon(model, "joint")
    optimizer = torch.optim.SGD(
        model.parameters(), lr=recipe.train.lr, momentum=recipe.train.momentum
    )
    learner = Learner(model, schema.tasks, feed, recipe.train)
    stream = itertools.chain.from_iterable(
        feed.steps("train", recipe.train.batch_size, (seed, epoch)) for epoch in itertools.count()
    )
    for step, batches in enumerate(stream):
        measured, rest = divmod(step, every)
        losses, _ = learner.losses(batches)
        optimizer.zero_grad()
        gramians = combiner.backward(losses, measure=rest == 0)
        optimizer.step()
        if gramians is None:
            continue
        for length, scores in readings.items():
            if measured < length:
                scores.update(gramians, at=measured / length)
        if measured + 1 in readings:
            yield measured + 1, readings.pop(measured + 1)
        if not readings:
            return


def read(scores: ConflictScores, k: int) -> dict[str, Any]:
    """What is kept of one reading: each rule's values, and how well its halves agree."""
    rows = {}
    for name, reading in RULES.items():
        rule = name.partition(",")[0]
        rows[name] = {
            "values": find_rule(rule).evaluate(scores, reading).tolist(),
            "halves": measure_reliability(scores, rule, reading, k).tau,
        }
    return rows


def summarise(found: dict[str, Any], k: int) -> Table:
    """One line a rule, length and distance."""
    table = Table(title=f"Agreement of rankings, k = {k}", title_justify="left")
    for column in ("rule", "measured", "n", "seeds", "tau, halves", "tau, seeds", "top k, seeds"):
        table.add_column(column, justify="left" if column == "rule" else "right")
    cells: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    for key, rows in found.items():
        _, every, length = map(int, key.split("/"))
        for name, row in rows.items():
            cells.setdefault((name, length, every), []).append(row)
    names = list(RULES)
    for (name, length, every), rows in sorted(
        cells.items(), key=lambda item: (names.index(item[0][0]), *item[0][1:])
    ):
        pairs = list(itertools.combinations([row["values"] for row in rows], 2))
        taus = [float(kendalltau(*pair).statistic) for pair in pairs]
        overlaps = [len(top(a, k) & top(b, k)) / k for a, b in pairs]
        halves = [row["halves"] for row in rows]
        table.add_row(
            name, f"{length:,}", str(every), str(len(rows)), *map(spread, (halves, taus, overlaps))
        )
    return table


def top(values: list[float], k: int) -> set[int]:
    """Indices of the k highest values, ties in order."""
    return set(sorted(range(len(values)), key=lambda index: -values[index])[:k])


def spread(values: list[float]) -> str:
    """Mean, and range where there is one."""
    if not values:
        return ""
    return f"{statistics.fmean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Run what the file lacks, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data-root")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--every", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--most", type=int, default=max(LENGTHS), help="longest reading")
    parser.add_argument("--k", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    overrides = list(arguments.set)
    if arguments.data_root:
        overrides.append(f"data.root={json.dumps(arguments.data_root)}")
    recipe = load_recipe(arguments.recipe, overrides)
    feed = find_source(recipe.data).open(torch.device(arguments.device))
    path = arguments.json
    found = json.loads(path.read_text()) if path.is_file() else {}
    lengths = [length for length in LENGTHS if length <= arguments.most]
    for every, seed in itertools.product(arguments.every, range(arguments.seeds)):
        key = f"{seed}/{every}"
        if all(f"{key}/{length}" in found for length in lengths):
            continue
        started = time.perf_counter()
        for length, scores in probe(recipe, feed, seed, every, lengths):
            found[f"{key}/{length}"] = read(scores, arguments.k)
            artefact.write_json(path, found)
            seconds = time.perf_counter() - started
            print(f"seed {seed}, n = {every}: {length} measured, {seconds:.0f} s", flush=True)
    Console(width=130).print(summarise(found, arguments.k))


if __name__ == "__main__":
    main()
