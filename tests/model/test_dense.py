"""Tasks that predict for every pixel: what their heads read and give, share, save and export."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import recon_search as rs
from recon_search.errors import BackboneError, RecipeError, TrainingError
from recon_search.graph.anatomy import dissect
from recon_search.model.dense import ASPP, FPN
from recon_search.model.facts import facts_of
from recon_search.model.heads import NeckedHead
from recon_search.model.network import MultiTaskModel, build_model
from recon_search.model.pyramid import pad
from recon_search.recipe import BackboneConfig, HeadsConfig, parse_recipe
from recon_search.stages.export import export
from tests.command import call
from tests.graph.laws import randomise
from tests.stages.pixels import SCENES
from tests.stages.recipes import TINY


@dataclass(frozen=True)
class Pixels:
    """Numbers for every pixel, held against zeros."""

    name: str
    n_outputs: int
    weight: float = 1.0
    reads: ClassVar[Literal["pyramid"]] = "pyramid"
    metrics: ClassVar[dict[str, int]] = {"error": -1}

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().mean()

    def n_labels(self, target: Tensor) -> Tensor:
        return torch.tensor(target.numel())

    def meter(self) -> Any:
        raise NotImplementedError

    def spec(self) -> dict[str, Any]:
        return {"kind": f"{__name__}:Pixels", "name": self.name, "n_outputs": self.n_outputs}


class Own(nn.Module):
    """A head of one's own: the finest map, enlarged by what it is told."""

    def __init__(
        self, channels: list[int], reductions: list[int], n_outputs: int, enlarged: bool = True
    ) -> None:
        super().__init__()
        assert isinstance(channels, list)
        assert isinstance(reductions, list)
        self.conv = nn.Conv2d(channels[0], n_outputs, 1)
        self.factor = reductions[0] if enlarged else 1

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return functional.interpolate(self.conv(maps[0]), scale_factor=self.factor)


