"""Folders of finished runs of any number of tasks, without a training."""

import json
import tomllib

import optuna
import torch
from optuna.trial import TrialState

from recon_search import artefact
from recon_search.conflict.scores import ConflictScores
from recon_search.graph.split import Split
from recon_search.model.network import FORMAT
from recon_search.recipe import parse_recipe
from recon_search.runs.comparison import Comparison
from recon_search.runs.judging import Trained, choose_best, make_rows
from recon_search.runs.result import Result
from recon_search.runs.verdict import verdict
from recon_search.stages.examples import TaskExamples, save_examples
from recon_search.tasks.classes import Classes
from recon_search.tasks.mistakes import mistakes_of
from recon_search.views.trials import summarise, write_summary
from tests.stages.recipes import TINY
from tests.stages.scores import noisy_scores

LINES = [
    ("joint, unsplit", "joint", 1.0, 1.0, -5.0),
    ("joint, split", "split", 1.4, 1.9, 1.0),
    ("pcgrad, unsplit", "joint", 1.0, 1.0, -3.0),
    ("norm layers only", "control", 1.01, 1.7, -2.0),
    ("random 3 layers", "control", 1.3, 1.8, -1.0),
    ("rule projection, 25 layers", "rule", 1.5, 2.0, 0.5),
]
"""Name, role, parameters, FLOPs, percent that accuracies lie above single-task models."""

SEEDS = 3
INPUT = {"shape": [1, 12, 12], "mean": [0.1], "std": [0.3]}
MARKED = ["layer1.0.conv1", "layer2.0.bn1", "fc"]


def names_of(n):
    """Names of tasks as attributes of faces have them, some long."""
    longer = ["Wearing_Necktie", "Mouth_Slightly_Open", "5_o_Clock_Shadow", "Bald"]
    return tuple(f"{longer[i % 4]}_{i}" if i % 3 else f"attribute {i}" for i in range(n))


def fake_scores(tasks, steps=8):
    """Scores of random gradients of the layers of the tiny recipe's network."""
    plain = noisy_scores(parse_recipe(tomllib.loads(TINY)))
    scores = ConflictScores(plain.layers, tasks, plain.metadata)
    generator = torch.Generator().manual_seed(0)
    shift = torch.linspace(-0.4, 1, len(tasks))[:, None] * torch.linspace(0, 1, len(plain.layers))
    for step in range(steps):
        jacobians = torch.randn(len(scores.layers), len(tasks), 5, generator=generator)
        scores.update(
            (jacobians + shift.T[..., None]) @ (jacobians + shift.T[..., None]).mT, at=step / steps
        )
    return scores


def _result(out, name, tasks, seed, above, n_parameters, flops, first=0):
    folder = out / "trainings" / f"{name}-{seed}".replace(" ", "-").replace(",", "")
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    lines = []
    metrics = {}
    for epoch in range(1, 5):
        metrics = {}
        for place, task in enumerate(tasks, start=first):
            noise = float(torch.randn((), generator=generator))
            accuracy = 70 + 20 * (place % 7) / 7
            accuracy *= 1 + (above * (1 + place % 5) / 3 + 0.4 * noise) / 100
            metrics[task] = {"accuracy": accuracy - 20 / epoch, "loss": 0.3 + 1 / epoch}
        train = {task: own["loss"] for task, own in metrics.items()}
        record = {"epoch": epoch, "lr": 0.1, "train": train, "validation": metrics, "seconds": 1.0}
        lines.append(json.dumps(record))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    result = Result(
        tuple(tasks), name.split(",")[0], seed, n_parameters, flops, metrics, 3.5, folder, metrics
    )
    result.save()
    return result


