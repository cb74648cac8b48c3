"""What copies are: they begin equal, cost what is said, and are plain weights to whoever reads."""

import copy
import tomllib

import pytest
import torch
from timm import create_model

from recon_search.conflict.gramian import layer_gramians, task_gradients
from recon_search.conflict.lockstep import lockstep_gramians
from recon_search.conflict.sketch import Sketch
from recon_search.errors import ArtefactError, RecipeError
from recon_search.graph.habits import plain_name
from recon_search.graph.split import Split
from recon_search.methods.sharing import Sharing
from recon_search.methods.surgeon import create_surgeon
from recon_search.model.copies import LowRank, change_copies, folded, surplus
from recon_search.model.facts import facts_of
from recon_search.model.files import load
from recon_search.model.network import build_model
from recon_search.recipe import (
    WHOLE,
    BackboneConfig,
    CopyConfig,
    HeadConfig,
    SplitConfig,
    parse_recipe,
)
from recon_search.runs.fitting import count_flops
from recon_search.tasks.classes import Classes
from tests.stages.recipes import TINY

TASKS = [Classes(task, 5) for task in ("a", "b", "c")]
SHAPE = (3, 32, 32)
BACKBONES = {
    "resnet": BackboneConfig(name="resnet18", args={"channels": [4, 4, 8, 8]}),
    "vit": BackboneConfig(
        name="vit_tiny_patch16_224",
        args={"img_size": 32, "embed_dim": 24, "depth": 1, "num_heads": 2},
    ),
    "depthwise": BackboneConfig(name="test_efficientnet"),
    "convnext": BackboneConfig(
        name="convnext_atto", args={"depths": (1, 1, 1, 1), "dims": (4, 8, 8, 8)}
    ),
}
COPIES = {
    "low-rank": CopyConfig(kind="low-rank", rank=1),
    "gates": CopyConfig(kind="gates"),
}


def layers_of(config):
    return list(facts_of(config, SHAPE, tasks=TASKS).analysis.layers)


def make(config, copies=WHOLE, *, every=3, groups=(("a",), ("b", "c"))):
    """A model with every third layer split, or more where there are few."""
    names = layers_of(config)
    every = every if len(names) > 20 else 1
    split = Split(("a", "b", "c"), dict.fromkeys(names[::every], groups))
    model = build_model(config, HeadConfig(), TASKS, shape=SHAPE, split=split, seed=1)
    change_copies(model, copies)
    return model


