"""Heads of tasks with any name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import recon_search as rs
from recon_search.model.network import MultiTaskModel, build_model
from recon_search.model.rotation import RotatedHead, add_rotations, fold_rotations
from recon_search.recipe import BackboneConfig, HeadConfig

TASKS = ("train", "a.b", "seg", "items")


@pytest.fixture
def model() -> MultiTaskModel:
    split = rs.Split.private(["blocks.3.norm2"], TASKS)
    config = BackboneConfig(name="test_vit", args={"img_size": 32})
    head = HeadConfig(activation="none")
    tasks = [rs.Classes(task, 2) for task in TASKS]
    return build_model(config, head, tasks, shape=(3, 32, 32), split=split).eval()


x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_a_model_computes_its_tasks_whatever_they_are_called(model: MultiTaskModel) -> None:
    outputs = model(x)
    assert tuple(outputs) == TASKS
    for task in TASKS:
        assert torch.equal(model.heads[task](model.backbone(x)[task]), outputs[task])
    assert "heads.seg.1.weight" in model.state_dict()


def test_compiling_and_exporting_know_every_name(model: MultiTaskModel) -> None:
    expected = model(x)
    compiled = torch.compile(model, backend="eager", fullgraph=True)(x)
    exported = torch.export.export(model, (x,)).module()(x)
    for task in TASKS:
        assert torch.equal(compiled[task], expected[task])
        assert torch.equal(exported[task], expected[task])


def test_a_model_directory_keeps_every_name(model: MultiTaskModel, tmp_path: Path) -> None:
    model.config["input"] = {"shape": [3, 32, 32]}
    model.save(tmp_path)
    loaded, expected = rs.load(tmp_path)(x), model(x)
    assert all(torch.equal(loaded[task], expected[task]) for task in TASKS)


def test_rotations_are_added_and_folded_under_every_name(model: MultiTaskModel) -> None:
    expected = model(x)
    add_rotations(model.heads)
    assert all(isinstance(head, RotatedHead) for head in model.heads.values())
    fold_rotations(model.heads)
    assert not any(isinstance(head, RotatedHead) for head in model.heads.values())
    assert all(torch.equal(model(x)[task], expected[task]) for task in TASKS)