def fake_comparison(out, tasks):
    """A comparison, and the results of its trainings in the folder."""
    n = len(tasks)
    single = {
        task: [
            _result(out, f"single {place}", [task], s, 0.0, 1000, 2000, place) for s in range(SEEDS)
        ]
        for place, task in enumerate(tasks)
    }
    lines = []
    for name, role, size, flops, above in LINES:
        own = [
            _result(out, name, tasks, s, above, round(1000 * size), round(2000 * flops))
            for s in range(SEEDS)
        ]
        lines.append(Trained(name, role, own, 0.3 + above / 100))
    judged_by = {task: {"accuracy": 1} for task in tasks}
    rows = make_rows(lines, single, judged_by)
    folders = {f"single {task}": single[task] for task in tasks}
    folders |= {line.name: line.results for line in lines}
    return Comparison(
        seeds=list(range(SEEDS)),
        threshold=-0.05,
        directions=judged_by,
        single={
            task: {"accuracy": [r.test[task]["accuracy"] for r in results]}
            for task, results in single.items()
        },
        single_parameters=1000 * n,
        rows=rows,
        verdict=verdict(rows),
        best=choose_best(lines, single, judged_by),
        units={task: {"accuracy": "%"} for task in tasks},
        single_flops=2000 * n,
        trainings={
            name: [f"trainings/{own.directory.name}" for own in results]
            for name, results in folders.items()
        },
    )


def fake_examples(tasks):
    """Two images of each task, and what it confuses."""
    found = []
    for name in tasks:
        task = Classes(name, 3, class_names=("red", "green", "blue"))
        own = TaskExamples(task, "test", mistakes=mistakes_of(task), n_labelled=60)
        own.mistakes.counts += torch.tensor([[18, 2, 0], [3, 15, 2], [0, 5, 15]])
        for right in (True, False):
            own.images.append(torch.randint(0, 255, (3, 32, 32), dtype=torch.uint8))
            own.truth.append("red")
            own.said.append("red" if right else "blue")
            own.right.append(right)
        found.append(own)
    return found


def fake_run(out, n_tasks=None, *, tasks=None, **recipe):
    """Write what a finished run leaves."""
    tasks = tasks or names_of(n_tasks)
    raw = tomllib.loads(TINY) | recipe
    (out / "recipe.json").write_text(parse_recipe(raw).model_dump_json())
    scores = fake_scores(tasks)
    scores.save(out / "scores.safetensors")
    Split.private(MARKED, tasks, backbone=scores.metadata["backbone"]).save(out / "split.json")
    comparison = fake_comparison(out, tasks)
    comparison.save(out / "comparison.json")
    for row in ("joint, unsplit", "joint, split"):
        for folder in comparison.trainings[row]:
            fake_scores(tasks, 4).save(out / folder / "scores.safetensors")
    save_examples(fake_examples(tasks), out / "examples.safetensors")
    (out / "model").mkdir()
    config = {"backbone": scores.metadata["backbone"], "input": INPUT}
    artefact.write_json(out / "model/config.json", {"format": FORMAT, **config})
    return comparison


def fake_search(out, n=9):
    """Write what a search of some trials leaves beside a run."""
    choices = {
        "split.rule": optuna.distributions.CategoricalDistribution(["count", "projection"]),
        "split.k": optuna.distributions.IntDistribution(1, 40),
        "split.threshold": optuna.distributions.FloatDistribution(-0.3, 0.0),
    }
    study = optuna.create_study(study_name="fake", direction="maximize")
    for number in range(n):
        k = 3 + 7 * number % 40
        params = {"split.rule": ("count", "projection")[number % 2], "split.k": k}
        params |= {} if number % 2 else {"split.threshold": -0.02 * (1 + number)}
        own = {
            "epochs": 4,
            "layers": ["a"] * k,
            "n_parameters": 10**6 + 10**4 * k,
            "flops": 10**7 * k,
        }
        is_pruned, is_same = number == n - 2, number == n - 1
        if is_same:
            own["same_as"] = 0
        value = -4.0 + k / 10 - (k / 25) ** 3
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.PRUNED if is_pruned else TrialState.COMPLETE,
                value=None if is_pruned else value,
                params=params,
                distributions={name: choices[name] for name in params},
                user_attrs=own,
                intermediate_values={1: value - 1},
            )
        )
    write_summary(summarise(study), out / "search.json")
