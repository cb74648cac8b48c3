"""Recon's first table (arXiv 2302.11289, Multi-Fashion+MNIST) by the full protocol, in sittings.

    python -m tests.benchmarks.table_one --data-root DATA --max-minutes 15 --workers 6
    python -m tests.benchmarks.table_one --data-root DATA --list

Every method unsplit, split by our own ranking, and split in the order that Recon's authors
published; every control; RotoGrad with a split. A sitting takes up what the ones before have left:
it times a step of every kind and `bench_step`, then probes, then trains the rows, the first seed of
all before the second of any. It ends before `--max-minutes` are over, with a checkpoint of
whatever is under way, and so do SIGINT and SIGTERM. Trainings are those of the tool and lie in
`--out` under what they depend on: none is trained twice, whatever its row is called.

After each sitting `recipes/results/table-one.json` holds the rows that are complete, beside what
was timed, what is left, and of every sitting the card, the versions and the seconds;
`python -m tests.benchmarks.evidence tables` then makes the table in `recipes/EVIDENCE.md`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table

from recon_search import artefact, interruption
from recon_search.cli.options import choose_device
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import ReconSearchError, TrainingError
from recon_search.interruption import Stopped
from recon_search.runs.deadline import Deadline
from recon_search.runs.folder import open_folder
from recon_search.runs.listener import Listener, Listeners
from recon_search.runs.lock import held
from recon_search.runs.pool import kept_workers, n_workers, train_all
from recon_search.runs.result import Result
from recon_search.runs.run import Run
from recon_search.runs.training import Training
from recon_search.stages.borrow import load_split
from recon_search.stages.check import check
from recon_search.stages.compare import FILE, Line, conclude, plan, seeds_of
from recon_search.stages.origin import write_origin
from recon_search.stages.plan import even_scores, make_plan
from recon_search.stages.probe import FILE as SCORES
from recon_search.stages.probe import probe, probe_training
from recon_search.stages.split import choose_split
from recon_search.views.display import ConsoleListener
from recon_search.views.lines import duration
from recon_search.views.plan import as_json
from tests.benchmarks import bench_step
from tests.benchmarks.evidence import origin_of, record_of
from tests.benchmarks.sittings import (
    Log,
    Sitting,
    describe_rest,
    device_names,
    epochs_done,
    read_sittings,
)
from tests.benchmarks.table_one_recipe import IN_PUBLISHED_ORDER, PUBLISHED, parse, recipe_of

NEEDS_NO_PROBE = ("single", "joint", "borrowed", "trial")
"""Roles of rows whose networks are known before layers are ranked."""

RESERVE = 30.0
"""Seconds of a sitting that are kept for evaluating, for writing, and for Python's start."""

TIMED = 150.0
"""Seconds that must be left for a timing to begin, which no checkpoint cuts short."""

WINDOWS, EVERY = 5, 16
"""Of `bench_step`."""


def main() -> None:
    """Take a sitting, or list what is done and left; a user's mistake is one line."""
    try:
        with interruption.handled():
            _main(parse(sys.argv[1:]))
    except (ReconSearchError, click.UsageError) as error:
        sys.exit(f"error: {error}")


def _main(options: argparse.Namespace) -> None:
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = TableOne.open(options, ConsoleListener(console))
    if options.list:
        show(table, console)
        return
    with held(options.out, "table_one"):
        open_folder(table.run.recipe, options.out, resume=True)
        write_origin(options.out, str(table.run.device), goes_on=True)
        said = table.sit(options.command)
        table.write(options.results, options.command)
    show(table, console)
    console.print(said, soft_wrap=True, highlight=False, markup=False)


