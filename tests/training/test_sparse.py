"""Sparse updates: what is not drawn never moves, and tasks' weights multiply their losses."""

import tomllib

import pytest
import torch

from recon_search.conflict.gramian import layer_gramians, task_gradients
from recon_search.errors import RecipeError
from recon_search.graph.split import Split
from recon_search.model.network import build_model
from recon_search.recipe import TrainConfig, parse_recipe
from recon_search.training.loop import fit
from recon_search.training.sparse import SparseUpdates
from recon_search.training.step import Learner
from tests.conftest import BACKBONE, HEAD
from tests.stages.recipes import TINY


def moved(model, before):
    """What has changed of every parameter of the backbone."""
    return {n: p.detach() != before[n] for n, p in model.backbone.named_parameters()}


def build(data, layers=()):
    split = Split.private(layers, data.schema.names)
    return build_model(BACKBONE, HEAD, data.schema.tasks, shape=(1,), split=split)


@pytest.mark.parametrize(
    "changes",
    [
        {"weight_decay": 0.1},
        {"optimizer": "adamw", "weight_decay": 0.1, "lr": 0.01, "clip_grad": 1.0},
        {"method": "pcgrad", "ema": 0.9},
    ],
    ids=["sgd", "adamw", "pcgrad"],
)
def test_a_share_is_trained_and_the_rest_never_moves(data, train_config, changes):
    model = build(data)
    before = {n: p.detach().clone() for n, p in model.backbone.named_parameters()}
    heads = {n: p.detach().clone() for n, p in model.heads.named_parameters()}
    fit(model, data, train_config.model_copy(update={"update_share": 0.3, **changes}), seed=3)
    found = torch.cat([each.flatten() for each in moved(model, before).values()])
    again = SparseUpdates(model, 0.3, 3)
    mask = torch.cat([mask.flatten() for _, mask in again._masks])
    assert mask.float().mean() == pytest.approx(0.3, abs=0.02)
    assert found[mask].float().mean() > 0.6, "but for those that see nothing but padding"
    for (name, where), (_, mask) in zip(moved(model, before).items(), again._masks, strict=True):
        assert not (where & ~mask).any(), name
    again.close()
    assert all((p != heads[n]).any() for n, p in model.heads.named_parameters())
    assert not any(p._backward_hooks for p in model.parameters())


def test_copies_have_the_mask_of_their_layer(data):
    plain, split = build(data), build(data, ["conv1", "layer4.1.bn2"])
    masks = {}
    for model in (plain, split):
        sparse = SparseUpdates(model, 0.5, 0)
        paths = dict(model.backbone.named_parameters())
        named = zip(paths, sparse._masks, strict=True)
        masks[model] = {path: mask for path, (_, mask) in named}
    for branch in ("branches.left", "branches.right"):
        ours = masks[split][f"{branch}.conv1.weight"]
        assert torch.equal(ours, masks[plain]["shared.conv1.weight"])
    other = SparseUpdates(build(data), 0.5, 1)._masks[0][1]
    assert not torch.equal(other, masks[plain]["shared.conv1.weight"])


def test_conflicts_are_those_of_what_is_trained(data, make_model):
    model = make_model()
    layers = model.backbone.layer_parameters()
    wanted = [[p for own in layers.values() for p in own]] * 2
    x = torch.randn(3, 1, 12, 12, dtype=torch.float64)

    def gradients():
        found = model.eval()(x)
        return task_gradients([found[t].square().mean() for t in model.tasks], wanted)

    whole = gradients()
    sparse = SparseUpdates(model, 0.4, 0)
    masks = dict(sparse._masks)
    expected = layer_gramians([{p: g * masks[p] for p, g in own.items()} for own in whole], layers)
    torch.testing.assert_close(layer_gramians(gradients(), layers), expected)
    sparse.close()
    torch.testing.assert_close(layer_gramians(gradients(), layers), layer_gramians(whole, layers))


def test_low_memory_would_measure_what_is_not_trained():
    with pytest.raises(ValueError, match=r"`train.low_memory` needs `train.update_share` 1"):
        TrainConfig(epochs=1, batch_size=1, lr=0.1, low_memory=True, update_share=0.5)


def test_weights_multiply_losses(data, train_config):
    model = build(data).eval()
    (step,) = list(data.steps("train", 96))
    weighted = train_config.model_copy(update={"weights": {"right": 3.0}})
    plain, own = (
        Learner(model, data.schema.tasks, data, config).losses(step)[0]
        for config in (train_config, weighted)
    )
    assert torch.equal(own["left"], plain["left"])
    torch.testing.assert_close(own["right"], 3 * plain["right"])


def test_weights_are_positive():
    raw = tomllib.loads(TINY)
    raw["train"]["weights"] = {"left": 0.0}
    with pytest.raises(RecipeError, match=r"train.weights.left.*greater than 0"):
        parse_recipe(raw)
