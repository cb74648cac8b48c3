"""Tasks of every kind, with labels missing, are trained together, judged, saved and asked."""

import math

import pytest
import torch

import recon_search as rs
from recon_search.data.resident import Part, ResidentFeed
from recon_search.data.source import Schema
from recon_search.model.network import build_model
from recon_search.recipe import HeadConfig, TrainConfig
from recon_search.tasks.registry import fit_task
from recon_search.training.evaluation import evaluate
from recon_search.training.loop import fit
from tests.conftest import BACKBONE

CELLS = {
    "species": ["cat", "dog", "", "bird"],
    "has a tail": ["yes", None, "no", "no"],
    "seen": ["a|b", "b", "", "none"],
    "age": ["1", "20", "300", ""],
    "box": ["0|1", "5|", "10|7", None],
}
OPTIONS = {
    "species": {"kind": "classes", "class_weights": "balanced", "metrics": ["accuracy", "auroc"]},
    "has a tail": {"kind": "binary", "positive_weight": "balanced", "metrics": ["f1", "error"]},
    "seen": {"kind": "labels", "none": "none", "metrics": ["map", "f1"]},
    "age": {"kind": "values", "unit": "days", "criterion": "huber", "metrics": ["mae", "r2"]},
    "box": {"kind": "values"},
}
CONFIG = TrainConfig(epochs=60, batch_size=16, lr=0.02, optimizer="adamw")
PERFECT = {"accuracy": 100, "auroc": 100, "f1": 100, "error": 0, "map": 100}


@pytest.fixture(scope="module")
def feed():
    """Four pictures, each many times: whatever is known of them can be learned by heart."""
    order = torch.arange(16) % 4
    pictures = torch.randint(256, (4, 1, 12, 12), generator=torch.Generator().manual_seed(0))
    tasks = tuple(fit_task(name, cells, OPTIONS[name]) for name, cells in CELLS.items())
    targets = {
        task.name: torch.stack([task.target(cell) for cell in CELLS[task.name]])[order]
        for task in tasks
    }
    part = Part(pictures.to(torch.uint8)[order], targets)
    schema = Schema(tasks, (1, 12, 12), frozenset())
    return ResidentFeed(schema, dict.fromkeys(("train", "validation", "test"), part))


@pytest.fixture(scope="module")
def trained(feed):
    backbone = BACKBONE.model_copy(update={"features": 16})
    head = HeadConfig(activation="none")
    model = build_model(backbone, head, feed.schema.tasks, shape=(1, 12, 12), seed=0)
    fit(model, feed, CONFIG, seed=0)
    return model


def test_what_is_known_is_learned(trained, feed):
    found = evaluate(trained, feed, "test", CONFIG)
    for task in feed.schema.tasks:
        for name in task.metrics:
            assert math.isfinite(found[task.name][name])
            if name in PERFECT:
                assert found[task.name][name] == pytest.approx(PERFECT[name]), (task.name, name)
    assert found["age"]["r2"] > 0.9
    assert found["age"]["mae"] < 40


def test_a_model_is_loaded_with_the_names_and_units_of_its_tasks(trained, feed, tmp_path):
    trained.config["input"] = {"shape": list(feed.schema.shape)}
    trained.save(tmp_path / "model")
    loaded = rs.load(tmp_path / "model")
    tasks = [fit_task(name, cells, OPTIONS[name]) for name, cells in CELLS.items()]
    assert loaded.config["tasks"] == [task.spec() for task in tasks]
    outputs = loaded(feed.inputs.normalise(feed.parts["test"].inputs[:4]))
    said = {task.name: task.predict(outputs[task.name])[""] for task in tasks}
    assert [said["species"][index] for index in (0, 1, 3)] == ["cat", "dog", "bird"]
    assert [said["has a tail"][index] for index in (0, 2, 3)] == ["yes", "no", "no"]
    assert [said["seen"][index] for index in (0, 1, 3)] == ["a|b", "b", "none"]
    assert said["age"][:3] == pytest.approx([1, 20, 300], abs=60)
