"""A split that one of the pairs of item sets has found, tried on the others by their recipes."""

import json

import pytest

import recon_search as rs
from tests.command import call
from tests.idx import write_item_set
from tests.stages.recipes import RECIPES

LENT = {"multi-mnist": 1, "multi-fashion": 2, "multi-fashion-mnist": 3}
"""Layers that each splits."""
SMALL = {
    "data.train": 32,
    "data.validation": 16,
    "data.test": 16,
    "backbone.args": "{channels=[4,4,8,8]}",
    "backbone.features": 6,
    "train.epochs": 1,
    "train.batch_size": 16,
    "train.milestones": "[1]",
    "train.lr": 0.01,
    "probe.epochs": 1,
    "compare.seeds": 1,
    "compare.methods": '["joint"]',
    "compare.controls": "[]",
}


def command(name, verb, *words):
    """A command on a shipped recipe made small."""
    sets = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    return (
        *(verb, RECIPES / f"{name}.toml", "--data-root", "items", *sets),
        *("--set", f"split.k={LENT[name]}", *words),
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Item sets, and of each recipe its scores and its split."""
    folder = tmp_path_factory.mktemp("sets")
    write_item_set(folder / "items/mnist", 60)
    write_item_set(folder / "items/fashion-mnist", 40)
    for name in LENT:
        run = ("--out", name, "--device", "cpu", "--workers", 1)
        split = ("--scores", f"{name}/scores.safetensors", "--out", f"{name}/split.json")
        for words in (command(name, "probe", *run), command(name, "split", *split)):
            done = call(*words, cwd=folder)
            assert done.code == 0, done.error
    return folder


@pytest.mark.parametrize(
    ("name", "lender"),
    [
        ("multi-mnist", "multi-fashion-mnist"),
        ("multi-fashion-mnist", "multi-mnist"),
        ("multi-fashion", "multi-fashion-mnist"),
    ],
)
def test_a_training_takes_the_split_of_another_data_set(place, name, lender):
    words = ("--split", lender, "--out", f"{name} by {lender}", "--device", "cpu")
    done = call(*command(name, "train", *words), cwd=place)
    assert done.code == 0, done.error
    lent = rs.Split.load(place / lender / "split.json")
    model = rs.load(place / f"{name} by {lender}/model")
    assert list(model.backbone.split.layers) == list(lent.layers)
    assert len(lent.layers) == LENT[lender]
    for groups in model.backbone.split.layers.values():
        assert groups == tuple((task,) for task in model.tasks)


def test_a_comparison_has_a_row_for_its_own_split_and_one_for_each_lender(place):
    name, *lenders = LENT
    splits = [f'--set=compare.splits.{other}="{other}/split.json"' for other in lenders]
    words = (
        *("--split", f"{name}/split.json", "--scores", f"{name}/scores.safetensors"),
        *(word for split in splits for word in split.split("=", 1)),
        *("--out", "compared", "--device", "cpu", "--workers", 1),
    )
    done = call(*command(name, "compare", *words), cwd=place)
    assert done.code == 0, done.error
    rows = json.loads((place / "compared/comparison.json").read_text())["rows"]
    found = {row["role"]: [] for row in rows}
    for row in rows:
        found[row["role"]].append(row)
    assert len(found["split"]) == 1
    assert len(found["borrowed"]) == len(lenders)
    sizes = [row["n_parameters"] for row in (*found["joint"], *found["split"], *found["borrowed"])]
    assert len(set(sizes)) == len(sizes), "each splits other layers"
    for lender in lenders:
        assert lender in done.output
    done = call("rank", *lenders, "--window", 0, 1, cwd=place)
    assert done.code == 0, done.error
