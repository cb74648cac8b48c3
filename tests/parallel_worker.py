"""What every process does in test_parallel.py: `torchrun -m tests.parallel_worker FOLDER`.

Every training is in double precision, loss included, so that one process and two differ by rounding
only, and no cosine changes its bin.
"""

import copy
import functools
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from recon_search import artefact, parallel
from recon_search.conflict.scores import ConflictScores
from recon_search.data.order import Lane
from recon_search.data.resident import Part, ResidentFeed
from recon_search.data.source import Inputs, Schema
from recon_search.errors import RecipeError, TrainingError
from recon_search.graph.split import Split
from recon_search.model.network import build_model
from recon_search.recipe import BackboneConfig, HeadConfig, TrainConfig, parse_recipe
from recon_search.runs import fitting
from recon_search.runs import trainer as stage
from recon_search.runs.follow import in_step
from recon_search.runs.pool import train_all
from recon_search.runs.run import Run
from recon_search.tasks.classes import IGNORED, Classes
from recon_search.tasks.depth import Depth
from recon_search.tasks.edges import Edges
from recon_search.tasks.segments import Segments
from recon_search.training import loop

TASKS = ("a", "b", "c")
STEPS = 5
BATCH = 8
CONFIG = TrainConfig(epochs=1, batch_size=BATCH, lr=0.05, clip_grad=10.0)
BACKBONE = BackboneConfig(
    name="test_resnet", args={"channels": [4, 4, 8, 8], "norm_layer": "groupnorm1"}, features=6
)
GROUPED = {"layer1.0.conv1": (("a", "b"), ("c",)), "layer3.0.conv1": (("a",), ("b",), ("c",))}
CASES = {
    "joint": CONFIG,
    "uw": CONFIG.model_copy(update={"method": "uw"}),
    "dwa": CONFIG.model_copy(update={"method": "dwa"}),
    "famo": CONFIG.model_copy(update={"method": "famo"}),
    "rlw": CONFIG.model_copy(update={"method": "rlw"}),
    "pcgrad": CONFIG.model_copy(update={"method": "pcgrad", "measure_every": 1}),
    "probe": CONFIG.model_copy(update={"measure_every": 2, "accumulate": 2}),
    "sketch": CONFIG.model_copy(update={"measure_every": 2, "measure_sketch": 64, "accumulate": 2}),
    "mgda": CONFIG.model_copy(update={"method": "mgda"}),
    "gradvac": CONFIG.model_copy(update={"method": "gradvac", "accumulate": 2}),
    "upgrad": CONFIG.model_copy(update={"method": "upgrad", "options": {"tasks_per_step": 2}}),
    "graddrop": CONFIG.model_copy(update={"method": "graddrop"}),
    "rotograd": CONFIG.model_copy(update={"method": "rotograd", "options": {"every": 2}}),
    "options": CONFIG.model_copy(
        update={
            "method": "pcgrad",
            "ema": 0.7,
            "epochs": 2,
            "select": "best",
            "layer_decay": 0.8,
            "head_lr_scale": 3.0,
            "freeze": ["conv1", "layer2.*"],
            "grad_checkpointing": True,
        }
    ),
    "stopped": CONFIG.model_copy(
        update={"method": "rotograd", "ema": 0.5, "epochs": 4, "patience": 1, "lr": 0.2}
    ),
    "rotate-only": CONFIG.model_copy(
        update={"method": "rotate-only", "options": {"weighting": "pcgrad", "every": 2}}
    ),
}
PARTIAL = ("joint", "uw", "pcgrad", "probe", "sketch", "upgrad", "graddrop", "rotograd")
"""The cases that are repeated on data with labels missing."""
APART = ("uw", "pcgrad", "probe")
"""The cases that are repeated on tasks with data of their own."""
PIXELS = ("probe", "options")
"""The cases that are repeated on tasks of pixels, of which many have no label."""
DENSE = (Segments("a", 3), Depth("b", criterion="silog"), Edges("c"))


