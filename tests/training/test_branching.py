"""A network that is split while it trains: nothing changes at the switch that must not."""

import copy

import pytest
import torch

from recon_search.conflict.scores import ConflictScores
from recon_search.errors import RecipeError
from recon_search.graph.split import Split
from recon_search.methods.registry import METHODS
from recon_search.methods.surgeon import create_surgeon
from recon_search.model.network import build_model
from recon_search.recipe import TrainConfig
from recon_search.tasks.classes import Classes
from recon_search.training.branching import (
    REMEMBERS,
    branch_state,
    check_goes_on,
    check_method_state,
    sources,
)
from recon_search.training.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from recon_search.training.loop import fit
from recon_search.training.optimisation import create_optimizer
from tests.conftest import BACKBONE, HEAD
from tests.methods.small import batch, make_small

TASKS = ("left", "right")
NONE = Split(TASKS, {})
HALF = Split.private(["layer4.1.bn2"], TASKS)
SPLIT = Split.private(["layer2.0.conv1", "layer4.1.bn2"], TASKS)
MORE = Split.private(["layer2.0.conv1", "layer3.0.bn1", "layer4.1.bn2"], TASKS)
CONFIG = TrainConfig(epochs=2, batch_size=32, lr=0.05, measure_every=2, weight_decay=0.01)


def make(split=NONE, config=CONFIG):
    classes = [Classes(task, 10) for task in TASKS]
    return build_model(
        BACKBONE, HEAD, classes, shape=(1, 12, 12), split=split, frozen=config.freeze
    )


def train(data, config, folder, split=NONE, until=None):
    """Train, or go on; what the model holds in the end, and the history without times."""
    model = make(split, config)
    scores = ConflictScores(list(model.backbone.layers()), TASKS)
    history = fit(model, data, config, seed=1, directory=folder, scores=scores, until=until)
    for record in history:
        record.pop("seconds")
    return model, history, scores


def switch(folder, config, split, before=NONE):
    """Turn the checkpoint in a folder into that of a network split further."""
    scores = ConflictScores(list(make(NONE, config).backbone.layers()), TASKS).tensors
    state = load_checkpoint(folder / CHECKPOINT)
    branched = branch_state(state, make(before, config), make(split, config), config, scores)
    save_checkpoint(folder / CHECKPOINT, branched)
    return state, load_checkpoint(folder / CHECKPOINT)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("joint", {"optimizer": "adamw", "lr": 0.01, "warmup_epochs": 1, "precision": "float16"}),
        ("uw", {"ema": 0.8, "select": "best", "layer_decay": 0.8, "head_lr_scale": 3.0}),
        ("rotograd", {"freeze": ["layer1.*"], "accumulate": 2, "report_epochs": 2}),
        ("nash-mtl", {"optimizer": "adafactorbv", "clip_grad": 0.5}),
    ],
)
def test_with_nothing_split_it_is_plain_training_bit_for_bit(data, tmp_path, method, options):
    config = TrainConfig.model_validate({**CONFIG.model_dump(), "method": method, **options})
    whole, whole_history, _ = train(data, config, tmp_path / "whole")
    _, begun, _ = train(data, config, tmp_path / "parts", until=1)
    assert begun == whole_history[:1]
    switch(tmp_path / "parts", config, NONE)
    parts, history, _ = train(data, config, tmp_path / "parts")
    assert history == whole_history
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, parts.state_dict()[name]), name


def test_scores_of_a_first_part_are_windows_of_that_part(data, tmp_path):
    *_, scores = train(data, CONFIG, tmp_path, until=1)
    steps = scores.tensors["window_steps"].sum((0, 2)).tolist()  # of three steps the first and last
    assert steps == [1, 0, 0, 0, 0, 0, 1, 0, 0, 0]
    switch(tmp_path, CONFIG, SPLIT)
    *_, rest = train(data, CONFIG, tmp_path, SPLIT)
    assert rest.steps == 1, "what was measured before is of another network"


