"""Learning rates of layers and heads: timm's own groups on the plain model."""

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay

from recon_search.graph.split import Split
from recon_search.model.network import build_model
from recon_search.recipe import BackboneConfig, HeadConfig, HeadsConfig, NeckConfig, TrainConfig
from recon_search.tasks.classes import Classes
from recon_search.training.loop import fit
from recon_search.training.optimisation import (
    base_lr,
    create_optimizer,
    create_scheduler,
    parameter_groups,
)

TASKS = [Classes(task, 5) for task in "ab"]
BACKBONES = {
    "resnet18": {"channels": [4, 4, 8, 8]},
    "vit_tiny_patch16_224": {"img_size": 32, "depth": 3, "embed_dim": 24, "num_heads": 3},
    "convnext_atto": {"depths": [1, 1, 2, 1], "dims": [4, 4, 8, 8]},
}
CONFIG = TrainConfig(epochs=4, batch_size=8, lr=0.1, weight_decay=0.05, layer_decay=0.75)


def make(name, split=(), heads=None, frozen=()):
    config = BackboneConfig(name=name, args=BACKBONES[name])
    plan = Split.private(list(split), ["a", "b"]) if split else None
    heads = heads or HeadConfig()
    return build_model(config, heads, TASKS, shape=(3, 32, 32), split=plan, frozen=frozen)


def by_parameter(groups, key):
    return {p: group[key] for group in groups for p in group["params"]}


@pytest.mark.parametrize("is_split", [False, True], ids=["unsplit", "split"])
@pytest.mark.parametrize("name", BACKBONES)
def test_every_copy_of_a_layer_learns_as_timm_has_it(name, is_split):
    plain = timm.create_model(name, num_classes=5, **BACKBONES[name])
    groups = param_groups_layer_decay(
        plain,
        0.05,
        plain.no_weight_decay() if hasattr(plain, "no_weight_decay") else (),
        layer_decay=0.75,
    )
    names = {p: n for n, p in plain.named_parameters()}
    scales = {names[p]: v for p, v in by_parameter(groups, "lr_scale").items()}
    decays = {names[p]: v for p, v in by_parameter(groups, "weight_decay").items()}
    split = []
    if is_split:
        layers = list(make(name).backbone.layers())
        split = layers[:: len(layers) // 4]
    model = make(name, split)
    found = parameter_groups(model, CONFIG)
    own_scales, own_decays = (by_parameter(found, key) for key in ("lr_scale", "weight_decay"))
    assert set(own_scales) == set(model.parameters())
    assert sum(len(group["params"]) for group in found) == len(own_scales)
    for task in "ab":
        path = model.backbone.path(task)
        for plain_name in model.backbone.task_state_dict(task):
            tensor = path.read(plain_name)
            if plain_name in scales and isinstance(tensor, torch.nn.Parameter):
                assert own_scales[tensor] == scales[plain_name], plain_name
                assert own_decays[tensor] == decays[plain_name], plain_name
        for parameter in model.heads[task].parameters():
            assert own_scales[parameter] == 1.0
    assert len(set(scales.values())) > 2


@pytest.mark.parametrize("decay", [1.0, 0.75])
def test_heads_and_the_necks_they_share_learn_at_a_rate_of_their_own(decay):
    heads = HeadsConfig(head=HeadConfig(neck="wide"), necks={"wide": NeckConfig(hidden=7)})
    model = make("resnet18", ["layer4.1.conv2"], heads)
    config = CONFIG.model_copy(update={"layer_decay": decay, "head_lr_scale": 10.0})
    plain = by_parameter(
        parameter_groups(model, config.model_copy(update={"head_lr_scale": 1.0})), "lr_scale"
    )
    found = by_parameter(parameter_groups(model, config), "lr_scale")
    of_heads = set(model.heads.parameters())
    assert set(model.heads["a"].neck.parameters()) < of_heads
    for parameter, scale in found.items():
        expected = plain[parameter] * (10 if parameter in of_heads else 1)
        assert scale == expected


@pytest.mark.parametrize("scheduler", ["cosine", "step", "multistep", "constant"])
def test_a_schedule_keeps_the_rates_apart_in_every_step(scheduler):
    model = make("resnet18")
    config = CONFIG.model_copy(
        update={
            "head_lr_scale": 3.0, "scheduler": scheduler, "milestones": [2], "warmup_epochs": 1,
        }
    )  # fmt: skip
    even = config.model_copy(update={"layer_decay": 1.0, "head_lr_scale": 1.0})
    optimizer, plain = create_optimizer(model, config), create_optimizer(model, even)
    schedules = create_scheduler(optimizer, config, 5), create_scheduler(plain, even, 5)
    for number in range(20):
        for schedule in schedules:
            schedule.step_update(number)
        lr = plain.param_groups[0]["lr"]
        assert base_lr(optimizer) == pytest.approx(lr, rel=1e-12)
        assert base_lr(plain) == lr
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(lr * group["lr_scale"], rel=1e-12)


def test_cosine_ends_at_the_least_learning_rate():
    config = TrainConfig(epochs=4, batch_size=8, lr=0.1, min_lr=0.02)
    optimizer = create_optimizer(make("resnet18"), config)
    schedule = create_scheduler(optimizer, config, 5)
    rates = []
    for number in range(21):
        schedule.step_update(number)
        rates.append(base_lr(optimizer))
    assert rates[0] == 0.1
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.02)


def test_by_default_the_groups_are_those_of_timm_for_the_model():
    config = CONFIG.model_copy(update={"layer_decay": 1.0})
    found = create_optimizer(make("resnet18"), config).param_groups
    assert [group["weight_decay"] for group in found] == [0.0, 0.05]
    assert all("lr_scale" not in group for group in found)


@pytest.mark.parametrize("changes", [{}, {"weight_decay": 0.0}, {"head_lr_scale": 2.0}], ids=str)
@pytest.mark.parametrize("decay", [1.0, 0.75])
def test_frozen_parameters_are_not_in_the_optimiser(changes, decay):
    model = make("resnet18", frozen=["conv1", "layer2.*"])
    config = CONFIG.model_copy(update={"layer_decay": decay, **changes})
    found = {p for group in create_optimizer(model, config).param_groups for p in group["params"]}
    assert found == {p for p in model.parameters() if p.requires_grad} < set(model.parameters())


@pytest.mark.parametrize("name", ["adamw", "lion", "adafactor", "lamb"])
def test_other_optimisers_take_rates_of_their_own(data, name):
    config = BackboneConfig(name="resnet18", args=BACKBONES["resnet18"])
    classes = [Classes(task, 10) for task in data.schema.names]
    model = build_model(config, HeadConfig(), classes, shape=(1, 12, 12))
    train = CONFIG.model_copy(
        update={"optimizer": name, "lr": 0.001, "epochs": 1, "batch_size": 32, "head_lr_scale": 2.0}
    )
    before = {n: p.clone() for n, p in model.named_parameters()}
    fit(model, data, train, seed=0)
    assert all(not torch.equal(p, before[n]) for n, p in model.named_parameters() if p.ndim > 1)