class OwnNeck(nn.Module):
    """A neck of one's own: the two coarsest maps, each twice as wide."""

    def __init__(self, channels: list[int], reductions: list[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(c, 2 * c, 1) for c in channels[-2:])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [conv(each) for conv, each in zip(self.convs, maps[-2:], strict=True)]


def flat(channels: list[int], reductions: list[int]) -> nn.Module:
    """No neck: it gives numbers."""

    class Flat(nn.Module):
        def forward(self, maps: Sequence[Tensor]) -> Tensor:
            return maps[0].mean((2, 3))

    return Flat()


RESNET = BackboneConfig(name="resnet18", args={"channels": [4, 4, 8, 8]})
VIT = BackboneConfig(name="test_vit", args={"img_size": 48})
CONVNEXT = BackboneConfig(name="test_convnext")
STRIDED = BackboneConfig(name="resnet18", args={"channels": [4, 4, 8, 8], "output_stride": 8})
DEIT = BackboneConfig(name="deit_tiny_patch16_224", args={"img_size": 48})
DENSE = [Pixels("a", 2), Pixels("b", 3)]
MIXED = [*DENSE, rs.Classes("c", 4)]
HEADS = HeadsConfig.model_validate(
    {
        "heads": {
            "a": {"kind": "fpn", "hidden": 8},
            "b": {"kind": "aspp", "hidden": 16, "args": {"rates": [1, 2]}},
        }
    }
)
SHARED = HeadsConfig.model_validate(
    {
        "heads": {task: {"neck": "decoder"} for task in "ab"},
        "necks": {"decoder": {"kind": "fpn", "hidden": 8}},
    }
)


def build(
    heads: HeadsConfig = HEADS, tasks: Sequence[Any] = MIXED, shape: tuple[int, ...] = (3, 32, 32),
    backbone: BackboneConfig = RESNET, split: Any = None,
) -> MultiTaskModel:  # fmt: skip
    return build_model(backbone, heads, tasks, shape=shape, split=split)


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def kinds(**head: Any) -> HeadsConfig:
    return HeadsConfig.model_validate({"head": head})


OWN = {"kind": f"{__name__}:Own"}


@pytest.mark.parametrize("head", [{}, {"kind": "mlp", "hidden": 5}, OWN], ids=str)
@pytest.mark.parametrize(
    ("backbone", "shape", "multiple"),
    [
        (RESNET, (3, 32, 64), 1),
        (RESNET, (3, 37, 50), 1),
        (RESNET, (1, 36, 36), 1),
        (VIT, (3, 48, 48), 1),
        (VIT, (3, 40, 33), 16),
        (CONVNEXT, (3, 37, 50), 32),
        (STRIDED, (3, 37, 50), 1),
    ],
)
def test_outputs_are_as_large_as_images(head, backbone, shape, multiple) -> None:
    model = build(kinds(**head), DENSE, shape, backbone)
    assert model.multiple == multiple
    found = model(images(2, *shape))
    assert {task: tuple(out.shape) for task, out in found.items()} == {
        "a": (2, 2, *shape[1:]), "b": (2, 3, *shape[1:])
    }  # fmt: skip


def test_what_is_padded_is_cut_off_and_nothing_is_resized() -> None:
    model = build(HEADS, MIXED, (3, 40, 33), VIT).eval()
    x = images(2, 3, 40, 33)
    by_hand = functional.pad(x, (0, 15, 0, 8))
    found, padded = model(x), model(by_hand)
    for task in "ab":
        assert torch.equal(found[task], padded[task][..., :40, :33])
    plain = model.backbone.single("c")
    assert torch.equal(found["c"], model.heads["c"](plain(by_hand)))


def test_cells_lie_over_their_own_pixels_whatever_the_size() -> None:
    """A larger image that begins like a smaller one has the same grid."""
    model = build(kinds(), DENSE, (3, 37, 50)).eval()
    x = images(1, 3, 37, 50)
    maps = model.features(x)["a"]
    head = model.heads["a"]
    expected = functional.interpolate(
        head.layers(maps[-1]), scale_factor=32, mode="bilinear", align_corners=False
    )
    assert expected.shape[-2:] == (64, 64)
    torch.testing.assert_close(model(x)["a"], expected[..., :37, :50])


def test_an_fpn_reads_the_maps_from_its_finest_on() -> None:
    channels, reductions = [3, 4, 5, 6], [2, 4, 8, 16]
    maps = [
        images(2, c, -(-37 // r), -(-50 // r)) for c, r in zip(channels, reductions, strict=True)
    ]
    fpn = FPN(channels, reductions, 8)
    (found,) = fpn(maps)
    assert (fpn.channels, fpn.reductions, tuple(found.shape)) == ([8], [4], (2, 8, 10, 13))
    (other,) = fpn([maps[0] * 0, *maps[1:]])
    assert torch.equal(found, other), "the map of reduction 2 is not read"
    for place in (1, 2, 3):
        changed = [m * (2 if i == place else 1) for i, m in enumerate(maps)]
        assert not torch.equal(found, fpn(changed)[0])
    assert FPN(channels, reductions, 8, finest=1).reductions == [2]
    assert FPN(channels, reductions, 8, finest=64).reductions == [16], "the coarsest at least"
    # By hand: laterals, sums from the top, smoothing, and the sum of all in one size.
    own = fpn.fpn
    lateral = [own.inner_blocks[i](m) for i, m in enumerate(maps[1:])]
    top = [lateral[2]]
    for each in (lateral[1], lateral[0]):
        up = top[0].repeat_interleave(2, 2).repeat_interleave(2, 3)
        top.insert(0, each + up[..., : each.shape[2], : each.shape[3]])
    total = torch.zeros_like(found)
    for i, each in enumerate(top):
        smooth = own.layer_blocks[i](each)
        up = functional.interpolate(smooth, scale_factor=2**i, mode="bilinear") if i else smooth
        total = total + up[..., :10, :13]
    torch.testing.assert_close(found, total.relu())


def test_decoders_work_at_batch_one_and_keep_no_statistics() -> None:
    for decoder in (FPN([4, 6], [4, 8], 16), ASPP([4, 6], [4, 8], 16)):
        (found,) = decoder.train()([images(1, 4, 4, 4), images(1, 6, 2, 2)])
        assert found.shape[1] == 16
        assert not [*decoder.buffers()]
    rates = [block[0].dilation[0] for block in list(ASPP([4], [16], 8).aspp.convs)[1:4]]
    assert rates == [6, 12, 18]


def test_a_mixed_networks_vector_is_that_of_the_plain_model() -> None:
    model, pooled = build().eval(), build(HEADS, MIXED[2:]).eval()
    x = images(2, 3, 32, 32)
    assert torch.equal(model(x)["c"], pooled(x)["c"])
    assert torch.equal(model(x, ["c"])["c"], pooled(x)["c"])
    dense = build(HEADS, DENSE).eval()
    for task in "ab":
        assert torch.equal(model(x)[task], dense(x)[task])


@pytest.mark.parametrize("split", [None, rs.Split(("a", "b"), {"conv1": (("a",), ("b",))})])
def test_a_shared_decoder_is_one_module_that_runs_once_on_one_pyramid(split) -> None:
    model = build(SHARED, DENSE, split=split)
    first, second = model.heads["a"], model.heads["b"]
    assert isinstance(first, NeckedHead)
    assert first.neck is second.neck
    calls: list[int] = []
    first.neck.register_forward_hook(lambda *_: calls.append(1))
    found = model(images(2, 3, 32, 32))
    assert len(calls) == (1 if split is None else 2)
    for task, own in model.features(images(2, 3, 32, 32)).items():
        torch.testing.assert_close(found[task], model.heads[task](own))


@pytest.mark.parametrize("is_split", [False, True])
@pytest.mark.parametrize("heads", [HEADS, SHARED], ids=["own", "shared"])
def test_gramians_are_the_products_of_the_tasks_gradients(heads, is_split) -> None:
    split = rs.Split.private(["layer2.0.conv1"], tuple("abc")) if is_split else None
    model = build(heads, split=split).double().train()
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    randomise(model)
    x = images(3, 3, 32, 32).double()

    def losses() -> Mapping[str, Tensor]:
        return {task: out.square().mean() for task, out in model(x).items()}

    layers = rs.layers(model.backbone)
    expected = []
    gradients = {}
    for task in "abc":
        model.zero_grad()
        losses()[task].backward()
        gradients[task] = {p: p.grad.clone() for p in model.parameters() if p.grad is not None}
    for own in layers.values():
        rows = [
            torch.cat([gradients[t].get(p, torch.zeros_like(p)).flatten() for p in own])
            for t in "abc"
        ]
        expected.append(torch.stack(rows) @ torch.stack(rows).T)
    surgeon = rs.create_surgeon(model, "joint", {})
    model.zero_grad()
    found = surgeon.backward(losses(), measure=True)
    torch.testing.assert_close(found, torch.stack(expected))
    for p in model.parameters():
        total = sum(own.get(p, torch.zeros_like(p)) for own in gradients.values())
        torch.testing.assert_close(torch.zeros_like(p) if p.grad is None else p.grad, total)
    assert (found.diagonal(dim1=1, dim2=2)[:, :2] > 0).all(), "both dense tasks use every layer"


def test_the_gradient_of_a_shared_decoder_is_surgerys() -> None:
    model = build(SHARED, DENSE)
    neck = [*model.heads["a"].neck.parameters()]

    def losses() -> Mapping[str, Tensor]:
        return {task: out.square().mean() for task, out in model(images(2, 3, 32, 32)).items()}

    def gradient() -> Tensor:
        return torch.cat([(p * 0 if p.grad is None else p.grad).flatten() for p in neck])

    own = []
    for task in "ab":
        model.zero_grad()
        losses()[task].backward()
        own.append(gradient())
    surgeon = rs.create_surgeon(model, "mean", {})
    model.zero_grad()
    surgeon.backward(losses())
    torch.testing.assert_close(gradient(), (own[0] + own[1]) / 2)


@pytest.mark.parametrize(
    ("kind", "task", "name"),
    [
        ("timm", "a", "a.safetensors"),
        ("safetensors", "b", "b.safetensors"),
        ("torch-export", None, "all.pt2"),
        ("onnx", "a", "a.onnx"),
    ],
)
def test_a_network_is_saved_loaded_and_exported(tmp_path, kind, task, name) -> None:
    split = rs.Split.private(["conv1"], tuple("abc"))
    backbone, shape = (VIT, (3, 40, 33)) if kind == "timm" else (RESNET, (3, 37, 50))
    split = split if kind != "timm" else rs.Split.private(["patch_embed.proj"], tuple("abc"))
    model = build(HEADS, MIXED, shape, backbone, split).eval()
    model.config["input"] = {"shape": list(shape)}
    model.save(tmp_path / "model")
    x = images(2, *shape)
    again = rs.load(tmp_path / "model")
    for each, expected in model(x).items():
        assert torch.equal(again(x)[each], expected)
    assert export(tmp_path / "model", kind, task, tmp_path / name) < 1e-4
    if kind == "timm":
        found = json.loads((tmp_path / "a.json").read_text())
        assert found["maps"] == {"levels": [0, 2, 3, 5], "multiple": 16}
        assert found["head"]["kind"] == "fpn"


@pytest.mark.parametrize(
    ("backbone", "levels", "indices"),
    [(RESNET, [1, -1], [1, 4]), (RESNET, [2, 3], [2, 3]), (VIT, [-2, -1], [4, 5])],
)
def test_a_recipe_says_which_levels_are_read(tmp_path, backbone, levels, indices) -> None:
    """What lies behind the last is not run, and a model directory says which they are."""
    chosen = backbone.model_copy(update={"levels": levels})
    model = build(HEADS, MIXED, (3, 48, 48), chosen).eval()
    for task in "ab":
        assert model.backbone.call_of(task).indices == tuple(indices)
    every = facts_of(backbone, (3, 48, 48), tasks=DENSE).pyramid
    known = facts_of(chosen, (3, 48, 48), tasks=DENSE).pyramid
    assert len(known.channels) == len(indices) < len(every.channels)
    assert known.reductions[-1] <= every.reductions[-1]
    model.config["input"] = {"shape": [3, 48, 48]}
    model.save(tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    assert config["maps"]["levels"] == indices
    assert config["backbone"]["levels"] == levels
    x = images(2, 3, 48, 48)
    again = rs.load(tmp_path / "model").eval()
    assert all(torch.equal(again(x)[task], out) for task, out in model(x).items())
    alone = build(HEADS, DENSE, (3, 48, 48), chosen)
    behind = [name for name in model.backbone.layers() if name not in alone.backbone.layers()]
    assert any(name.startswith("layer4") for name in behind) == (levels == [2, 3])


@pytest.mark.parametrize(
    ("levels", "recipe", "message"),
    [
        ("[7]", SCENES, r"`backbone.levels`. must be among the 5 .* of ResNet, .* got \[7\]"),
        ("[2, 1]", SCENES, r"each once and in order, got \[2, 1\]"),
        ("[]", SCENES, r"`backbone.levels`: .*at least 1 item.* got \[\]"),
        ('["a"]', SCENES, r"`backbone.levels.0`: .*integer.* got .a."),
        ("[1]", TINY, "for tasks that predict for every pixel, there is none among left, right"),
    ],
)
def test_levels_that_are_of_no_use_are_one_line_before_anything_is_trained(
    tmp_path, levels, recipe, message
) -> None:
    (tmp_path / "my.toml").write_text(recipe)
    done = call(
        "validate", "my.toml", "--quick", "--set", f"backbone.levels={levels}", cwd=tmp_path
    )
    assert done.code == 2
    (line,) = done.error.splitlines()
    assert re.search(message, line), line


def test_modules_that_are_given_are_loaded_into_what_tasks_read(tmp_path) -> None:
    model = build(HEADS, MIXED, (3, 40, 33), VIT).eval()
    model.config["input"] = {"shape": [3, 40, 33]}
    model.save(tmp_path / "model")
    x = images(2, 3, 40, 33)
    plain = build(HEADS, MIXED, (3, 40, 33), VIT).backbone.single("a")
    heads = dict(build(HEADS, MIXED, (3, 40, 33), VIT).heads.items())
    for given in ({"backbone": plain}, {"heads": heads}):
        again = rs.load(tmp_path / "model", **given)
        assert all(torch.equal(again(x)[task], out) for task, out in model(x).items())


def test_a_neck_of_ones_own_says_by_its_maps_what_heads_read() -> None:
    heads = HeadsConfig.model_validate(
        {
            "heads": {"a": {"neck": "own"}, "b": {"neck": "own", "kind": "fpn", "hidden": 4}},
            "necks": {"own": {"kind": f"{__name__}:OwnNeck"}},
        }
    )
    model = build(heads, DENSE)
    assert model.heads["a"].head.layers[-1].in_channels == 16
    assert model.heads["b"].head.neck.reductions == [16]
    assert model(images(2, 3, 33, 47))["b"].shape == (2, 3, 33, 47)


def test_weights_are_those_of_the_seed_whatever_the_other_tasks_are() -> None:
    together, alone = build(), build(tasks=DENSE[1:])
    for name, tensor in alone.state_dict().items():
        if name.startswith("heads."):
            assert torch.equal(together.state_dict()[name], tensor), name
    plain = together.backbone.task_state_dict("a")
    for name, tensor in alone.backbone.task_state_dict("b").items():
        assert torch.equal(plain[name], tensor), name


def test_facts_are_those_of_what_tasks_read() -> None:
    pooled, dense, mixed = (
        facts_of(RESNET, (3, 32, 32), tasks=tasks) for tasks in (MIXED[2:], DENSE, MIXED)
    )
    assert pooled.identity == dense.identity == mixed.identity
    assert pooled.pyramid is None
    assert dense.pyramid is not None
    assert dense.pyramid.reductions == (2, 4, 8, 16, 32)
    assert list(pooled.analysis.layers) == list(dense.analysis.layers)
    assert dense.analysis.flops_of(rs.Split.private(["layer4.1.conv2"], ("a", "b"))) > 1
    split = rs.Split.private(["layer4.1.conv2"], tuple("abc"))
    assert dissect(mixed.analysis, split).cost.total_flops > 0


@pytest.mark.parametrize(
    ("heads", "tasks", "message"),
    [
        ({"head": {"kind": "fpn"}}, MIXED, "of task 'c', which reads a vector, .*linear, mlp, got"),
        (
            {"heads": {t: {"neck": "n"} for t in "ac"}, "necks": {"n": {}}},
            MIXED,
            "must be one of aspp, fpn, got 'mlp'",
        ),
        (
            {"heads": {"c": {"neck": "n"}}, "necks": {"n": {"kind": "aspp"}}},
            MIXED,
            "task 'c', which reads a vector, must be one of mlp, got 'aspp'",
        ),
        (
            {"heads": {t: {"neck": "n"} for t in "ac"}, "necks": {"n": {"kind": "fpn"}}},
            MIXED,
            r"read alike, \[necks.n\] is that of 'a', which reads a pyramid, and of 'c'",
        ),
        ({"head": {"kind": "fpn", "args": {"finset": 2}}}, DENSE, "`args.finest`, got 'finset'"),
        ({"head": {"kind": "fpn", "args": {"finest": 0}}}, DENSE, "from 1, got 0"),
        ({"head": {"kind": "aspp", "args": {"rates": []}}}, DENSE, r"from 1, got \[\]"),
        ({"head": {"kind": "aspp", "args": {"rates": 3}}}, DENSE, "from 1, got 3"),
        (
            {"head": {**OWN, "args": {"enlarged": False}}},
            DENSE,
            r"as large as the image, .*Own gave \(2, 2, 32, 32\) for 2 images of 64 x 64",
        ),
        (
            {"heads": {"a": {"neck": "n"}}, "necks": {"n": {"kind": f"{__name__}:flat"}}},
            DENSE,
            r"list of maps .*flat gave \(2, 64\)",
        ),
    ],
)
def test_what_does_not_fit_what_a_task_reads_is_one_line(heads, tasks, message) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        build(HeadsConfig.model_validate(heads), tasks)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("backbone", "shape", "message"),
    [
        (BackboneConfig(name="inception_v3"), (3, 96, 96), "inception_v3 gives none for images"),
        (BackboneConfig(name="pit_ti_224", args={"img_size": 64}), (3, 64, 64), "maps of "),
        (DEIT, (3, 32, 32), r"for images of \(32, 32\)"),
        (DEIT, (3, 30, 32), r"padded to \(32, 32\)"),
    ],
)
def test_maps_that_do_not_lie_over_the_image_are_refused_in_one_line(
    backbone, shape, message
) -> None:
    with pytest.raises(BackboneError, match=message) as caught:
        facts_of(backbone, shape, tasks=DENSE)
    assert "\n" not in str(caught.value)


def test_rotograd_is_refused_on_maps() -> None:
    with pytest.raises(TrainingError, match="one vector or one map a task, 'a' reads a pyramid"):
        rs.create_surgeon(build(), "rotograd", {})


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"head": {"kind": "fnp"}}, 'must be "linear", "mlp", "fpn", "aspp" or'),
        ({"necks": {"n": {"kind": "linear"}}}, 'must be "mlp", "fpn", "aspp" or'),
        ({"head": {"kind": "mlp", "args": {"finest": 2}}}, "`head.args` needs a `head.kind`"),
    ],
)
def test_recipes_name_the_kinds_there_are(changes, line) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe({**tomllib.loads(TINY), **changes})
    assert line in str(caught.value)


def test_images_of_the_right_size_are_not_copied() -> None:
    x = images(1, 3, 32, 64)
    assert pad(x, 16) is x
    assert pad(x, 1) is x
    assert pad(x, 48).shape == (1, 3, 48, 96)