def make_data(*, is_partial=False):
    """Random images and labels; of the partial ones few have a label of b, hardly any one of c."""
    generator = torch.Generator().manual_seed(0)

    def part(n):
        images = torch.randint(256, (n, 1, 12, 12), generator=generator, dtype=torch.uint8)
        return images, {task: torch.randint(5, (n,), generator=generator) for task in TASKS}

    images, targets = part(STEPS * BATCH)
    if is_partial:
        chance = torch.rand(len(images), generator=generator)
        targets["b"] = torch.where(chance < 0.4, targets["b"], IGNORED)
        targets["c"] = torch.where(chance > 0.8, targets["c"], IGNORED)
    complete = frozenset("a" if is_partial else TASKS)
    schema = Schema(tuple(Classes(task, 5) for task in TASKS), (1, 12, 12), complete)
    other = Part(*part(8))
    parts = {"train": Part(images, targets), "validation": other, "test": other}
    return ResidentFeed(schema, parts)


def make_apart():
    """Random images and labels of each task; c has fewer than one batch."""
    lengths = {"a": STEPS * BATCH, "b": 2 * BATCH, "c": BATCH - 2}
    generator = torch.Generator().manual_seed(0)

    def part(lengths):
        n, lanes, start = sum(lengths.values()), [], 0
        images = torch.randint(256, (n, 1, 12, 12), generator=generator, dtype=torch.uint8)
        for task, length in lengths.items():
            lanes.append(Lane((task,), range(start, start + length), task))
            start += length
        targets = {t: torch.randint(5, (n,), generator=generator) for t, n in lengths.items()}
        return Part(images, targets, lanes)

    schema = Schema(make_data().schema.tasks, (1, 12, 12), frozenset(TASKS), apart=True)
    other = part(dict.fromkeys(TASKS, 8))
    return ResidentFeed(schema, {"train": part(lengths), "validation": other, "test": other})


def make_pixels():
    """Random images, masks and maps; some images have none of b, and few pixels one of c."""
    generator = torch.Generator().manual_seed(0)

    def part(n):
        images = torch.randint(256, (n, 1, 16, 16), generator=generator, dtype=torch.uint8)
        depth = 1 + torch.rand(n, 16, 16, generator=generator)
        depth[torch.rand(n, generator=generator) < 0.5] = torch.nan
        masks = torch.randint(3, (n, 16, 16), generator=generator)
        edges = torch.randint(2, (n, 16, 16), generator=generator)
        edges[torch.rand(n, 16, 16, generator=generator) < 0.9] = IGNORED
        return Part(images, {"a": masks, "b": depth, "c": edges})

    schema = Schema(DENSE, (1, 16, 16), frozenset("a"))
    other = part(8)
    parts = {"train": part(STEPS * BATCH), "validation": other, "test": other}
    return ResidentFeed(schema, parts)


def make_model(frozen=(), **args):
    return copy.deepcopy(built(tuple(frozen), **args))


@functools.cache
def built(frozen, *, is_dense=False, **args):
    backbone = BACKBONE.model_copy(update={"args": {**BACKBONE.args, **args}})
    head = HeadConfig(kind="fpn", hidden=8) if is_dense else HeadConfig(activation="relu")
    tasks = DENSE if is_dense else [Classes(task, 5) for task in TASKS]
    split = Split(TASKS, GROUPED)
    shape = (1, 16, 16) if is_dense else (1, 12, 12)
    return build_model(backbone, head, tasks, shape=shape, split=split, frozen=frozen).double()


def run_case(config, data, *, is_dense=False, **options):
    """Train and return the model's tensors, the scores' and the losses."""
    model = make_model(config.freeze, is_dense=is_dense)
    scores = ConflictScores(list(model.backbone.layers()), TASKS) if config.measure_every else None
    history = loop.fit(model, data, config, seed=0, scores=scores, **options)
    found = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if scores is not None:
        found |= {f"scores.{name}": tensor for name, tensor in scores.tensors.items()}
    found["losses"] = torch.tensor(list(history[-1]["train"].values()), dtype=torch.float64)
    return found


