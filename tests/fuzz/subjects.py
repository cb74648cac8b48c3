"""A file of every kind, and who reads it."""

import copy
import functools
import json
import tomllib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from recon_search import artefact
from recon_search.conflict.scores import ConflictScores
from recon_search.conflict.sums import digest_sums
from recon_search.data import contents
from recon_search.data.registry import find_source
from recon_search.graph.split import Split, load_counts
from recon_search.model.backbone import check_weights, create_backbone
from recon_search.model.convert import convert_checkpoint
from recon_search.model.files import load
from recon_search.model.network import build_model
from recon_search.model.pretraining import find_pretraining
from recon_search.recipe import BackboneConfig, HeadConfig, load_recipe, parse_recipe
from recon_search.runs.ablation import Ablation
from recon_search.runs.comparison import Comparison
from recon_search.runs.folder import open_folder, read_recipe
from recon_search.runs.result import Result
from recon_search.search.ledger import Ledger
from recon_search.search.storage import open_storage, open_study
from recon_search.stages import report
from recon_search.stages.examples import TaskExamples, load_examples, save_examples
from recon_search.stages.origin import read_origin, write_origin
from recon_search.stages.study import find_study
from recon_search.stages.trial import objectives
from recon_search.tasks.classes import Classes
from recon_search.tasks.depth import Depth
from recon_search.tasks.mistakes import mistakes_of
from recon_search.training.loop import fit
from recon_search.views.trials import read_summary, summarise, write_summary
from tests.runs.test_ablation import make_ablation
from tests.runs.test_comparison import make_comparison
from tests.stages.recipes import TINY
from tests.stages.scores import noisy_scores

BACKBONE = BackboneConfig(name="resnet18", args={"channels": [4, 4, 8, 8]}, features=6)
TASKS = ("left", "right")


@dataclass(frozen=True)
class Subject:
    """A file and its reader.

    Attributes:
        path: of the file.
        read: returns what was read, comparable and without side effects.
        kind: "json", "tensors" or "bytes": how it can be changed and sealed anew.
        n: how many cases run by default.
        has_digest: whether a change must be noticed.
    """

    path: Path
    read: Callable[[], object]
    kind: str
    n: int
    has_digest: bool = True