@dataclass
class TableOne:
    """The table's rows, what is done of them and what is left.

    Attributes:
        run: the recipe, the folder and the device.
        log: of the sittings.
    """

    run: Run
    log: Log
    _lines: dict[bool, list[Line]] = field(default_factory=dict)

    @classmethod
    def open(cls, options: argparse.Namespace, listener: Listener) -> TableOne:
        """Read the recipe and check it.

        Raises:
            ReconSearchError: it cannot be run here.
        """
        deadline = None
        if options.max_minutes is not None:
            deadline = Deadline.after((60 * options.max_minutes - RESERVE) / 3600)
        log = Log(options.out / "sittings.json")
        run = Run(
            recipe_of(options),
            options.out,
            choose_device(options.device),
            options.workers,
            Listeners([listener, log]),
            deadline,
        )
        check(run)
        return cls(run, log)

    @property
    def scores(self) -> ConflictScores | None:
        """Those of the probe, once it is done."""
        path = self.run.out / SCORES
        return ConflictScores.load(path) if path.is_file() else None

    def lines(self) -> list[Line]:
        """All rows, single-task models first; before the probe its ranking is anybody's guess."""
        known = self.scores is not None
        if known not in self._lines:
            self._lines[known] = self._plan()
        return self._lines[known]

    def _plan(self) -> list[Line]:
        run, scores = self.run, self.scores or even_scores(self.run)
        found = plan(run, choose_split(run.recipe, scores, schema=run.schema), scores)
        bare = run.recipe.compare.model_copy(update={"controls": [], "rules": [], "ks": []})
        alone = run.with_recipe(run.recipe.model_copy(update={"compare": bare}))
        published = {
            line.name: replace(
                line,
                name=f"{line.trainings[0].train.method}, {IN_PUBLISHED_ORDER}",
                role="borrowed",
            )
            for line in plan(alone, load_split(PUBLISHED, run), scores)
            if line.role == "split"
        }
        pairs = [(line, published.get(line.name)) for line in found]
        return [line for pair in pairs for line in pair if line is not None]

    def sit(self, command: str) -> str:
        """Do what is left, or as much of it as there is time for; says how that ended."""
        card, driver = device_names(self.run.device)
        begun = datetime.now(UTC).isoformat(timespec="seconds")
        self.log.open(Sitting(begun, card, driver, n_workers(self.run)))
        before, failed = self._n_done(), self.log.sittings[-1].failed
        while True:
            try:
                with kept_workers():
                    self._work()
                said = "All was tried." if failed else "The table is complete."
            except Stopped as left:
                said = f"{str(left) or 'Ended by a signal'}. The same command goes on."
            except TrainingError as error:
                if not error.training or error.training in failed:
                    raise
                failed[error.training] = str(error)
                continue
            finally:
                self.log.sittings[-1].finished = self._n_done() - before
                self.log.save()
            return " ".join([said, *(f"{name} failed: {why}" for name, why in failed.items())])

    def _work(self) -> None:
        """Take up everything in order; what has failed in this sitting is left out."""
        for name, measure in self._timings().items():
            path = self.run.out / f"{name}.json"
            deadline = self.run.deadline
            if path.is_file() or (deadline is not None and deadline.is_over(TIMED)):
                continue
            artefact.write_json(path, {"card": self.log.sittings[-1].card, **measure()})
            if self.run.device.type == "cuda":
                torch.cuda.empty_cache()
            self.log.save()
        if self.scores is None:
            seeds = range(self.run.recipe.seed, self.run.recipe.seed + self.run.recipe.probe.seeds)
            first = [line for line in self.lines() if line.role in NEEDS_NO_PROBE[:-1]]
            self._train(
                [probe_training(self.run, seed) for seed in seeds]
                + [line.trainings[0] for line in first],
                "probe, and what needs none",
            )
            probe(self.run)
        lines = self.lines()
        split = choose_split(self.run.recipe, self.scores, schema=self.run.schema)  # type: ignore[arg-type]
        split.save(self.run.out / "split.json")
        by_seed = zip(*(line.trainings for line in lines), strict=True)
        self._train([training for one in by_seed for training in one], "table")

    def _timings(self) -> dict[str, Callable[[], dict[str, Any]]]:
        """What is timed once, with nothing beside it, by the name of its file."""

        def steps() -> dict[str, Any]:
            return as_json(make_plan(replace(self.run, workers=1), self.scores, lines=self.lines()))

        def bench(name: str) -> dict[str, Any]:
            device, workload = self.run.device, bench_step.WORKLOADS[name]
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                kinds = bench_step.make_kinds(workload, device, EVERY)
                rows = bench_step.measure(kinds, WINDOWS, EVERY, device)
            finally:
                torch.set_num_threads(threads)
            return {"workload": workload.name, "rows": rows}

        found: dict[str, Callable[[], dict[str, Any]]] = {"plan": steps}
        for name in bench_step.WORKLOADS:
            found[f"bench-{name}"] = lambda name=name: bench(name)  # type: ignore[misc]
        return found

    def _train(self, trainings: Sequence[Training], title: str) -> None:
        failed = self.log.sittings[-1].failed
        trainings = [training for training in trainings if training.name not in failed]
        if any(not self.is_done(training) for training in trainings):
            train_all(trainings, self.run, title)

    def is_done(self, training: Training) -> bool:
        """Whether a training has a result."""
        return Result.is_in(training.directory(self.run))

    def _n_done(self) -> int:
        return len(list(self.run.out.glob("trainings/*/result.json")))

    def complete(self, lines: Sequence[Line]) -> dict[str, list[Result]]:
        """By name of each complete line its results.

        Over the seeds that all lines have, but for those that failed; over the first while there is
        none such, of the lines that have it.
        """
        ever = {name for sitting in self.log.sittings for name in sitting.failed}
        done = {
            line.name: [self.is_done(training) for training in line.trainings] for line in lines
        }
        sound = [
            done[line.name]
            for line in lines
            if all(self.is_done(each) or each.name not in ever for each in line.trainings)
        ]
        n = 1
        while n < len(seeds_of(self.run)) and all(all(own[: n + 1]) for own in sound):
            n += 1
        names = {name for name, own in done.items() if all(own[:n])}
        trials = {line.name for line in lines if line.role == "trial"}
        if not trials <= names:
            names -= trials
        return {
            line.name: [self._result(training) for training in line.trainings[:n]]
            for line in lines
            if line.name in names
        }

    def _result(self, training: Training) -> Result:
        found = Result.load(training.directory(self.run))
        assert found is not None
        return found

    def write(self, path: Path, command: str) -> None:
        """Write what is known so far."""
        lines, out = self.lines(), self.run.out
        found, scores = self.complete(lines), self.scores
        record = origin_of(out, command)
        firsts = {line.role: line.name for line in reversed(lines)}
        needed = {line.name for line in lines if line.role == "single"}
        needed |= {firsts["joint"], firsts["split"]}
        if scores is not None and needed <= found.keys():
            split = choose_split(self.run.recipe, scores, schema=self.run.schema)
            conclude(self.run, split, lines, found).save(out / FILE)
            record = record_of(out, command)
        cards = dict.fromkeys(each.card for each in self.log.sittings)
        trainings = [training for line in lines for training in line.trainings]
        record |= {
            "machine": "; ".join([*cards, record["machine"]]),
            "published": "recon-table-one",
            "left": sum(not self.is_done(training) for training in trainings),
            "seconds": round(sum(each.seconds for each in self.log.sittings)),
            "sittings": [asdict(each) for each in self.log.sittings],
            "batch_size": self.run.recipe.train.batch_size,
            "timed": {
                name: artefact.read_object(out / f"{name}.json", "timing")
                for name in self._timings()
                if (out / f"{name}.json").is_file()
            },
        }
        artefact.write_text(path, json.dumps(record, indent=1) + "\n")


