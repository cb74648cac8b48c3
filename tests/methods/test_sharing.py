"""Parameters that several tasks use, wherever they are, are combined among exactly those tasks."""

import copy

import pytest
import torch
from torch import nn
from torchjd import aggregation

from recon_search.errors import TrainingError
from recon_search.methods.surgeon import create_surgeon
from recon_search.model.network import MultiTaskModel
from recon_search.model.rotation import RotatedHead
from tests.methods.small import (
    TASKS,
    WIDTH,
    combined,
    gradients_of,
    losses_of,
    make_backbone,
    make_heads,
    make_small,
)


def one_head_for_all():
    shared = nn.Linear(WIDTH, 3)
    return make_small(heads=dict.fromkeys(TASKS, shared))


def one_head_for_two():
    heads = make_heads()
    heads["c"] = heads["a"]
    return make_small(heads=heads)


def necks_inside_heads():
    neck = nn.Linear(WIDTH, 5)
    other = nn.Linear(5, 5)
    heads = {
        "a": nn.Sequential(neck, nn.Tanh(), nn.Linear(5, 3)),
        "b": nn.Sequential(neck, nn.Tanh(), other, nn.Tanh(), nn.Linear(5, 3)),
        "c": nn.Sequential(nn.Linear(WIDTH, 5), nn.Tanh(), other, nn.Linear(5, 3)),
    }
    return make_small(heads=heads)


def tied_bias():
    heads = make_heads()
    heads["b"][2].bias = heads["c"][2].bias
    return make_small(heads=heads)


def weight_tied_to_the_trunk():
    """The head of a holds a weight of the first layer, which all tasks share."""
    model = make_small()
    first = next(p for p in model.backbone.parameters() if p.shape == (7, 5))
    model.heads["a"] = nn.Sequential(nn.Linear(WIDTH, 7), Times(first), nn.Linear(5, 3)).double()
    return model


def weight_tied_to_anothers_copy():
    """The head of b holds a weight of the copy that only c uses."""
    model = make_small()
    (block,) = (b for b in model.backbone.layers()["2"] if b.tasks == ("c",))
    weight = block.parameters[0]  # (8, 7)
    model.heads["b"] = nn.Sequential(nn.Linear(WIDTH, 8), Times(weight), nn.Linear(7, 3)).double()
    return model


def neck_of_all():
    return make_small(necks=dict.fromkeys(TASKS, nn.Linear(WIDTH, WIDTH)))


def necks_of_two_and_one():
    neck = nn.Linear(WIDTH, WIDTH)
    return make_small(necks={"a": neck, "c": neck, "b": nn.Linear(WIDTH, WIDTH)})


def head_that_another_reads_unregistered():
    """The head of b calls that of a, and does not list its parameters."""
    heads = make_heads()
    heads["b"] = Behind(heads["a"])
    return make_small(heads=heads)