@torch.no_grad()
def shaken(model):
    """Change every parameter, and the statistics of norms by a batch."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    model.train()(torch.randn(4, *SHAPE, generator=generator))
    return model.eval()


def images(n=3):
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(7))


def equal(one, other):
    return all(torch.equal(one[task], other[task]) for task in one)


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize("name", BACKBONES)
def test_copies_begin_equal_and_cost_what_is_said(name, kind):
    config = BACKBONES[name]
    plain, changed = make(config), make(config, COPIES[kind])
    plain.eval(), changed.eval()
    assert equal(plain(images()), changed(images()))
    analysis = facts_of(config, SHAPE, tasks=TASKS).analysis
    added = surplus(analysis, changed.backbone.split, COPIES[kind])
    assert changed.n_parameters == plain.n_parameters + added
    assert added < 0 if kind == "low-rank" else added > 0
    whole = folded(changed)
    assert whole.n_parameters == plain.n_parameters
    assert count_flops(whole, images(1)) == count_flops(plain, images(1))


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize("name", BACKBONES)
def test_a_path_is_a_plain_timm_model(name, kind, tmp_path):
    config = BACKBONES[name]
    model = shaken(make(config, COPIES[kind]))
    found, x = model.backbone(images()), images()
    for task in ("a", "c"):
        plain = create_model(config.name, num_classes=0, in_chans=3, **config.args).eval()
        plain.load_state_dict(model.backbone.task_state_dict(task), strict=True)
        torch.testing.assert_close(plain(x), found[task], rtol=1e-6, atol=1e-6)
    assert not torch.allclose(found["a"], found["b"], atol=1e-3), "they have learned apart"
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert equal(folded(model)(x), model(x))
    assert model.state_dict().keys() == before.keys(), "a copy of it was folded"
    model.config["input"] = {"shape": list(SHAPE)}
    model.save(tmp_path / "model")
    known = load(tmp_path / "model")
    assert known.n_parameters == model.n_parameters
    assert equal(known(x), model(x))
    assert known.config["copies"] == model.config["copies"]


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize(
    "change", [copy.deepcopy, lambda m: m.double().float()], ids=["copy", "to"]
)
def test_what_is_shared_stays_one_and_is_saved_once(kind, change):
    model = change(make(BACKBONES["resnet"], COPIES[kind]))
    names = [name for name, _ in model.named_parameters()]
    saved = model.state_dict()
    assert sorted(saved) == sorted([*names, *(name for name, _ in model.named_buffers())])
    others = shaken(make(BACKBONES["resnet"], COPIES[kind]))
    model.load_state_dict(others.state_dict())
    assert equal(model.eval()(images()), others(images()))
    assert len(list(model.parameters())) == len(names)


def test_the_shared_weight_learns_from_all_and_an_update_from_its_own():
    model = shaken(make(BACKBONES["resnet"], COPIES["low-rank"], every=1))
    layer = "layer4.0.conv1"
    copies = {block.tasks: block.parameters for block in model.backbone.layers()[layer]}
    shared, up, _ = copies["a",]
    assert shared is copies["b", "c"][0]
    assert up is not copies["b", "c"][1]
    loss = model(images())["a"].square().sum()
    loss.backward()
    assert shared.grad.abs().sum() > 0
    assert up.grad.abs().sum() > 0
    assert copies["b", "c"][1].grad is None


def test_conflicts_of_low_rank_copies_are_of_what_they_share():
    """The shared weight counts once, however many copies read it."""
    model = make(BACKBONES["resnet"], COPIES["low-rank"], every=1).double()
    x = images().double()

    def losses():
        return [model(x)[task].square().mean() * n for n, task in enumerate("abc", start=1)]

    layers = Sharing(model).layers
    assert all(len({*own}) == len(own) for own in layers.values())
    parameters = [[p for own in layers.values() for p in own]] * 3
    expected = layer_gramians(task_gradients(losses(), parameters), layers)
    (shared,) = [own[0] for name, own in layers.items() if name == "layer2.0.conv2"]
    by_hand = [torch.autograd.grad(loss, shared)[0].flatten() for loss in losses()]
    place = list(layers).index("layer2.0.conv2")
    assert expected[place, 0, 1] == pytest.approx(float(by_hand[0] @ by_hand[1]))
    torch.testing.assert_close(lockstep_gramians(losses(), layers), expected)
    sketched = create_surgeon(model, "joint", sketch=Sketch(100_000))
    model.zero_grad()
    named = dict(zip("abc", losses(), strict=True))
    torch.testing.assert_close(sketched.backward(named, measure=True), expected)


@pytest.mark.parametrize("shape", [(4, 6), (6, 3, 3, 3), (5, 1, 3, 3)])
def test_an_update_of_full_rank_can_be_any_other_copy(shape):
    weight, other = (torch.randn(shape, dtype=torch.float64) for _ in range(2))
    rank = min(shape[0], weight[0].numel())
    update = LowRank(weight, rank, torch.Generator().manual_seed(0))
    assert torch.equal(update(weight), weight)
    u, s, v = torch.linalg.svd((other - weight).flatten(1), full_matrices=False)
    with torch.no_grad():
        update.up.copy_(u * s)
        update.down.copy_(v)
    torch.testing.assert_close(update(weight), other)


def test_an_update_that_would_be_no_smaller_is_a_full_copy():
    model = make(BACKBONES["resnet"], CopyConfig(kind="low-rank", rank=1000))
    assert model.n_parameters == make(BACKBONES["resnet"]).n_parameters
    assert not any("parametrizations" in name for name, _ in model.named_parameters())


def test_low_rank_leaves_norms_and_biases_their_copies():
    model = make(BACKBONES["vit"], COPIES["low-rank"], every=1)
    changed = {
        plain_name(name.removeprefix("backbone."))
        for name, _ in model.named_parameters()
        if ".up" in name
    }
    assert changed
    plain = create_model("vit_tiny_patch16_224", num_classes=0, **BACKBONES["vit"].args)
    shapes = {name: parameter.shape for name, parameter in plain.named_parameters()}
    assert all(name.endswith(".weight") and len(shapes[name]) > 1 for name in changed)
    assert "blocks.0.attn.qkv.weight" in changed
    assert not any("norm" in name for name in changed)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_copy_of_every_norm_has_a_gate(name):
    """Whether the graph calls the norm or reads its weight."""
    config = BACKBONES[name]
    analysis = facts_of(config, SHAPE, tasks=TASKS).analysis
    norms = [info.name for info in analysis.infos if info.is_norm]
    split = Split.private(norms, ("a", "b", "c"))
    model = build_model(config, HeadConfig(), TASKS, shape=SHAPE, split=split)
    change_copies(model, COPIES["gates"])
    gates = [n for n, p in model.named_parameters() if n.endswith("weight.0.logit")]
    assert len(gates) == 3 * len(norms) > 0
    assert {plain_name(n.removeprefix("backbone.")) for n in gates} == {
        f"{n}.weight" for n in norms
    }


def test_equal_seeds_draw_equal_updates_and_other_copies_draw_others():
    one, same = (make(BACKBONES["resnet"], COPIES["low-rank"]) for _ in range(2))
    assert all(map(torch.equal, one.parameters(), same.parameters()))
    down = [p for name, p in one.named_parameters() if name.endswith("0.down")]
    assert len(down) > 4
    assert not torch.equal(down[0], down[1])


def test_a_file_may_not_ask_for_copies_that_there_are_none_of(tmp_path):
    model = make(BACKBONES["resnet"], COPIES["gates"])
    model.config["input"] = {"shape": list(SHAPE)}
    model.config["copies"] = {"kind": "lowrank", "rank": 1}
    model.save(tmp_path / "model")
    with pytest.raises(ArtefactError, match=r"copies.*kind"):
        load(tmp_path / "model")


def test_low_rank_copies_cannot_be_drawn_anew():
    raw = tomllib.loads(TINY)
    raw["split"] |= {"copy": "low-rank", "init": "fresh"}
    with pytest.raises(RecipeError, match=r"`split.copy` .* exclude each other"):
        parse_recipe(raw)
    assert SplitConfig(copy="low-rank", rank=2).copies == CopyConfig(kind="low-rank", rank=2)
    assert SplitConfig().copies == WHOLE