def run_cases():
    whole, partial = make_data(), make_data(is_partial=True)
    found = {name: run_case(config, whole) for name, config in CASES.items()}
    found |= {f"{name}, partial": run_case(CASES[name], partial) for name in PARTIAL}
    dense = make_pixels()
    found |= {f"{name}, pixels": run_case(CASES[name], dense, is_dense=True) for name in PIXELS}
    return found | {f"{name}, apart": run_case(CASES[name], make_apart()) for name in APART}


def run_with_dropout(folder):
    """Train twice for two epochs, once cut off in the second; both must end the same."""
    config = CONFIG.model_copy(update={"epochs": 2, "method": "pcgrad"})
    data = make_data()

    def train(name, report=None):
        model = make_model(drop_path_rate=0.5)
        loop.fit(model, data, config, seed=0, directory=folder / name, report=report)
        return {key: tensor.clone() for key, tensor in model.state_dict().items()}

    def cut(progress):
        if progress.step > STEPS:
            raise KeyboardInterrupt

    whole = train("whole")
    try:
        train("cut", cut)
    except (KeyboardInterrupt, parallel.LeftError) as error:
        left = type(error).__name__
    resumed = train("cut")
    equal = all(torch.equal(whole[name], resumed[name]) for name in whole)
    return {"resumed equal": equal, "left by": left, "seed": torch.initial_seed()}


def refusal():
    try:
        loop.fit(make_model(), make_data(), CONFIG.model_copy(update={"batch_size": 7}), seed=0)
    except RecipeError as error:
        return str(error)


RECIPE = {
    "data": {"name": "multi-digits", "train": 32, "validation": 16, "test": 16, "canvas": 12},
    "backbone": BACKBONE.model_dump(),
    "train": {"epochs": 1, "batch_size": 16, "lr": 0.01},
    "probe": {"epochs": 1},
    "split": {"k": 1},
}


def run_stages(folder):
    """Like a search: trainings that fail, that are pruned, and that succeed; counts the fits."""
    recipe = parse_recipe(RECIPE)
    run = Run(recipe, folder)
    tasks = ("left", "right")
    fits = []

    def count(*args, **kwargs):
        fits.append(kwargs["seed"])
        return loop.fit(*args, **kwargs)

    def training(seed, **changes):
        config = recipe.train.model_copy(update=changes)
        return stage.Training(tasks, None, config, recipe.backbone, seed, "t")

    def prune(record):
        raise ValueError(f"pruned after epoch {record['epoch']}")

    def command():
        try:
            stage.train(training(0, lr=1e30, epochs=3), run)
        except TrainingError as error:
            outcome["failed"] = str(error)
        try:
            stage.train(training(1), run, after_epoch=prune)
        except ValueError as error:
            outcome["pruned"] = str(error)
        results = train_all([training(seed) for seed in (2, 3, 2)], run, "")
        outcome["results"] = [result.seed for result in results]

    outcome = {}
    fitting.fit = count
    in_step(command, run.device)
    return {**outcome, "fits": fits}


def in_double_precision():
    """Make inputs and losses doubles; returns what undoes it."""
    plain = Inputs.normalise, Classes.loss, torch.Tensor.float
    Inputs.normalise = lambda self, inputs: plain[0](self, inputs).double()
    torch.Tensor.float = torch.Tensor.double
    Classes.loss = lambda self, output, target: F.cross_entropy(
        output, target, ignore_index=IGNORED
    )

    def undo():
        Inputs.normalise, Classes.loss, torch.Tensor.float = plain

    return undo


def main(folder):
    torch.set_num_threads(1)
    with parallel.group(torch.device("cpu")):
        me = parallel.rank()
        undo = in_double_precision()
        found = run_cases()
        facts = {**run_with_dropout(folder), "refused": refusal()}
        undo()
        facts |= run_stages(folder / "stages")
        for name, tensors in found.items():
            artefact.write_tensors(folder / str(me) / f"{name}.safetensors", tensors, {})
        artefact.write_json(folder / f"{me}.json", facts)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
