"""Trials: what splitting is worth on several data sets, by several rules, against every control.

    python -m tests.benchmarks.trials --out FOLDER [--only NAME ...] [--data-root FOLDER]
        [--workers 1] [--max-hours H] [--set PATH=VALUE] [--results FOLDER] [--list]

A trial is a command, `recon-search run` of a recipe with what is set besides; `--list` prints them
all. Each leaves its folder, report and all, in FOLDER, and then its record in `recipes/results`:
see `evidence.py`, which makes the documents' tables of them. With `--set`, which changes every
trial, records are kept in FOLDER instead.

What is trained is kept in FOLDER/trainings for all trials, so that those of one recipe train what
they share once. The same command goes on where it ended; what is recorded is not run again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recon_search import artefact
from recon_search.conflict.scores import ConflictScores
from recon_search.graph.split import Split
from recon_search.recipe import Recipe, load_recipe
from recon_search.runs.deadline import Deadline, now
from recon_search.runs.lock import held
from recon_search.runs.run import Run
from recon_search.runs.training import Training
from recon_search.stages.compare import FILE, plan
from recon_search.stages.probe import probe_training
from tests.benchmarks.evidence import RESULTS, ROOT, record_of

TRAININGS = "trainings"

FACTORY = "recon_search.recipes.trials"


@dataclass(frozen=True)
class Trial:
    """A command.

    Attributes:
        recipe: name of a recipe of this repository.
        sets: what is set besides, as `--set` takes it.
        needs_root: whether it reads IDX files.
    """

    recipe: str
    sets: tuple[str, ...] = ()
    needs_root: bool = False

    @property
    def overrides(self) -> list[str]:
        """All that is set: what a trial says of itself goes first."""
        return list({each.partition("=")[0]: each for each in (*PROTOCOL, *self.sets)}.values())

    def load(self, more: list[str]) -> Recipe:
        """Read the recipe."""
        return load_recipe(ROOT / "recipes" / f"{self.recipe}.toml", [*self.overrides, *more])

    def command(self, more: list[str]) -> str:
        """What repeats it, wherever the data are."""
        return shlex.join(["recon-search", *self.words(more, "DATA" if self.needs_root else None)])

    def words(self, more: list[str], root: str | None) -> list[str]:
        """The command's words."""
        place = [] if root is None else ["--data-root", root]
        sets = [word for each in (*self.overrides, *more) for word in ("--set", each)]
        return ["run", f"recipes/{self.recipe}.toml", *place, *sets]


PROTOCOL = ("compare.seeds=5",)
"""Of all trials that do not say otherwise."""

EIGHT = "compare.seeds=8"

ADAMW = (
    *("train.optimizer=adamw", "train.lr=0.003", "train.weight_decay=0.01"),
    *("train.scheduler=cosine", "train.warmup_epochs=1", "train.milestones=[]"),
    *("train.epochs=6", "probe.epochs=6", "probe.every=8", "probe.window=[0.6, 1.0]"),
    *("probe.seeds=4", "probe.confidence=0.7"),
)
"""The quickstart's protocol, for recipes of another."""

WIDE = "backbone.args={ channels = [16, 32, 64, 128], stem_type = 'deep', stem_width = 16 }"
"""Twice as wide as `multi-fashion-mnist-small` has it, four times as the quickstart."""

FIRST = (*ADAMW, "split.rule=projection", "split.threshold=0.0", "split.k=3")
"""The quickstart's split besides."""

SMALLEST = ('compare.controls=["random", "first-k"]',)

ALL_RULES = 'compare.rules=["projection", "mass", "gain", "count", "random", "first-k"]'


WAYS = (
    *("compare.during=true", "split.at=[1, 2, 3]"),
    *('compare.rules=["projection", "random", "first-k"]', 'compare.budgets=["1.5x"]', *SMALLEST),
)
"""Cheaper ways to a split: in turn in one training, and within a limit of computation."""


def _digits(second: str) -> Trial:
    """The left digit of quickstart's pairs, and something else of it."""
    table = f'name = "factory", factory = "{FACTORY}:relabelled"'
    return Trial("quickstart", (EIGHT, f'data={{ {table}, args = {{ second = "{second}" }} }}'))


def _grouped(by: str, most: int) -> Trial:
    """Four tasks that share copies in groups."""
    return Trial("four", (f"split.grouping={by}", f"split.max_groups={most}"), needs_root=True)


def _thinned(overlap: float) -> Trial:
    return Trial("thinned", (f"data.args.overlap={overlap}",), needs_root=True)


