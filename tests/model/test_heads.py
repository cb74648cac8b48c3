"""Heads of their own, and necks that several of them read through."""

from __future__ import annotations

import json
import tomllib

import pytest
import torch
from torch import nn

import recon_search as rs
from recon_search.errors import RecipeError
from recon_search.model.heads import NeckedHead
from recon_search.model.network import build_model
from recon_search.recipe import BackboneConfig, HeadConfig, HeadsConfig, parse_recipe
from recon_search.stages.export import export
from tests.stages.recipes import TINY

BACKBONE = BackboneConfig(name="resnet18", args={"channels": [4, 4, 8, 8]}, features=6)
TASKS = [rs.Classes("a", 2), rs.Classes("b", 3), rs.Classes("c", 4)]
HEADS = HeadsConfig.model_validate(
    {
        "head": {"neck": "wide"},
        "heads": {"c": {"kind": "mlp", "hidden": 5}},
        "necks": {"wide": {"hidden": 7, "activation": "relu"}},
    }
)


class Own(nn.Module):
    """A neck that gives twice as many numbers."""

    def __init__(self, width: int, times: int = 2) -> None:
        super().__init__()
        self.layer = nn.Linear(width, times * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def flat(width: int) -> nn.Module:
    """No neck: it gives one number an image."""
    return nn.Sequential(nn.Linear(width, 1), nn.Flatten(0))


def build(heads=HEADS, tasks=TASKS, split=None):
    return build_model(BACKBONE, heads, tasks, shape=(1, 12, 12), split=split)


@pytest.fixture
def images():
    return torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(0))


def test_tasks_that_name_a_neck_share_it_and_others_do_not():
    model = build()
    assert model.heads["a"].neck is model.heads["b"].neck
    assert not isinstance(model.heads["c"], NeckedHead)
    assert model.heads["a"].neck[1].out_features == model.heads["a"].head[-1].in_features == 7
    assert model.heads["c"][1].out_features == 5
    n = sum(p.numel() for p in {*model.parameters()})
    assert model.n_parameters == n, "a neck counts once"


def test_heads_and_necks_begin_alike_whatever_the_other_tasks_are():
    together, alone = build(), build(tasks=TASKS[1:2])
    for name, tensor in alone.heads.state_dict().items():
        assert torch.equal(together.heads.state_dict()[name], tensor), name


@pytest.mark.parametrize("method", ["pcgrad", "mean"])
@pytest.mark.parametrize("is_split", [False, True])
def test_the_gradient_of_a_neck_is_surgerys(images, method, is_split):
    """It is what the method makes of the two tasks' gradients, each known by a backward of its own.

    Of three tasks' gradients only those of its two users move a neck.
    """
    split = rs.Split.private(["layer1.0.conv1"], tuple("abc")) if is_split else None
    model = build(split=split).train()
    neck = list(model.heads["a"].neck.parameters())

    def losses():
        return {task: out.square().mean() for task, out in model(images).items()}

    own = {}
    for task in "ab":
        model.zero_grad()
        losses()[task].backward()
        own[task] = [p.grad.clone() for p in neck]
    model.zero_grad()
    sum(losses().values()).backward()
    total = [p.grad.clone() for p in neck]
    for first, second, both in zip(own["a"], own["b"], total, strict=True):
        torch.testing.assert_close(first + second, both)
    surgeon = rs.create_surgeon(model, "joint", {})
    model.zero_grad()
    surgeon.backward(losses(), measure=True)
    for p, expected in zip(neck, total, strict=True):
        torch.testing.assert_close(p.grad, expected)
    surgeon = rs.create_surgeon(model, method, {})
    model.zero_grad()
    surgeon.backward(losses())
    for p, a, b in zip(neck, own["a"], own["b"], strict=True):
        stacked = torch.stack([a.flatten(), b.flatten()])
        # What comes out lies in the plane of the two users' gradients.
        solution = torch.linalg.lstsq(stacked.T.double(), p.grad.flatten().double()).solution
        torch.testing.assert_close(stacked.T.double() @ solution, p.grad.flatten().double())
        assert (p.grad != 0).any()


@pytest.mark.parametrize("kind", ["timm", "safetensors", "torch-export"])
def test_a_model_with_necks_is_saved_loaded_and_exported(tmp_path, images, kind):
    model = build(split=rs.Split.private(["conv1"], tuple("abc"))).eval()
    model.config["input"] = {"shape": [1, 12, 12]}
    model.save(tmp_path / "model")
    again = rs.load(tmp_path / "model")
    expected = model(images)
    assert all(torch.equal(again(images)[task], expected[task]) for task in "abc")
    assert again.heads["a"].neck is again.heads["b"].neck
    name = "a.pt2" if kind == "torch-export" else "a.safetensors"
    assert export(tmp_path / "model", kind, "a", tmp_path / name) < 1e-5
    if kind != "torch-export":
        found = json.loads((tmp_path / "a.json").read_text())
        assert (found["head"]["neck"], found["neck"]["hidden"]) == ("wide", 7)


def test_a_neck_of_ones_own_says_how_wide_it_is_by_what_it_gives():
    own = {"kind": f"{__name__}:Own", "args": {"times": 3}}
    heads = HeadsConfig.model_validate({"head": {"neck": "own"}, "necks": {"own": own}})
    model = build(heads)
    assert model.heads["a"].head[-1].in_features == 18
    assert model.heads["a"].neck.training


@pytest.mark.parametrize(
    ("neck", "message"),
    [
        ({"kind": f"{__name__}:flat"}, r"into \(B, d\), .*flat gave \(2,\)"),
        ({"kind": f"{__name__}:TASKS"}, "must be a class or a function"),
        ({"kind": "builtins:dict"}, "raised TypeError"),
        ({"kind": f"{__name__}:Own", "args": {"x": 1}}, "cannot be called with"),
    ],
)
def test_what_makes_no_neck_is_one_line(neck, message):
    heads = HeadsConfig.model_validate({"head": {"neck": "n"}, "necks": {"n": neck}})
    with pytest.raises(RecipeError, match=message) as caught:
        build(heads)
    assert "\n" not in str(caught.value)


def test_one_head_for_all_may_be_given_alone():
    assert build(HeadConfig()).config["head"] == HeadConfig().model_dump()
    assert "necks" not in build(HeadConfig()).config


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"head": {"neck": "n"}}, ["`head.neck` must be one of [necks], got 'n', found none."]),
        (
            {"tasks": {"left": {"head": {"neck": "wied"}}}, "necks": {"wide": {}}},
            ["`tasks.left.head.neck` must be one of [necks], got 'wied', found wide."],
        ),
        ({"necks": {"n": {"kind": "conv"}}}, ['`necks.n.kind`: value error, must be "mlp" or']),
        ({"necks": {"n": {"hiden": 3}}}, ["`necks.n.hiden` is no key of a recipe. Did you mean"]),
        ({"tasks": {"left": {"head": {"knid": 3}}}}, ["`tasks.left.head.knid` is no key"]),
        ({"necks": {"n": {"args": {"a": 1}}}}, ["`neck.args` needs a `neck.kind`"]),
    ],
)
def test_recipes_name_what_is_there(changes, lines):
    raw = tomllib.loads(TINY)
    with pytest.raises(RecipeError) as caught:
        parse_recipe({**raw, **changes})
    found = str(caught.value).splitlines()
    assert len(found) == len(lines)
    for line, expected in zip(found, lines, strict=True):
        assert expected in line
