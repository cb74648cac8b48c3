"""Tasks of pixels, many of them without a label, under every option of a training."""

import copy

import pytest
import torch

from recon_search.conflict.scores import ConflictScores
from recon_search.data.resident import Part, ResidentFeed
from recon_search.data.source import Schema
from recon_search.graph.split import Split
from recon_search.model.network import build_model
from recon_search.recipe import BackboneConfig, HeadsConfig, TrainConfig
from recon_search.tasks.classes import Classes
from recon_search.tasks.depth import Depth
from recon_search.tasks.edges import Edges
from recon_search.tasks.metrics import IGNORED
from recon_search.tasks.normals import Normals
from recon_search.tasks.segments import Segments
from recon_search.training.evaluation import evaluate
from recon_search.training.loop import fit
from recon_search.training.stopping import kept
from tests.training.test_options import assert_same

SIDE, N, SIZE = 24, 24, 8
TASKS = (
    Segments("what", 3),
    Depth("depth", criterion="silog"),
    Normals("normals"),
    Edges("edges"),
    Classes("kind", 4),
)
NAMES = tuple(task.name for task in TASKS)
BACKBONE = BackboneConfig(name="test_resnet", args={"channels": [4, 4, 8, 8]}, features=6)
HEADS = HeadsConfig.model_validate(
    {
        "head": {"activation": "relu"},
        "necks": {"shared": {"kind": "fpn", "hidden": 8}},
        "heads": {
            **{name: {"neck": "shared"} for name in ("what", "depth")},
            "normals": {"kind": "aspp", "hidden": 8, "args": {"rates": [1, 2]}},
        },
    }
)
SPLIT = Split(
    NAMES,
    {
        "conv1.3": (("what", "depth"), ("normals", "edges", "kind")),
        "layer3.0.conv1": tuple((name,) for name in NAMES),
    },
)
CONFIG = TrainConfig(epochs=2, batch_size=SIZE, lr=0.02, measure_every=2, optimizer="adamw")
OPTIONS = {
    "freeze, layer_decay, ema": {
        "freeze": ["conv1.0", "layer1.*"],
        "layer_decay": 0.75,
        "head_lr_scale": 3.0,
        "ema": 0.8,
    },
    "accumulate, clip, best": {"accumulate": 2, "clip_grad": 0.5, "select": "best"},
    "bfloat16, checkpointing": {"precision": "bfloat16", "grad_checkpointing": True},
    "float16, patience": {"precision": "float16", "patience": 1, "epochs": 4},
    "low_memory": {"low_memory": True, "measure_every": 1},
    "sketch": {"measure_sketch": 16, "measure_every": 1, "min_lr": 0.001, "warmup_epochs": 1},
    "tasks_per_step": {"measure_tasks": 2, "measure_every": 1},
    "everything": {
        "grad_checkpointing": True,
        "freeze": ["layer1.*"],
        "layer_decay": 0.8,
        "ema": 0.9,
        "patience": 2,
        "precision": "bfloat16",
        "clip_grad": 1.0,
        "accumulate": 2,
    },
}
SLOW = "bfloat16, checkpointing", "float16, patience", "sketch", "tasks_per_step"
METHODS = ("joint", "pcgrad", "uw", "pcgrad", "joint", "pcgrad", "joint", "graddrop")


@pytest.fixture(scope="module")
def feed():
    """Random images; of half of them a task has no label, of others a part of the pixels."""
    generator = torch.Generator().manual_seed(0)

    def part(n):
        shape = (n, SIDE, SIDE)
        whole = {
            "what": torch.randint(3, shape, generator=generator),
            "depth": 1 + torch.rand(shape, generator=generator),
            "normals": torch.randn(n, 3, SIDE, SIDE, generator=generator),
            "edges": torch.randint(2, shape, generator=generator),
            "kind": torch.randint(4, (n,), generator=generator),
        }
        for each in whole.values():
            missing = torch.nan if each.is_floating_point() else IGNORED
            each[torch.rand(n, generator=generator) < 0.5] = missing
            if each.ndim > 1:
                each[..., : SIDE // 3] = missing
        images = torch.randint(256, (n, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
        return Part(images, whole)

    schema = Schema(TASKS, (3, SIDE, SIDE), frozenset())
    other = part(SIZE)
    return ResidentFeed(schema, {"train": part(N), "validation": other, "test": other})


def make(config):
    return build_model(
        BACKBONE, HEADS, TASKS, shape=(3, SIDE, SIDE), split=SPLIT, seed=0, frozen=config.freeze
    )


def train(feed, config, directory=None, stop_after=None):
    """A trained model, its scores and its history without times."""
    model = make(config)
    scores = ConflictScores(list(model.backbone.layers()), NAMES)

    def report(progress):
        if stop_after is not None and progress.step > stop_after:
            raise KeyboardInterrupt

    history = fit(model, feed, config, seed=1, directory=directory, scores=scores, report=report)
    for record in history:
        record.pop("seconds")
    return model, scores, history


@pytest.mark.parametrize(
    ("option", "method"),
    [
        pytest.param(*case, marks=pytest.mark.slow if case[0] in SLOW else ())
        for case in zip(OPTIONS, METHODS, strict=True)
    ],
)
def test_an_interrupted_training_ends_with_the_same_bits(tmp_path, feed, option, method):
    config = CONFIG.model_copy(update={"method": method, **OPTIONS[option]})
    whole = train(feed, config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(feed, config, tmp_path / "cut", stop_after=-(-3 // config.accumulate))
    assert_same(train(feed, config, tmp_path / "cut"), whole)
    model, scores, history = whole
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())
    assert scores.steps > 0
    assert evaluate(model, feed, "validation", config) == kept(history, config)["validation"]
    frozen = dict(make(config).named_parameters())
    for name, parameter in model.named_parameters():
        is_moved = not torch.equal(parameter, frozen[name])
        assert is_moved == parameter.requires_grad or ".fc." in name or config.select == "best"


def test_less_memory_learns_the_same(feed):
    config = CONFIG.model_copy(update={"method": "pcgrad"})
    plain = train(feed, config)
    assert_same(train(feed, config.model_copy(update={"grad_checkpointing": True})), plain)
    model, scores, _ = train(feed, config.model_copy(update={"low_memory": True}))
    for name, tensor in plain[0].state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        scores.tensors["inner"], plain[1].tensors["inner"], rtol=1e-3, atol=1e-3
    )


def test_a_task_without_labels_in_a_step_moves_nothing_of_its_own(feed):
    part = feed.parts["train"]
    targets = {**part.targets, "edges": torch.full_like(part.targets["edges"], IGNORED)}
    parts = {**feed.parts, "train": Part(part.inputs, targets)}
    blind = ResidentFeed(feed.schema, parts)
    model = make(CONFIG)
    before = copy.deepcopy(model.heads["edges"].state_dict())
    for method in ("joint", "pcgrad"):
        fit(model, blind, CONFIG.model_copy(update={"method": method, "weight_decay": 0.0}), seed=0)
    after = model.heads["edges"].state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