def make_subjects(folder):
    """Write a file of every kind into a folder."""
    recipe = parse_recipe(tomllib.loads(TINY))
    split = Split.private(
        ["layer1.0.conv1", "layer2.0.bn1"],
        TASKS,
        backbone={"name": "resnet18", "args": dict(BACKBONE.args), "features": 6},
        chosen={"rule": "count", "k": 2},
        provenance={"probe_seeds": [0]},
    )
    split.save(folder / "split.json")
    noisy_scores(recipe).save(folder / "scores.safetensors")
    (folder / "trained").mkdir()
    result = Result(
        TASKS, "joint", 0, 5, 7,
        {task: {"accuracy": 50.0, "loss": float("nan")} for task in TASKS},
        1.5, folder / "trained", {task: {"accuracy": 1.0, "loss": 1.0} for task in TASKS},
    )  # fmt: skip
    result.save()
    make_comparison().save(folder / "comparison.json")
    make_ablation().save(folder / "ablation.json")
    open_folder(recipe, folder / "run", resume=False)
    (folder / "run/trainings").mkdir()

    model = build_model(
        BACKBONE,
        HeadConfig(),
        [Classes(task, 10) for task in TASKS],
        shape=(1, 12, 12),
        split=split,
    )
    plain = copy.deepcopy(model)
    inputs = {"shape": [1, 12, 12], "mean": [0.1], "std": [0.3]}
    model.config["input"] = inputs
    model.save(folder / "model", metrics={"validation": {}})

    feed = find_source(recipe.data).open(torch.device("cpu"))
    train = recipe.train.model_copy(update={"epochs": 1, "measure_every": None})
    fit(copy.deepcopy(plain), feed, train, seed=0, directory=folder / "training")

    backbone = create_backbone(BACKBONE, in_chans=1).state_dict()
    artefact.write_tensors(folder / "weights.safetensors", backbone, {"source": "here"})
    contents._keep(folder / "contents.json", {"a.png": [[1, 2, 3], "0123", [4, 5], ""]})
    _make_study(folder / "search.db", recipe)
    write_summary(
        summarise(find_study("study", f"sqlite:///{folder}/search.db")), folder / "search.json"
    )

    write_origin(folder / "run", "cpu", ["train", "tiny.toml"])
    save_examples(_examples(), folder / "examples.safetensors")
    (folder / "counts.json").write_text('{"conv1": 3, "layer1.0.conv1": 5.0}')
    (folder / "theirs").mkdir()
    (folder / "theirs/model.safetensors").write_bytes(b"")
    known = {"mean": [0.5, 0.5, 0.5], "std": [0.1, 0.2, 0.3], "input_size": [3, 32, 32]}
    config = {"architecture": "resnet18", "model_args": {"channels": [4, 4, 8, 8]}}
    (folder / "theirs/config.json").write_text(json.dumps({**config, "pretrained_cfg": known}))
    named = BackboneConfig(name=f"local-dir:{folder}/theirs")
    torch.save({"state_dict": {"weight": torch.arange(6.0)}}, folder / "a.pth")
    convert_checkpoint(folder / "a.pth", folder / "converted.safetensors")

    def examples():
        load_examples(folder / "examples.safetensors")  # it may also be left out
        return repr(report._examples(folder))

    def resume():
        again = copy.deepcopy(plain)
        history = fit(again, feed, train, seed=0, directory=folder / "training")
        return json.dumps(history), digest_sums([], again.state_dict())

    def scores():
        found = ConflictScores.load(folder / "scores.safetensors")
        return found.digest, _text(found.metadata)

    def whole_model():
        found = load(folder / "model")
        return _text(found.config), found.backbone.split.digest, digest_sums([], found.state_dict())

    def weights():
        config = BACKBONE.model_copy(update={"weights": str(folder / "weights.safetensors")})
        check_weights(config, in_chans=1)
        found = create_backbone(config, in_chans=1)
        return digest_sums([], found.state_dict())

    def study():
        found = find_study("study", f"sqlite:///{folder}/search.db")
        ledger = Ledger(found._storage._backend.engine, "study")
        try:
            return _text(summarise(found)), _text(ledger.get("study").result)
        finally:
            found._storage._backend.engine.dispose()

    reopen = functools.partial(open_folder, recipe, folder / "run", resume=True)
    here = folder.joinpath
    return {
        "split": Subject(
            here("split.json"), lambda: _text(vars(Split.load(here("split.json")))), "json", 80
        ),
        "scores": Subject(here("scores.safetensors"), scores, "tensors", 50),
        "result": Subject(
            here("trained/result.json"), lambda: repr(Result.load(folder / "trained")), "json", 60
        ),
        "comparison": Subject(
            here("comparison.json"),
            lambda: repr(Comparison.load(here("comparison.json"))),
            "json",
            70,
        ),
        "ablation": Subject(
            here("ablation.json"), lambda: repr(Ablation.load(here("ablation.json"))), "json", 30
        ),
        "recipe": Subject(
            here("run/recipe.json"), lambda: read_recipe(here("run/recipe.json")), "json", 40
        ),
        "own recipe": Subject(
            here("run/recipe.json"), lambda: load_recipe(here("run/recipe.json")), "json", 20
        ),
        "identity": Subject(here("run/identity.json"), reopen, "json", 40),
        "summary": Subject(
            here("search.json"), lambda: repr(read_summary(here("search.json"))), "json", 40
        ),
        "cache": Subject(here("contents.json"), lambda: _known(here("contents.json")), "json", 20),
        "checkpoint": Subject(here("training/checkpoint.safetensors"), resume, "tensors", 40),
        "config": Subject(here("model/config.json"), whole_model, "json", 50),
        "model": Subject(here("model/model.safetensors"), whole_model, "tensors", 25),
        "model split": Subject(here("model/split.json"), whole_model, "json", 15),
        "weights": Subject(here("weights.safetensors"), weights, "tensors", 20),
        "origin": Subject(
            here("run/origin.json"), lambda: _text(read_origin(folder / "run")), "json", 25
        ),
        "examples": Subject(here("examples.safetensors"), examples, "tensors", 30),
        "counts": Subject(
            here("counts.json"), lambda: load_counts(here("counts.json")), "json", 20,
            has_digest=False,
        ),
        "timm config": Subject(
            here("theirs/config.json"), lambda: repr(find_pretraining(named, "auto")), "json", 25,
            has_digest=False,
        ),
        "pth": Subject(
            here("a.pth"),
            lambda: convert_checkpoint(here("a.pth"), here("converted.safetensors")),
            "bytes", 15, has_digest=False,
        ),
        "database": Subject(here("search.db"), study, "bytes", 15, has_digest=False),
    }  # fmt: skip


def _examples():
    """Of a task of classes, and of one of pixels."""
    found = []
    for task in (Classes("left", 3), Depth("far")):
        own = TaskExamples(task, "test", mistakes=mistakes_of(task), n_labelled=2)
        own.images = [torch.full((1, 8, 8), level, dtype=torch.uint8) for level in (9, 200)]
        own.truth, own.said, own.right = ["a", "b"], ["a", "c"], [True, False]
        own.mistakes.counts += 1
        found.append(own)
    own.maps = [(torch.ones(8, 8), torch.rand(8, 8)) for _ in own.images]
    own.truth, own.said, own.right = [""] * 2, [""] * 2, [None] * 2
    return found


def _known(path):
    """A cache that is of no use is as good as none."""
    return contents._load(path) or {"a.png": [[1, 2, 3], "0123", [4, 5], ""]}


def _make_study(path, recipe):
    storage = open_storage(f"sqlite:///{path}", heartbeat=60, retries=0)
    study = open_study(storage, "study", objectives(recipe))
    for k in (1, 2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that nobody optimises here
            trial = study.ask()
        trial.suggest_int("split.k", k, k)
        trial.set_user_attr("layers", ["layer1.0.conv1"])
        study.tell(trial, float(k))
    Ledger(storage.engine, "study").settle("study", {"recipe": "0123"})
    storage.engine.dispose()


def _text(value):
    return json.dumps(value, default=str, sort_keys=True)
