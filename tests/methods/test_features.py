"""RotoGrad keeps what its heads read, and nothing else; features that it cannot use."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import recon_search as rs
from recon_search.errors import TrainingError
from recon_search.methods.rotograd import RotoGrad
from recon_search.model.network import MultiTaskModel
from recon_search.model.rotation import (
    RotatedHead,
    add_rotations,
    fold_rotations,
    has_rotations,
)
from tests.methods.small import (
    TASKS,
    WIDTH,
    batch,
    gradients_of,
    losses_of,
    make_backbone,
    make_heads,
    make_small,
)

MAPS = ["cayley", "matrix_exp"]


def create(model, method="rotograd", **options):
    return rs.create_surgeon(model, method, {"every": 1, "lr": 0.01, **options})


def losses_and_features(model, seed=0):
    images, targets = batch(model, seed)
    features = model.read(images)
    losses = {
        task: (model.heads[task](features[task]) - targets[task]).square().mean()
        for task in model.tasks
    }
    return losses, features


@pytest.mark.parametrize("necks", [None, {"a": nn.Linear(WIDTH, WIDTH)}])
@pytest.mark.parametrize("method", ["rotograd", "rotate-only"])
def test_features_are_those_that_the_heads_read(method, necks):
    made = make_small(necks=necks)
    found = []
    for passes_features in (True, False):
        surgeon = create(model := copy.deepcopy(made), method)
        for seed in range(3):
            model.zero_grad()
            losses, features = losses_and_features(model, seed)
            surgeon.backward(losses, features if passes_features else None)
            surgeon.step()
        rotations = {task: head.rotation for task, head in model.heads.items()}
        found.append({**gradients_of(model), **rotations})
    assert not torch.equal(found[0]["a"], torch.eye(WIDTH).double())
    for name, tensor in found[0].items():
        assert torch.equal(found[1][name], tensor)


def is_alive(reference):
    gc.collect()
    return reference() is not None


class Watched(torch.autograd.Function):
    """A node whose graph can be watched: its context dies with it."""

    @staticmethod
    def forward(ctx, x):
        Watched.last = weakref.ref(ctx)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def watch(model):
    """Put a watched node between the backbone and the heads."""
    read = model.read
    model.read = lambda images: {t: Watched.apply(z) for t, z in read(images).items()}


def test_nothing_of_a_step_is_kept_after_it():
    model = make_small()
    surgeon = create(model)
    watch(model)
    losses = losses_of(model)
    graph = Watched.last
    assert is_alive(graph)
    surgeon.backward(losses)
    del losses
    assert not is_alive(graph)
    with torch.no_grad():
        losses_of(model)
    assert not any(surgeon.readings.kept.values())


def test_forward_passes_that_nobody_differentiates_do_not_pile_up():
    model = make_small()
    surgeon = create(model)
    watch(model)
    graphs = []
    for seed in range(5):
        losses_of(model, seed)
        graphs.append(Watched.last)
    assert sum(map(is_alive, graphs)) <= 2
    losses = losses_of(model)
    surgeon.backward(losses)  # from the last alone
    expected = make_small()
    create(expected).backward(losses_of(expected))
    for name, gradient in gradients_of(expected).items():
        assert torch.equal(gradients_of(model)[name], gradient)
    del losses
    assert not any(map(is_alive, [*graphs, Watched.last]))


@pytest.mark.parametrize("end", ["finish", "forget"])
def test_heads_keep_nothing_once_the_training_is_over(end):
    model = make_small()
    surgeon = create(model)
    surgeon.backward(losses_of(model))
    losses_of(model)
    if end == "finish":
        surgeon.finish(model)
    dead = weakref.ref(surgeon)
    del surgeon
    assert not is_alive(dead)
    watch(model)
    losses_of(model)
    assert not is_alive(Watched.last)


@pytest.mark.parametrize("orthogonal_map", MAPS)
@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_a_copy_of_model_and_surgeon_goes_on_by_itself(orthogonal_map, when):
    """Copied before a forward pass, between it and its backward pass, or after a step."""
    surgeon = create(model := make_small(), map=orthogonal_map)
    surgeon.backward(losses_of(model, 1))
    surgeon.step()
    model.zero_grad()
    losses = None
    if when == "between":
        losses = losses_of(model, 5)
    if when == "after":
        surgeon.backward(losses_of(model, 2))
    other, others_surgeon = copy.deepcopy((model, surgeon))
    if losses is not None:
        surgeon.backward(losses)
    runs = []
    for network, own in ((model, surgeon), (other, others_surgeon)):
        network.zero_grad()
        own.step()
        own.backward(losses_of(network, 3), measure=True)
        runs.append(gradients_of(network))
    if when != "between":  # the original made a step more there
        assert all(torch.equal(gradient, runs[1][name]) for name, gradient in runs[0].items())
    assert set(runs[0]) == set(runs[1])
    assert all(head.reader is not None for head in other.heads.values())
    assert not any(surgeon.readings.kept.values())


@pytest.mark.parametrize("orthogonal_map", MAPS)
def test_a_copy_of_the_model_alone_is_read_by_nobody(orthogonal_map):
    surgeon = create(model := make_small(), map=orthogonal_map)
    losses = losses_of(model)
    other = copy.deepcopy(model)
    heads = pickle.loads(pickle.dumps(model.heads))
    other(batch(model)[0])
    for task, head in heads.items():
        read = torch.randn(8, WIDTH, dtype=torch.float64)
        assert torch.equal(head(read), other.heads[task](read))
    assert all(len(read) == 1 for read in surgeon.readings.kept.values())
    surgeon.backward(losses)
    create(other).backward(losses_of(other))  # a surgeon of its own reads it again
    for name, gradient in gradients_of(model).items():
        assert torch.equal(gradients_of(other)[name], gradient)


def test_of_two_surgeons_on_one_model_the_last_reads():
    first, second = create(model := make_small()), create(model)
    with pytest.raises(TrainingError, match=r"must come from features that .* it comes from none"):
        first.backward(losses_of(model))
    assert not gradients_of(model)
    second.backward(losses_of(model))


def test_checkpointed_heads_read_twice_and_leave_nothing():
    expected = make_small()
    create(expected).backward(losses_of(expected))
    surgeon = create(model := make_small())
    images, targets = batch(model)
    losses = {
        task: (checkpoint(model.heads[task], z, use_reentrant=False) - targets[task])
        .square()
        .mean()
        for task, z in model.read(images).items()
    }
    surgeon.backward(losses)
    assert not any(surgeon.readings.kept.values())
    for name, gradient in gradients_of(expected).items():
        torch.testing.assert_close(gradients_of(model)[name], gradient)


# Features that RotoGrad cannot use: one line, and nothing has changed


def refuses(surgeon, model, match, losses, features=None):
    before = str(surgeon.state_dict())
    with pytest.raises(TrainingError, match=match) as info:
        surgeon.backward(losses, features)
    assert "\n" not in str(info.value)
    assert not gradients_of(model)
    assert str(surgeon.state_dict()) == before


@pytest.mark.parametrize("pack", [list, tuple, lambda levels: dict(enumerate(levels))])
@pytest.mark.parametrize("n_levels", [1, 3])
def test_a_pyramid_is_refused(pack, n_levels):
    surgeon = create(model := make_small())
    losses, features = losses_and_features(model)
    pyramid = pack([features["b"]] * n_levels)
    kind = type(pyramid).__name__
    match = rf"one tensor a task, .* \(6\), got a {kind}"
    refuses(surgeon, model, match, losses, {**features, "b": pyramid})
    with pytest.raises(TrainingError, match=match):
        model.heads["b"](pyramid)


def test_features_of_another_width_or_none_are_refused():
    surgeon = create(model := make_small())
    losses, features = losses_and_features(model)
    wide = torch.randn(8, WIDTH + 1, dtype=torch.float64)
    refuses(surgeon, model, r"got shape \(8, 7\)", losses, {**features, "b": wide})
    losses, features = losses_and_features(model)
    refuses(surgeon, model, "got a NoneType", losses, {**features, "b": None})
    losses, features = losses_and_features(model)
    features.pop("b")
    refuses(surgeon, model, r"got \['a', 'c'\] without 'b'", losses, features)
    with pytest.raises(TrainingError, match=r"got shape \(7,\)"):
        model.heads["b"](wide[0])


def test_features_that_the_loss_does_not_come_from_are_refused():
    surgeon = create(model := make_small())
    losses, _ = losses_and_features(model)
    _, others = losses_and_features(model)
    refuses(surgeon, model, "'a' must come from features .* comes from none", losses, others)


def test_heads_that_were_taken_out_before_are_found_out():
    model = make_small()
    heads = dict(model.heads.items())
    surgeon = create(model)
    images, targets = batch(model)
    losses = {
        task: (heads[task](z) - targets[task]).square().mean()
        for task, z in model.read(images).items()
    }
    refuses(surgeon, model, "that model.heads.* read once .* comes from none", losses)


def test_a_loss_of_two_readings_is_refused():
    surgeon = create(model := make_small())
    first, second = losses_of(model, 0), losses_of(model, 1)
    both = {task: first[task] + second[task] for task in TASKS}
    refuses(surgeon, model, "read once since the last step, it comes from 2 of them", both)


@pytest.mark.parametrize("passes_features", [False, True])
def test_unequal_batches_are_refused(passes_features):
    surgeon = create(model := make_small())
    losses, features = {}, {}
    for size, task in enumerate(TASKS, 3):
        images, targets = batch(model, size=size)
        features[task] = model.read(images)[task]
        losses[task] = (model.heads[task](features[task]) - targets[task]).square().mean()
    match = r"one shape, got \{'a': \(3, 6\), 'b': \(4, 6\), 'c': \(5, 6\)\}"
    refuses(surgeon, model, match, losses, features if passes_features else None)


@pytest.mark.parametrize("method", ["rotograd", "rotate-only"])
def test_heads_that_fit_no_rotation_leave_the_model_as_it_was(method):
    heads = make_heads()
    heads["b"] = nn.Linear(WIDTH + 2, 3)
    model = make_small(heads=heads)
    with pytest.raises(TrainingError, match=r"equally many, got \{'a': 6, 'b': 8, 'c': 6\}"):
        create(model, method)
    model.heads["b"] = nn.Sequential(nn.BatchNorm1d(WIDTH))
    with pytest.raises(TrainingError, match=r"heads with a linear layer .* got Sequential without"):
        create(model, method)
    assert not has_rotations(model.heads)


@pytest.mark.parametrize("method", ["rotograd", "rotate-only"])
def test_frozen_features_leave_the_heads_to_train(method):
    model = make_small()
    model.backbone.requires_grad_(False)
    surgeon = create(model, method)
    surgeon.backward(losses_of(model))
    assert {name.split(".")[0] for name in gradients_of(model)} == {"heads"}


# Heads in another mapping


class Mapping(nn.Module):
    """Heads in a module that is a mapping and no `nn.ModuleDict`."""

    def __init__(self, heads):
        super().__init__()
        self.names = list(heads)
        self.parts = nn.ModuleList(heads.values())

    def items(self):
        return ((name, self[name]) for name in self.names)

    def keys(self):
        return iter(self.names)

    def values(self):
        return iter(self.parts)

    def __getitem__(self, name):
        return self.parts[self.names.index(name)]

    def __setitem__(self, name, head):
        self.parts[self.names.index(name)] = head

    def __contains__(self, name):
        return name in self.names


@pytest.mark.parametrize("orthogonal_map", MAPS)
def test_heads_may_be_in_any_mapping(orthogonal_map):
    tasks = ("left", "right", "sum")
    torch.manual_seed(0)
    backbone = make_backbone(split=False, tasks=tasks)
    heads = {task: nn.Linear(WIDTH, 3) for task in tasks}
    model = MultiTaskModel(backbone, {}, {}).double()
    model.heads = Mapping(heads).double()
    surgeon = create(model, map=orthogonal_map)
    assert isinstance(surgeon, RotoGrad)
    assert has_rotations(model.heads)
    for seed in range(3):
        surgeon.backward(losses_of(model, seed))
        surgeon.step()
    state = surgeon.state_dict()
    again = create(model, map=orthogonal_map)
    again.load_state_dict(state)
    expected = {task: output.detach() for task, output in model(batch(model)[0]).items()}
    surgeon.finish(model)
    assert not has_rotations(model.heads)
    for task, output in model(batch(model)[0]).items():
        torch.testing.assert_close(output, expected[task])


def test_rotations_are_added_and_folded_in_a_plain_dict():
    heads = {task: nn.Linear(WIDTH, 3) for task in ("a", "b")}
    add_rotations(heads)
    assert all(isinstance(head, RotatedHead) for head in heads.values())
    fold_rotations(heads)
    assert all(isinstance(head, nn.Linear) for head in heads.values())