class Times(nn.Module):
    """Multiply by a weight that lives elsewhere."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def forward(self, x):
        return torch.tanh(x @ self.weight)


class Behind(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.hidden = [head]
        self.last = nn.Linear(3, 3)

    def forward(self, x):
        return self.last(self.hidden[0](x))


MODELS = [
    make_small,
    one_head_for_all,
    one_head_for_two,
    necks_inside_heads,
    tied_bias,
    weight_tied_to_the_trunk,
    weight_tied_to_anothers_copy,
    neck_of_all,
    necks_of_two_and_one,
    head_that_another_reads_unregistered,
]
KINDS = {
    "mean": aggregation.Mean,
    "mgda": aggregation.MGDA,
    "upgrad": aggregation.UPGrad,
    "imtl-g": aggregation.IMTLG,
    "config": aggregation.ConFIG,
    "trimmed-mean": lambda: aggregation.TrimmedMean(trim_number=0),
}
"""Methods on Gramians and on full gradients that draw nothing and have no state."""
OPTIONS = {"trimmed-mean": {"trim_number": 0}}


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("method", KINDS)
def test_what_equal_tasks_use_is_combined_as_one_set(make, method):
    model = make()
    expected = combined(model, losses_of(model), KINDS[method])
    create_surgeon(model, method, OPTIONS.get(method)).backward(losses_of(model))
    assert_same(gradients_of(model), expected)


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("measure", [False, True, ("b",), ("a", "c")])
def test_a_joint_step_has_the_gradient_of_the_sum_however_it_is_measured(make, low_memory, measure):
    model = make()
    sum(losses_of(model).values()).backward()
    expected = gradients_of(model)
    model.zero_grad()
    surgeon = create_surgeon(model, "joint", low_memory=low_memory)
    surgeon.backward(losses_of(model), measure=measure)
    assert_same(gradients_of(model), expected)


TIED = [weight_tied_to_the_trunk, weight_tied_to_anothers_copy]
ROTATED = [make for make in MODELS[:-1] if make not in TIED]


@pytest.mark.parametrize("make", ROTATED, ids=lambda make: make.__name__)
@pytest.mark.parametrize("weighting", ["joint", "mgda", "config"])
def test_rotations_at_the_identity_change_nothing_of_who_shares_what(make, weighting):
    model = make()
    expected = combined(model, losses_of(model), KINDS.get(weighting, aggregation.Sum))
    surgeon = create_surgeon(model, "rotate-only", {"weighting": weighting})
    surgeon.backward(losses_of(model))
    found = {name.replace(".head.", "."): g for name, g in gradients_of(model).items()}
    assert_same(found, expected)


@pytest.mark.parametrize("make", TIED, ids=lambda make: make.__name__)
def test_rotations_refuse_heads_that_hold_weights_of_the_backbone(make):
    model = make()
    with pytest.raises(TrainingError, match=r"no parameter of the backbone, that of '[ab]' holds"):
        create_surgeon(model, "rotograd")
    assert not any(isinstance(head, RotatedHead) for head in model.heads.values())


@pytest.mark.parametrize("method", ["mean", "pcgrad", "config"])
def test_measuring_changes_no_gradient_and_heads_are_no_layers(method):
    found = []
    made = necks_inside_heads()
    for measure in (False, True):
        model = copy.deepcopy(made)
        torch.manual_seed(0)
        gramians = create_surgeon(model, method).backward(losses_of(model), measure=measure)
        found.append(gradients_of(model))
    assert_same(found[1], found[0])
    model.zero_grad()
    joint = create_surgeon(model, "joint").backward(losses_of(model), measure=True)
    torch.testing.assert_close(gramians, joint)
    assert len(gramians) == len(model.backbone.layers())


@pytest.mark.parametrize("method", ["joint", "mean", "mgda", "config"])
@pytest.mark.parametrize("absent", TASKS)
def test_an_absent_task_leaves_what_it_shares_to_the_others(method, absent):
    """Of two tasks that are left each set has at most one combination."""
    model = necks_inside_heads()
    losses = losses_of(model)
    losses[absent] = None
    present = {task: loss for task, loss in losses.items() if loss is not None}
    rows = {
        task: dict(
            zip(
                [n for n, _ in model.named_parameters()],
                torch.autograd.grad(
                    loss, list(model.parameters()), retain_graph=True, allow_unused=True
                ),
                strict=True,
            )
        )
        for task, loss in present.items()
    }
    create_surgeon(model, method).backward(losses, measure=True)
    for name, parameter in model.named_parameters():
        own = [row[name] for row in rows.values() if row[name] is not None]
        if len(own) == 1:
            torch.testing.assert_close(parameter.grad, own[0])
        elif not own:
            assert parameter.grad is None
        elif method == "mean":
            torch.testing.assert_close(parameter.grad, sum(own) / 2)
        elif method == "joint":
            torch.testing.assert_close(parameter.grad, sum(own))


def test_gradients_are_added_to_those_at_hand():
    for method in ("joint", "mean", "config", "uw", "rotograd"):
        model = make_small()
        surgeon = create_surgeon(model, method)
        surgeon.backward(losses_of(model))
        once = gradients_of(model)
        surgeon.backward(losses_of(model), measure=True)
        for name, gradient in gradients_of(model).items():
            torch.testing.assert_close(gradient, 2 * once[name], rtol=1e-6, atol=1e-9)


def test_no_two_parameters_get_one_tensor_for_a_gradient():
    """Clipping in place would clip it twice."""
    model = make_small()
    for method, measure in (("joint", True), ("joint", ("a",)), ("mean", False), ("config", False)):
        model.zero_grad()
        create_surgeon(model, method).backward(losses_of(model), measure=measure)
        gradients = [p.grad for p in model.parameters()]
        assert len({gradient.data_ptr() for gradient in gradients}) == len(gradients)


def test_models_that_do_not_fit_are_refused_in_one_line():
    unbranched = nn.Module()
    unbranched.backbone, unbranched.heads = nn.Linear(2, 2), nn.ModuleDict(make_heads())
    unbranched.tasks = TASKS
    with pytest.raises(TrainingError, match=r"`backbone` is branched, got Module with Linear"):
        create_surgeon(unbranched, "joint")
    headless = MultiTaskModel(make_backbone(), make_heads(("a", "b")), {})
    for method in ("joint", "pcgrad", "rotograd"):
        with pytest.raises(TrainingError, match=r"one head each, .*without head \['c'\]"):
            create_surgeon(headless, method)