@pytest.fixture(
    scope="module",
    params=[
        ("sgd", NONE, SPLIT),
        ("adamw", NONE, SPLIT),
        ("sgd", HALF, MORE),
        ("adamw", HALF, MORE),
    ],
    ids=["sgd", "adamw", "sgd, split before", "adamw, split before"],
)
def switched(request, data, tmp_path_factory):
    """Networks and optimisers before and after the switch, in double precision, and a batch."""
    name, first, last = request.param
    config = CONFIG.model_copy(update={"optimizer": name, "layer_decay": 0.8})
    folder = tmp_path_factory.mktemp(name)
    train(data, config, folder, first, until=1)
    sides = []
    for split, state in zip((first, last), switch(folder, config, last, first), strict=True):
        model = make(split, config)
        model.load_state_dict(state["model"])
        optimizer = create_optimizer(model, config)
        optimizer.load_state_dict(state["optimizer"])
        model.double()
        for own in optimizer.state.values():
            own.update({k: v.double() for k, v in own.items() if v.is_floating_point()})
        sides.append((model, optimizer))
    return name, sides, torch.randn(8, 1, 12, 12, dtype=torch.float64)


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_outputs_stay_what_they_were(switched, mode):
    _, sides, images = switched
    before, after = (copy.deepcopy(model).train(mode)(images) for model, _ in sides)
    for task in TASKS:
        assert torch.equal(before[task], after[task])


def gradients(model, images):
    """Gradients by name of the sum of some losses."""
    model.train()
    outputs = model(images)
    loss = sum((i + 1) * outputs[task].square().mean() for i, task in enumerate(TASKS))
    own = dict(model.named_parameters())
    return dict(zip(own, torch.autograd.grad(loss, own.values()), strict=True))


def moves(side, grads):
    """By how much a step with these gradients moves each parameter; the side stays as it is."""
    model, optimizer = copy.deepcopy(side)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        parameter.grad = grads[name].clone()
    optimizer.step()
    return {name: p.detach() - start[name] for name, p in model.named_parameters()}


def test_gradients_of_copies_add_up_and_next_steps_agree(switched):
    optimizer, sides, images = switched
    source = sources(sides[0][0], sides[1][0])
    before, after = (gradients(model, images) for model, _ in sides)
    copies = {name: [n for n in after if source.get(n, n) == name] for name in before}
    assert sum(len(own) > 1 for own in copies.values()) > 2
    old, new = moves(sides[0], before), moves(sides[1], after)
    idle, new_idle = (
        moves(side, {name: torch.zeros_like(g) for name, g in grads.items()})
        for side, grads in zip(sides, (before, after), strict=True)
    )
    for name, own in copies.items():
        torch.testing.assert_close(sum(after[n] for n in own), before[name], rtol=1e-9, atol=1e-12)
        if len(own) == 1:
            torch.testing.assert_close(new[own[0]], old[name], rtol=1e-7, atol=1e-10)
        for n in own:
            torch.testing.assert_close(new_idle[n], idle[name], rtol=1e-9, atol=1e-12)
        if optimizer == "sgd":  # linear in the gradient
            together = sum(new[n] - new_idle[n] for n in own)
            torch.testing.assert_close(together, old[name] - idle[name], rtol=1e-7, atol=1e-12)


def test_every_copy_is_trained_as_what_it_is_a_copy_of(switched):
    _, sides, _ = switched
    source = sources(sides[0][0], sides[1][0])
    found = []
    for model, optimizer in sides:
        names = {p: name for name, p in model.named_parameters()}
        found.append(
            {
                names[p]: (
                    group["lr"],
                    group["lr_scale"],
                    group["weight_decay"],
                    optimizer.state[p],
                )
                for group in optimizer.param_groups
                for p in group["params"]
            }
        )
    for name, (*settings, state) in found[1].items():
        *expected, origin = found[0][source.get(name, name)]
        assert settings == expected
        assert state.keys() == origin.keys() != set()
        assert all(torch.equal(state[key], origin[key]) for key in state)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_methods_that_cannot_go_on_are_known_before(method):
    model = make_small(split=False)
    surgeon = create_surgeon(model, method)
    for seed in range(2):
        images, targets = batch(model, seed)
        features = model.read(images)
        outputs = {task: model.heads[task](value) for task, value in features.items()}
        losses = {task: (outputs[task] - targets[task]).square().mean() for task in targets}
        surgeon.backward(losses, features)
        surgeon.step()
    state = surgeon.state_dict()
    if method in REMEMBERS:
        with pytest.raises(RecipeError, match="remembers gradients of the shared"):
            check_method_state(state, method, 3)
        with pytest.raises(RecipeError, match="remembers gradients of the shared"):
            check_goes_on("rotograd", {"weighting": method})
    else:
        check_method_state(state, method, 3)
        check_goes_on(method, {})
