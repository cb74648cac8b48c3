"""What a run will train and take, from a few steps of its networks, before it starts."""

from __future__ import annotations

import heapq
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from recon_search.conflict.rules import RULES
from recon_search.conflict.scores import ConflictScores
from recon_search.graph.cost import cost_of
from recon_search.graph.split import Split
from recon_search.methods.registry import find_method
from recon_search.model.copies import surplus
from recon_search.model.network import build_model
from recon_search.model.source import untrained
from recon_search.recipe import LEAST_SEEDS
from recon_search.runs.fitting import count_flops
from recon_search.runs.pool import n_workers
from recon_search.runs.result import Result
from recon_search.runs.run import Run
from recon_search.runs.timing import Span, time_judging, time_opening, time_saving, time_steps
from recon_search.runs.training import Training, empty_scores
from recon_search.stages.compare import Line, first_parts, plan
from recon_search.stages.planned import Plan, Planned, StepCost
from recon_search.stages.probe import probe_training
from recon_search.stages.split import choose_split

Tell = Callable[[int, int], None]


def _silent(done: int, total: int) -> None:
    """Say nothing."""


def make_plan(
    run: Run,
    scores: ConflictScores | None = None,
    tell: Tell = _silent,
    lines: Sequence[Line] | None = None,
) -> Plan:
    """List what `run_all` would train, and time a few steps of each kind.

    The recipe must have passed `check`. Nothing is written.

    Args:
        run: the recipe; what its folder holds is not trained again.
        scores: of a probe, by which the split is known; without them one stands for it.
        tell: hears of so many lines timed, and of how many there are.
        lines: to train after the probe, if not those of the comparison.
    """
    workers, threads = n_workers(run), torch.get_num_threads()
    planner = _Planner(run, scores, lines)
    torch.set_num_threads(max(1, threads // workers))  # as workers have them
    try:
        planned, left = planner.lines(tell)
    finally:
        torch.set_num_threads(threads)
    steps = list(planner.steps.values())
    seconds, memory = _total(run, left, workers), _memory(run.device)
    return Plan(planned, steps, planner.is_probed, str(run.device), workers, seconds, memory)


class _Planner:
    """Plans one run.

    Args:
        run: see `make_plan`.
        scores: see `make_plan`.
        wanted: see `make_plan`.
    """

    def __init__(
        self, run: Run, scores: ConflictScores | None, wanted: Sequence[Line] | None = None
    ) -> None:
        self.run, self.is_probed, self.wanted = run, scores is not None, wanted
        self.scores = even_scores(run) if scores is None else scores
        self.split = choose_split(run.recipe, self.scores, schema=run.schema)
        self.opening = time_opening(run)
        self.steps: dict[tuple[str, str, bool, int, int], StepCost] = {}
        self._networks: dict[str, _Network] = {}

    def lines(self, tell: Tell) -> tuple[list[Planned], list[list[Span]]]:
        """Return the lines, and the seconds of what is left of each."""
        wanted = self._wanted()
        seen: set[object] = set()
        planned, left = [], []
        for line in wanted:
            first = line.trainings[0]
            new = [training for training in line.trainings if self._is_new(line, training, seen)]
            if line.role == "probe" and self.is_probed:
                new = []
            seconds = self._seconds(first, is_tested=line.role not in ("probe", "part"))
            left.append([seconds] * len(new))
            n, method, epochs = len(line.trainings), first.train.method, _n_epochs(first)
            sizes = self._sizes(line)
            one = Planned(line.name, line.role, method, n, n - len(new), epochs, *sizes, seconds)
            planned.append(one)
            tell(len(planned), len(wanted))
        return planned, left

    def _wanted(self) -> list[Line]:
        """What probes comes first, if only a first part that others go on with."""
        run, recipe = self.run, self.run.recipe
        if self.wanted is None and recipe.split.when == "during":
            return [*first_parts(run), *plan(run, self.split, self.scores)]
        seeds = range(recipe.seed, recipe.seed + recipe.probe.seeds)
        probing = Line("probe", "probe", tuple(probe_training(run, seed) for seed in seeds))
        if self.wanted is not None:
            return [probing, *self.wanted]
        return [probing, *first_parts(run), *plan(run, self.split, self.scores)]

    def _is_new(self, line: Line, training: Training, seen: set[object]) -> bool:
        """Whether a training is still to be done, and no line above has it."""
        key: object = training.directory(self.run)
        if self._is_guess(line):
            key = line.name, training.seed
        elif Result.is_in(training.directory(self.run)):
            return False
        if key in seen:
            return False
        seen.add(key)
        return True

    def _is_guess(self, line: Line) -> bool:
        """Whether a line's networks depend on what the probe will find."""
        if line.role in ("probe", "part", "single", "joint", "borrowed", "layer"):
            return False
        if line.role == "during" or (line.trainings[0].goes_on and line.role == "split"):
            parts = [training.start for training in line.trainings if training.start]
            return not all(Result.is_in(part.directory(self.run)) for part in parts)
        if self.is_probed:
            return False
        rules = [training.split.chosen["rule"] for training in line.trainings if training.split]
        if not rules:  # a wider one is as wide as the split is large
            return line.trainings[0].backbone != self.run.recipe.backbone
        return any(rule not in RULES or RULES[rule].measures for rule in rules)

    def _sizes(self, line: Line) -> tuple[tuple[int, int], tuple[int, int]]:
        """The least and the most parameters and FLOPs of a line's networks."""
        found = [self._size(training) for training in line.trainings]
        parameters, flops = [size[0] for size in found], [size[1] for size in found]
        first = line.trainings[0]
        if self._is_guess(line) and first.split is not None:
            base = self._size(replace(first, split=None))
            sizes = sorted(info.n_parameters for info in first.facts(self.run).analysis.infos)
            copies = len(first.tasks) - 1
            most = base[0] + copies * sum(sizes[-len(first.split.layers) :])
            parameters, flops = [base[0], most], [base[1], *flops]
        return (min(parameters), max(parameters)), (min(flops), max(flops))

    def _size(self, training: Training) -> tuple[int, int]:
        """Parameters and FLOPs of a training's network, heads included."""
        network = self._network(training)
        split = training.split or Split(training.tasks, {})
        facts = training.facts(self.run)
        cost = cost_of(facts.analysis.trace, facts.analysis.lay_out(split), facts.analysis.inputs)
        more = surplus(facts.analysis, split, training.copies) + network.parameters
        return cost.total_parameters + more, cost.total_flops + network.flops

    def _seconds(self, training: Training, *, is_tested: bool) -> Span:
        """Seconds of one training: making ready, its steps, and what ends its epochs."""
        config, network = training.train, self._network(training)
        feed = self.run.feed.select(training.tasks)
        n_inputs = feed.n_steps("train", config.batch_size, shuffled=True)
        n_steps = _n_epochs(training) * -(-n_inputs // config.accumulate)
        n_measured = -(-n_steps // config.measure_every) if config.measure_every else 0
        seconds = self._step(training, False) * (n_steps - n_measured)
        seconds += network.setup + self.opening
        if n_measured:
            seconds += self._step(training, True) * n_measured
        seconds += (network.validation + network.saving) * _n_epochs(training)
        return seconds + network.test if is_tested else seconds

    def _step(self, training: Training, measured: bool) -> Span:
        """Seconds of a step; of another split than the plan's, by FLOPs between two timed ones."""
        if training.split is not None and training.split != self.split:
            none, ours = (replace(training, split=split) for split in (None, self.split))
            base, most, own = (self._size(each)[1] for each in (none, ours, training))
            share = (own - base) / (most - base) if most > base else 0.0
            return self._step(none, measured) * (1 - share) + self._step(ours, measured) * share
        kind, config = self._kind(training), training.train
        how = (config.measure_tasks, config.measure_sketch) if measured else (0, 0)
        key = kind, config.method, measured, *how
        if key not in self.steps:
            config = config.model_copy(update={"measure_every": int(measured)})
            changed = replace(training, train=config)
            kept = self._gradients(changed, measured)
            self.steps[key] = StepCost(*key, time_steps(changed, self.run), kept)
        return self.steps[key].seconds

    def _gradients(self, training: Training, measured: bool) -> int:
        """Bytes of gradients that a step keeps at once, in single precision.

        One set is that of all parameters. A task's is of those on its path: of the backbone as
        many as it has unsplit, and its head.
        """
        config, n = training.train, len(training.tasks)
        facts, needs = training.facts(self.run), find_method(training.train.method).needs
        sizes = [info.n_parameters for info in facts.analysis.infos]
        whole = self._size(training)[0]
        own = self._size(replace(training, split=None))[0] - self._network(training).parameters
        own += self._network(training).parameters // n
        drawn = config.measure_tasks if 0 < config.measure_tasks < n else n
        if needs in ("Gramian", "gradients"):
            sampled = config.options.get("tasks_per_step") or n
            apart = min(n, sampled + (drawn if measured else 0))
            kept = apart * own * (2 if needs == "gradients" else 1)
            return 4 * max(kept + (whole if apart < n else 0), whole)
        if not measured:
            return 4 * whole
        if config.measure_sketch:
            numbers = sum(min(size, config.measure_sketch) for size in sizes)
            return 4 * (whole + drawn * numbers)
        if config.low_memory:
            return 4 * (whole + drawn * max(sizes))
        return 4 * (drawn * own + (whole if drawn < n else 0))

    def _kind(self, training: Training) -> str:
        """What to call a training's network."""
        if training.backbone != self.run.recipe.backbone:
            return "wider"
        if len(training.tasks) < len(self.run.schema.names):
            return "one task"
        if training.split is None:
            return "unsplit"
        return "split" if training.copies.kind == "full" else f"split, {training.copies.kind}"

    def _network(self, training: Training) -> _Network:
        """What is known of a network of that kind; of splits the plan's stands for all."""
        kind = self._kind(training)
        if kind == "one task" and self.run.schema.apart:  # each has images of its own to judge
            kind = f"task {training.tasks[0]}"
        if kind not in self._networks:
            known = replace(training, split=None if training.split is None else self.split)
            self._networks[kind] = _Network.of(known, self.run)
        return self._networks[kind]


@dataclass(frozen=True)
class _Network:
    """What is measured of a network once.

    Attributes:
        parameters: of its heads.
        flops: of its heads.
        setup: seconds to make it.
        validation: seconds to evaluate it on that part.
        test: likewise.
        saving: seconds to write a checkpoint.
    """

    parameters: int
    flops: int
    setup: Span
    validation: Span
    test: Span
    saving: Span

    @classmethod
    def of(cls, training: Training, run: Run) -> _Network:
        """Make a training's network and measure it."""
        shape = run.schema.shape
        started = time.perf_counter()
        model = build_model(
            untrained(training.backbone),
            run.recipe.heads,
            run.schema.select(training.tasks),
            shape=shape,
            split=training.split,
            frozen=training.train.freeze,
        ).to(run.device)
        flops = count_flops(model, torch.zeros(1, *shape, device=run.device))
        setup = time.perf_counter() - started
        facts = training.facts(run)
        layout = facts.analysis.lay_out(training.split or Split(training.tasks, {}))
        cost = cost_of(facts.analysis.trace, layout, facts.analysis.inputs)
        return cls(
            model.n_parameters - cost.total_parameters,
            flops - cost.total_flops,
            Span(setup, setup, setup),
            time_judging(model, run, "validation"),
            time_judging(model, run, "test"),
            time_saving(model, training.train),
        )


def even_scores(run: Run) -> ConflictScores:
    """Scores in which all layers conflict alike: every rule that measures takes the first ones."""
    scores = empty_scores(probe_training(run, run.recipe.seed), run)
    n = len(run.schema.names)
    gramian = 2.0 * torch.eye(n, dtype=torch.float64) - 1
    for tenth in range(10):
        scores.update(gramian.expand(len(scores.layers), n, n), at=(tenth + 0.5) / 10)
    return scores


def _n_epochs(training: Training) -> int:
    """Epochs that a training takes, at most, but for those of the first part that it goes on with.

    Parts that follow the first are counted with the training that they end in.
    """
    first = training
    while first.start is not None:
        first = first.start
    before = 0 if first is training else first.until
    return (training.until or training.train.epochs) - (before or 0)


def _total(run: Run, left: Sequence[Sequence[Span]], workers: int) -> Span:
    """Seconds of a run: the probe, as short or as long as it may be, then everything else."""
    recipe = run.recipe
    probes, rest = list(left[0]), [seconds for line in left[1:] for seconds in line]
    is_fixed = recipe.probe.confidence is None or recipe.split.when == "during"
    least = len(probes) if is_fixed else min(LEAST_SEEDS, len(probes))
    numbers = {"low": least, "middle": -(-(least + len(probes)) // 2), "high": len(probes)}
    found = {
        end: _together([getattr(each, end) for each in probes[:n]], workers)
        + _together([getattr(each, end) for each in rest], workers)
        for end, n in numbers.items()
    }
    return Span(**found)


def _together(seconds: Sequence[float], workers: int) -> float:
    """Time that workers need who take one training after another, in order."""
    free = [0.0] * workers
    for each in seconds:
        heapq.heappush(free, heapq.heappop(free) + each)
    return max(free)


def _memory(device: torch.device) -> int:
    """The most bytes that were in use: on the GPU, or by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else 1024 * used
