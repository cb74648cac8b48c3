"""Which layers are worth a split, one at a time? And which rule would have said so?"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from recon_search.conflict.rules import RULES, Rule, rank
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import RecipeError, nearest
from recon_search.graph.split import Split
from recon_search.runs.ablation import Ablated, Ablation, Foretold, find_ceiling, foretell
from recon_search.runs.comparison import Row
from recon_search.runs.judging import Trained, make_rows
from recon_search.runs.paired import adjust, paired
from recon_search.runs.pool import train_all
from recon_search.runs.run import Run
from recon_search.runs.training import Training
from recon_search.stages.baselines import describe_doubts, doubts, judged_tasks
from recon_search.stages.compare import Line, seeds_of, single_lines
from recon_search.stages.split import reading_of
from recon_search.tasks.task import directions

FILE = "ablation.json"

ALL = "all"


def choose_ablated(layers: Sequence[str], wanted: str) -> list[str]:
    """Return the layers to split, in graph order.

    Args:
        layers: those that can be split, in graph order.
        wanted: `all`; a number of layers, evenly spaced from the first to the last; or patterns
            with `*` and `?`, separated by commas.

    Raises:
        RecipeError: the number is out of range, or a pattern fits no layer.
    """
    n = len(layers)
    if wanted == ALL:
        return list(layers)
    if wanted.strip().lstrip("-").isdecimal():
        k = int(wanted)
        if not 1 <= k <= n:
            raise RecipeError(
                f"--layers must be between 1 and {n} (layers that can be split), got {k}. Lower "
                f"it, or pass {ALL}."
            )
        places = [round(i * (n - 1) / (k - 1)) for i in range(k)] if k > 1 else [0]
        return [layers[place] for place in places]
    chosen: set[str] = set()
    for pattern in (part.strip() for part in wanted.split(",")):
        found = fnmatch.filter(layers, pattern)
        if not found:
            raise RecipeError(
                f"--layers must be {ALL}, a number, or patterns of layers' names, no layer fits "
                f"'{pattern}'.{nearest(pattern, layers)} Look at `recon-search ls layers`."
            )
        chosen.update(found)
    return [layer for layer in layers if layer in chosen]


def ablate(run: Run, scores: ConflictScores, wanted: str = ALL) -> Ablation:
    """Split one layer at a time, train over the recipe's seeds, and write `ablation.json`.

    Every training is one of `compare`'s kind, by the first of `compare.methods`: what the folder
    holds is taken as it is, and single-task and joint networks are those of the comparison.

    Args:
        run: the recipe, with `compare.seeds`.
        scores: of the probe, by which the rules rank.
        wanted: which layers, as `choose_ablated` takes them.
    """
    lines = plan(run, wanted)
    every = [training for line in lines for training in line.trainings]
    results = iter(train_all(every, run, "ablate"))
    by_line = {line.name: [next(results) for _ in line.trainings] for line in lines}
    tasks = judged_tasks(run)
    single = {task.name: by_line[f"single {task.name}"] for task in tasks}
    trained = [
        Trained(line.name, "joint" if line.role == "joint" else "rule", by_line[line.name])
        for line in lines[len(tasks) :]
    ]
    judged_by = directions(tasks)
    joint, *split = make_rows(trained, single, judged_by, run.recipe.compare.delta_m)
    layers = _benefits(joint, [row for row in split if row.role == "rule"])
    found = Ablation(
        seeds=list(seeds_of(run)),
        method=joint.method,
        joint=joint.delta_m,
        layers=layers,
        rules=_rules(run, scores, layers),
        ceiling=find_ceiling([_less(own.delta_m, joint.delta_m) for own in layers]),
        threshold=run.recipe.split.threshold,
        window=run.recipe.probe.window,
        n_layers=len(scores.layers),
        warning=describe_doubts(doubts(single, judged_by)),
    )
    found.save(run.out / FILE)
    return found


def plan(run: Run, wanted: str = ALL) -> list[Line]:
    """List what is trained: single-task networks, the joint one, then a line a layer."""
    recipe, names = run.recipe, run.schema.names
    method = recipe.compare.methods[0]
    config = recipe.train.model_copy(update={"method": method})

    def line(name: str, role: str, split: Split | None) -> Line:
        trainings = [
            Training(names, split, config, recipe.backbone, seed, name) for seed in seeds_of(run)
        ]
        return Line(name, role, tuple(trainings))

    layers = choose_ablated(list(run.facts.analysis.layers), wanted)
    chosen = {"rule": "ablation", "k": 1}
    return [
        *single_lines(run),
        line(f"{method}, unsplit", "joint", None),
        *(
            line(
                layer,
                "layer",
                Split.private([layer], names, backbone=run.facts.identity, chosen=chosen),
            )
            for layer in layers
        ),
    ]


def _benefits(joint: Row, split: Sequence[Row]) -> list[Ablated]:
    corrected = adjust([paired(row.delta_m, joint.delta_m) for row in split])
    return [
        Ablated(
            row.name,
            row.delta_m,
            benefit,
            row.n_parameters / joint.n_parameters,
            row.flops / joint.flops,
        )
        for row, benefit in zip(split, corrected, strict=True)
        if benefit is not None
    ]


def _rules(run: Run, scores: ConflictScores, layers: Sequence[Ablated]) -> list[Foretold]:
    """Hold every rule that ranks all layers against the benefits."""
    reading = reading_of(run.recipe)
    means = [layer.benefit.mean for layer in layers]
    found = []
    for rule in sorted(RULES.values(), key=lambda rule: rule.is_control):
        if not _foretells(rule):
            continue
        ranked = rank(scores, rule.name, reading)
        if len(ranked) < len(scores.layers):
            continue
        values, places = dict(ranked), {layer: i for i, (layer, _) in enumerate(ranked, start=1)}
        own = [values[layer.layer] for layer in layers]
        ranks = [places[layer.layer] for layer in layers]
        found.append(Foretold(rule.name, own, ranks, *foretell(own, means)))
    return found


def _foretells(rule: Rule) -> bool:
    """Whether a rule says something of its own: `least` is `count` turned round."""
    return not rule.is_random and rule.name not in ("least", "norm-only")


def _less(values: Sequence[float], other: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(values, other, strict=True)]