def show(table: TableOne, console: Console) -> None:
    """Print what is done and left, row by row, and how long the rest may take."""
    lines = table.lines()
    path = table.run.out / "plan.json"
    known = artefact.read_object(path, "plan") if path.is_file() else {"lines": []}
    each = {line["name"]: line["seconds"]["middle"] / line["epochs"] for line in known["lines"]}
    shown = Table(title="Recon's first table", title_justify="left")
    shown.add_column("row")
    for name in ("done", "epochs", "took", "left, estimated"):
        shown.add_column(name, justify="right", no_wrap=True)
    seen: set[Path] = set()
    total, left = 0.0, 0
    seeds = range(table.run.recipe.seed, table.run.recipe.seed + table.run.recipe.probe.seeds)
    probing = Line("probe", "probe", tuple(probe_training(table.run, seed) for seed in seeds))
    for line in [probing, *lines]:
        epochs = [epochs_done(training.directory(table.run)) for training in line.trainings]
        of = line.trainings[0].train.epochs
        done = [training for training in line.trainings if table.is_done(training)]
        took = sum(table._result(training).seconds for training in done)
        folders = [training.directory(table.run) for training in line.trainings]
        new = {folder: of - n for folder, n in zip(folders, epochs, strict=True) if n < of}
        new = {folder: n for folder, n in new.items() if folder not in seen}
        seen |= set(new)
        rest = sum(new.values()) * each[line.name] if line.name in each else None
        total, left = total + (rest or 0.0), left + sum(new.values())
        shown.add_row(
            line.name,
            f"{len(done)} of {len(line.trainings)}",
            f"{sum(epochs)} of {of * len(epochs)}",
            duration(took) if done else "",
            "" if rest is None or not new else duration(rest),
        )
    console.print(shown)
    console.print(describe_rest(left, total, read_sittings(table.log.path)), soft_wrap=True)


if __name__ == "__main__":
    main()