TRIALS: dict[str, Trial] = {
    "digits": Trial("quickstart", (EIGHT,)),
    "digits-wide": Trial("quickstart", (EIGHT, WIDE)),
    "twice": _digits("twice"),
    "odd": _digits("odd"),
    "scales": Trial("quickstart", ("tasks.right.weight=10",)),
    "late": Trial("late", (EIGHT,), needs_root=True),
    "four": Trial("four", needs_root=True),
    "thinned-100": _thinned(1.0),
    "thinned-40": _thinned(0.4),
    "thinned-30": _thinned(0.3),
    "thinned-10": _thinned(0.1),
    "thinned-0": _thinned(0.0),
    "transformer": Trial("transformer"),
    "during": Trial("quickstart", ("compare.during=true", *SMALLEST)),
    "during-2": Trial("quickstart", ("compare.during=true", "split.at=2", *SMALLEST)),
    "during-1": Trial("quickstart", ("compare.during=true", "split.at=1", *SMALLEST)),
    "during-in-turn": Trial("quickstart", ("compare.during=true", "split.at=[1, 2, 3]", *SMALLEST)),
    "controls": Trial(
        "quickstart",
        (
            'compare.controls=["norm-only", "norm-gates", "random", "random-params", '
            '"random-flops", "first-k", "last-k", "least", "sparse", "low-rank", '
            '"tuned-weights", "wider"]',
        ),
    ),
    "methods": Trial(
        "quickstart",
        (
            'compare.methods=["joint", "pcgrad", "cagrad", "rotograd", "uw"]',
            "compare.controls=[]",
        ),
    ),
    "grouping-colour-2": _grouped("colour", 2),
    "grouping-colour-3": _grouped("colour", 3),
    "grouping-affinity-2": _grouped("affinity", 2),
    "grouping-affinity-3": _grouped("affinity", 3),
    "rules": Trial("quickstart", (ALL_RULES, "compare.ks=[1, 3, 8, 20]", "compare.controls=[]")),
    "budgets": Trial(
        "quickstart",
        (ALL_RULES, 'compare.budgets=["1.2x", "1.5x", "1.8x"]', "compare.controls=[]"),
    ),
    "digits-ways": Trial("quickstart", WAYS),
    "late-ways": Trial("late", (EIGHT, *WAYS), needs_root=True),
    "four-ways": Trial("four", WAYS, needs_root=True),
    "fashion-ways": Trial(
        "multi-fashion-mnist-small",
        (*FIRST, 'compare.methods=["joint"]', *WAYS),
        needs_root=True,
    ),
    "scenes": Trial("scenes", ("compare.seeds=5", "probe.seeds=4", *SMALLEST)),
    "fashion": Trial(
        "multi-fashion-mnist-small",
        (*FIRST, WIDE, EIGHT, 'compare.methods=["joint"]', *SMALLEST),
        needs_root=True,
    ),
    "fashion-narrow": Trial(
        "multi-fashion-mnist-small",
        (*FIRST, 'compare.methods=["joint"]', *SMALLEST),
        needs_root=True,
    ),
    "fashion-rules": Trial(
        "multi-fashion-mnist-small",
        (
            *FIRST,
            'compare.methods=["joint"]',
            *(ALL_RULES, "compare.ks=[3, 8]", "compare.controls=[]"),
        ),
        needs_root=True,
    ),
    "transformer-fashion": Trial(
        "transformer",
        (
            'data={ name = "multi-fashion-mnist", train = 6000, validation = 1000, test = 5000 }',
            "backbone.args.img_size=36",
        ),
        needs_root=True,
    ),
    "recon-random": Trial(
        "multi-fashion-mnist-small",
        (
            *ADAMW,
            *(WIDE, "compare.seeds=5", 'compare.methods=["pcgrad", "joint"]'),
            'compare.controls=["random", "random-params"]',
        ),
        needs_root=True,
    ),
}
"""In the order in which they run: cheap ones first."""


def main() -> None:
    """Run the trials, or list them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(TRIALS), metavar="NAME")
    parser.add_argument("--data-root", type=Path, help="Trials that need it are else left out.")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--max-hours", type=float)
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--list", action="store_true", help="Print the commands, run none.")
    options = parser.parse_args()
    names = options.only or list(TRIALS)
    if options.list:
        for name in names:
            print(f"{name}: {TRIALS[name].command(options.set)}")
        return
    if options.out is None:
        parser.error("--out must name a folder. Add it.")
    deadline = None if options.max_hours is None else Deadline.after(options.max_hours)
    results = options.results or (options.out / "results" if options.set else RESULTS)
    with held(options.out, "trials"):
        left = [name for name in names if not attempt(name, options, results, deadline)]
    if left:
        sys.exit(f"Not recorded: {', '.join(left)}.")


def attempt(
    name: str, options: argparse.Namespace, results: Path, deadline: Deadline | None
) -> bool:
    """Run a trial and record it; returns whether it is recorded."""
    trial, more, record = TRIALS[name], list(options.set), results / f"{name}.json"
    command = trial.command(more)
    if record.is_file() and json.loads(record.read_text("utf-8"))["command"] == command:
        return True
    if trial.needs_root and options.data_root is None:
        print(f"{name} needs --data-root.", flush=True)
        return False
    if deadline is not None and deadline.is_over():
        return False
    root = str(options.data_root.resolve()) if trial.needs_root else None
    folder = (options.out / name).resolve()
    share_trainings(folder)
    print(f"\n{name}: {command}", flush=True)
    words = [*trial.words(more, root), "--out", str(folder), "--resume", "--device", "cpu"]
    words += ["--workers", str(options.workers)]
    if deadline is not None:
        words += ["--max-hours", f"{(deadline.at - now()) / 3600:.4f}"]
    done = subprocess.run([sys.executable, "-m", "recon_search", *words], cwd=ROOT, check=False)
    if done.returncode or not (folder / FILE).is_file():
        return False
    where = [] if root is None else [f"data.root={json.dumps(root)}"]
    run = Run(trial.load([*where, *more]), folder)
    found = record_of(folder, command, {each.directory(run) for each in trained(run)})
    artefact.write_text(record, json.dumps(found, indent=1) + "\n")
    return True


def share_trainings(folder: Path) -> None:
    """Let a trial keep what it trains beside the folders of all trials."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / TRAININGS).mkdir(exist_ok=True)
    if not (folder / TRAININGS).exists():
        (folder / TRAININGS).symlink_to(Path("..", TRAININGS), target_is_directory=True)


def trained(run: Run) -> Iterator[Training]:
    """All trainings that a finished run is made of; one may come more than once."""
    scores = ConflictScores.load(run.out / "scores.safetensors")
    for seed in scores.metadata["seeds"]:
        yield probe_training(run, seed)
    for line in plan(run, Split.load(run.out / "split.json"), scores):
        for training in line.trainings:
            yield training
            while training.start is not None:
                yield (training := training.start)


if __name__ == "__main__":
    main()
