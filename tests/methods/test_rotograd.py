"""RotoGrad: equal to its authors' package without a split, and lawful with one."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import recon_search as rs
from recon_search.errors import RecipeError
from recon_search.methods.orthogonal import Rotation
from recon_search.methods.registry import METHODS
from recon_search.methods.rotograd import RotoGrad
from recon_search.methods.surgeon import create_surgeon
from recon_search.model.network import build_model
from recon_search.model.rotation import RotatedHead, fold_rotations, has_rotations, rotate
from recon_search.recipe import HeadConfig
from recon_search.tasks.classes import Classes
from tests.conftest import BACKBONE
from tests.methods.gradients import (
    SPLIT,
    forward,
    gradients_of,
    shared_names,
    task_gradients,
)

EXACT = {"every": 1, "map": "matrix_exp", "decay": 1.0, "lr": 0.02, "burn_in": 3}
DEFAULTS = dict(METHODS["rotograd"].options)


class Sum:
    """A combiner for plain modules: the sum of the tasks' gradients."""

    def accumulate(self, losses, features, *, share=1.0, measure=False):
        (sum(losses.values()) * share).backward()

    def combine(self, *, measure=False):
        return None

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Toy(nn.Module):
    """A backbone and a head a task, vectors or maps."""

    def __init__(self, spatial, n_tasks=3, width=6):
        super().__init__()
        kernel = {"kernel_size": 3, "padding": 1}
        layer = (lambda i, o: nn.Conv2d(i, o, **kernel)) if spatial else nn.Linear
        self.backbone = nn.Sequential(layer(4, 8), nn.Tanh(), layer(8, width), nn.Tanh())
        self.heads = nn.ModuleDict(
            {
                task: nn.Sequential(layer(width, 5), nn.Tanh(), layer(5, 2))
                for task in "abcd"[:n_tasks]
            }
        )
        self.double()


def toy_batch(spatial, step, n_tasks=3):
    generator = torch.Generator().manual_seed(step)
    shape = (7, 4, 3, 5) if spatial else (7, 4)
    inputs = torch.randn(shape, generator=generator, dtype=torch.float64)
    target_shape = (7, 2, *shape[2:])
    return inputs, [
        (3.0**index) * torch.randn(target_shape, generator=generator, dtype=torch.float64)
        for index in range(n_tasks)
    ]


def toy_forward(model, inputs, targets):
    features = dict.fromkeys(model.heads, model.backbone(inputs))
    losses = {
        task: F.mse_loss(head(features[task]), target)
        for (task, head), target in zip(model.heads.items(), targets, strict=True)
    }
    return losses, features


@pytest.mark.parametrize("normalize_losses", [False, True])
@pytest.mark.parametrize("rescale", [True, False], ids=["rotograd", "rotate-only"])
@pytest.mark.parametrize("spatial", [False, True], ids=["vectors", "maps"])
def test_without_a_split_it_equals_the_authors_package(spatial, rescale, normalize_losses):
    package = pytest.importorskip(
        "rotograd",
        reason="the reference: pip install --no-deps rotograd==0.1.6.0 geotorch==0.3.0",
    )
    torch.manual_seed(0)
    mine = Toy(spatial)
    theirs = copy.deepcopy(mine)
    surgeon = RotoGrad(
        mine,
        Sum(),
        **(DEFAULTS | EXACT | {"normalize_losses": normalize_losses}),
        rescale=rescale,
    )
    kind = package.RotoGrad if rescale else package.RotateOnly
    reference = kind(
        theirs.backbone,
        list(theirs.heads.values()),
        6,
        post_shape=torch.Size((3, 5)) if spatial else (),
        burn_in_period=EXACT["burn_in"],
        normalize_losses=normalize_losses,
    ).double()
    for index in range(3):  # the package starts at a random rotation; ours at the identity
        with torch.no_grad():
            setattr(reference, f"rotation_{index}", torch.eye(6, dtype=torch.float64))
    optimizers = [
        torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for model in (mine, nn.ModuleList([theirs.backbone, theirs.heads]))
    ]
    rotations = torch.optim.Adam(reference.mtl_parameters(), lr=EXACT["lr"])
    for step in range(8):
        inputs, targets = toy_batch(spatial, step)
        for optimizer in (*optimizers, rotations):
            optimizer.zero_grad()
        surgeon.accumulate(*toy_forward(mine, inputs, targets))
        surgeon.combine()
        reference.train()
        outputs = reference(inputs)
        reference.backward(
            [F.mse_loss(output, target) for output, target in zip(outputs, targets, strict=True)]
        )
        pairs = zip(
            [*mine.backbone.parameters(), *mine.heads.parameters()],
            [*theirs.backbone.parameters(), *theirs.heads.parameters()],
            strict=True,
        )
        for own, other in pairs:
            torch.testing.assert_close(own.grad, other.grad, rtol=1e-8, atol=1e-11)
        for optimizer in (*optimizers, rotations):
            optimizer.step()
        surgeon.step()
        for head, rotation in zip(mine.heads.values(), reference.rotation, strict=True):
            torch.testing.assert_close(head.rotation, rotation.detach(), rtol=1e-8, atol=1e-11)
    assert not torch.allclose(
        mine.heads["a"].rotation, torch.eye(6, dtype=torch.float64), atol=0.02
    )


def feature_gradients(model, surgeon, seed=0):
    """What RotoGrad sends down every task's path, and the batch's plain feature gradients."""
    losses, features = forward(model, seed)
    plain = {
        task: torch.autograd.grad(loss, features[task], retain_graph=True)[0]
        for task, loss in losses.items()
    }
    sent = {}

    def catch(surrogates, features, *, share=1.0, measure=False):
        for task, value in surrogates.items():
            (sent[task],) = torch.autograd.grad(value, features[task], retain_graph=True)

    surgeon.combiner.accumulate, kept = catch, surgeon.combiner.accumulate
    surgeon.accumulate(losses, features)
    surgeon.combiner.accumulate = kept
    surgeon.step()
    return plain, sent


@pytest.mark.parametrize("split", [[], SPLIT], ids=["unsplit", "split"])
def test_every_tasks_rescaled_gradient_has_the_common_norm(make_model, split):
    surgeon = create_surgeon(model := make_model(split, 3), "rotograd", {"every": 1, "burn_in": 2})
    for seed in range(5):
        plain, sent = feature_gradients(model, surgeon, seed)
        norms = torch.stack([gradient.norm() for gradient in sent.values()])
        torch.testing.assert_close(norms, norms[:1].expand(3), rtol=1e-10, atol=0)
        before = torch.stack([gradient.norm() for gradient in plain.values()])
        assert before.min() < norms[0] < before.max()  # a convex combination of theirs
        for task, gradient in sent.items():
            cosine = F.cosine_similarity(gradient.flatten(), plain[task].flatten(), dim=0)
            torch.testing.assert_close(cosine, torch.ones_like(cosine))


def test_rotate_only_sends_the_gradients_as_they_are(make_model):
    surgeon = create_surgeon(model := make_model(SPLIT, 3), "rotate-only")
    plain, sent = feature_gradients(model, surgeon)
    for task, gradient in sent.items():
        torch.testing.assert_close(gradient, plain[task])


@pytest.mark.parametrize("orthogonal_map", ["cayley", "matrix_exp"])
def test_rotations_stay_orthogonal_for_a_thousand_steps(orthogonal_map):
    torch.manual_seed(0)
    model = Toy(False).float()
    options = DEFAULTS | {"every": 1, "lr": 0.05, "decay": 1.0, "map": orthogonal_map}
    surgeon = RotoGrad(model, Sum(), rescale=True, **options)
    for step in range(1000):
        inputs, targets = toy_batch(False, step)
        losses, features = toy_forward(model, inputs.float(), [t.float() for t in targets])
        surgeon.accumulate(losses, features)
        surgeon.step()
    for head in model.heads.values():
        distance = (head.rotation @ head.rotation.T - torch.eye(6)).abs().max()
        assert distance < 1e-6
        assert (head.rotation - torch.eye(6)).abs().max() > 0.1


def test_rotating_aligns_the_tasks_gradients_of_the_features():
    torch.manual_seed(0)
    model = Toy(False)
    options = DEFAULTS | {"every": 1, "lr": 0.01}
    surgeon = RotoGrad(model, Sum(), rescale=False, **options)
    batch = toy_batch(False, 0)

    def alignment():
        losses, features = toy_forward(model, *batch)
        directions = [
            F.normalize(
                torch.autograd.grad(loss, features[task], retain_graph=True)[0].flatten(), dim=0
            )
            for task, loss in losses.items()
        ]
        return float(sum(directions).norm())

    before = alignment()
    for _ in range(100):
        surgeon.accumulate(*toy_forward(model, *batch))
        surgeon.step()
    assert alignment() > before + 0.1


@pytest.mark.parametrize("method", ["rotograd", "rotate-only"])
def test_permuting_the_tasks_changes_nothing(make_model, method):
    """The same network with its tasks in another order, split layers and all."""

    def run(order):
        reference = make_model(SPLIT, 3)
        split = rs.Split(order, {layer: [[task] for task in order] for layer in SPLIT})
        model = build_model(
            BACKBONE,
            HeadConfig(activation="relu"),
            [Classes(task, 5) for task in order],
            shape=(1,),
            split=split,
        ).double()
        for task in order:
            model.backbone.load_task_state_dict(task, reference.backbone.task_state_dict(task))
            model.heads[task].load_state_dict(reference.heads[task].state_dict())
        surgeon = create_surgeon(model, method, {"every": 1})
        for seed in range(3):
            losses, features = forward(reference, seed)
            generator = torch.Generator().manual_seed(seed)
            images = torch.randn(8, 1, 32, 32, generator=generator, dtype=torch.float64)
            targets = {task: torch.randint(5, (8,), generator=generator) for task in "abc"}
            features = model.backbone(images)
            losses = {
                task: F.cross_entropy(model.heads[task](features[task]), targets[task])
                for task in order
            }
            model.zero_grad()
            surgeon.accumulate(losses, features)
            surgeon.combine()
            surgeon.step()
        return gradients_of(model), {task: model.heads[task].rotation for task in order}

    gradients, rotations = run(("a", "b", "c"))
    permuted, permuted_rotations = run(("c", "a", "b"))
    for name, gradient in gradients.items():
        torch.testing.assert_close(permuted[name], gradient, rtol=1e-8, atol=1e-12)
    for task, rotation in rotations.items():
        torch.testing.assert_close(permuted_rotations[task], rotation, rtol=1e-8, atol=1e-12)


def test_the_rotations_move_every_nth_step_by_a_decaying_rate(make_model):
    surgeon = create_surgeon(model := make_model([], 2), "rotograd", {"every": 3, "decay": 0.9})
    moved = []
    for seed in range(6):
        before = model.heads["a"].rotation.clone()
        losses, features = forward(model, seed)
        surgeon.accumulate(losses, features)
        surgeon.step()
        moved.append(not torch.equal(before, model.heads["a"].rotation))
    assert moved == [False, False, True, False, False, True]
    assert surgeon.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * 0.9**6)


def test_a_second_training_goes_on_from_the_rotations_of_the_first(make_model):
    model = make_model([], 2)
    surgeon = create_surgeon(model, "rotograd", {"every": 1, "lr": 0.1})
    surgeon.accumulate(*forward(model))
    surgeon.step()
    rotation = model.heads["a"].rotation.clone()
    create_surgeon(model, "rotate-only")
    torch.testing.assert_close(model.heads["a"].rotation, rotation, rtol=0, atol=1e-12)
    assert not torch.equal(rotation, torch.eye(6, dtype=torch.float64))


def test_with_a_weighting_the_paths_are_combined_by_it(make_model):
    model = make_model(SPLIT, 3)
    surgeon = create_surgeon(model, "rotate-only", {"weighting": "pcgrad"})
    losses, features = forward(model)
    surgeon.accumulate(losses, features)
    torch.manual_seed(0)
    surgeon.combine()
    found = gradients_of(model)
    plain = make_model(SPLIT, 3)
    torch.manual_seed(0)
    create_surgeon(plain, "pcgrad").backward(forward(plain)[0])
    expected = gradients_of(plain)  # at the identity rotating changes nothing
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name.replace(".head.", ".")])


def test_the_joint_gradient_on_a_split_network_at_the_identity(make_model):
    model = make_model(SPLIT, 3)
    surgeon = create_surgeon(model, "rotate-only")
    losses, features = forward(model)
    rows = task_gradients(model, losses)
    surgeon.accumulate(losses, features)
    found = gradients_of(model)
    assert set(shared_names(model)) < set(found)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, sum(row[name] for row in rows), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("activation", ["none", "relu"])
def test_saved_models_fold_rotations_where_a_head_begins_with_a_linear_layer(tmp_path, activation):
    head = HeadConfig(activation=activation)
    model = build_model(BACKBONE, head, [Classes(task, 5) for task in "ab"], shape=(1,))
    names = list(model.state_dict())
    surgeon = create_surgeon(model, "rotograd", {"every": 1, "lr": 0.1})
    for seed in range(3):
        losses, features = forward(model.double(), seed)
        surgeon.accumulate(losses, features)
        surgeon.step()
    model.float().eval()
    images = torch.randn(4, 1, 32, 32)
    outputs = model(images)
    model.config["input"] = {"shape": [1, 32, 32]}
    model.save(tmp_path / "model")
    loaded = rs.load(tmp_path / "model")
    for task, output in outputs.items():
        torch.testing.assert_close(loaded(images)[task], output, rtol=1e-4, atol=1e-5)
    assert has_rotations(model.heads)  # saving left the model itself as it was
    assert has_rotations(loaded.heads) == (activation == "relu")
    folded = activation == "none"
    assert loaded.n_parameters == model.n_parameters - folded * 2 * 6**2
    if folded:
        assert list(loaded.state_dict()) == names
    loaded.save(tmp_path / "again")
    again = rs.load(tmp_path / "again")
    for task, output in loaded(images).items():
        assert torch.equal(again(images)[task], output)
    surgeon.finish(model)
    for task, output in model(images).items():
        torch.testing.assert_close(output, outputs[task], rtol=1e-4, atol=1e-5)


def test_maps_are_rotated_over_their_channels():
    head = RotatedHead(nn.Conv2d(3, 2, 1), 3)
    head.rotation.copy_(torch.tensor([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]]))
    maps = torch.randn(2, 3, 4, 5)
    assert torch.equal(rotate(maps, head.rotation), maps[:, [1, 2, 0]])
    torch.testing.assert_close(head(maps), head.head(maps[:, [1, 2, 0]]))
    heads = nn.ModuleDict({"a": head})
    fold_rotations(heads)
    assert heads["a"] is head  # no linear layer first: the rotation stays


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "`lr` must be above 0"),
        ({"map": "caylee"}, "`map` 'cayley' or 'matrix_exp'"),
        ({"weighting": "uw"}, "must be 'joint' or a method on gradients, got 'uw'"),
        ({"weighting": "rotograd"}, "must be 'joint' or a method on gradients"),
    ],
)
def test_options_that_do_not_fit(make_model, options, message):
    with pytest.raises(RecipeError, match=message):
        create_surgeon(make_model(), "rotograd", options)


@pytest.mark.parametrize("orthogonal_map", ["cayley", "matrix_exp"])
@pytest.mark.parametrize("has_start", [False, True])
def test_a_rotation_is_pulled_along_the_gradient_of_autograd(orthogonal_map, has_start):
    generator = torch.Generator().manual_seed(0)

    def draw():
        return torch.randn(7, 7, generator=generator, dtype=torch.float64)

    start = torch.linalg.qr(draw()).Q if has_start else torch.eye(7).double()
    rotation = Rotation(start, orthogonal_map)
    (parameter,) = rotation.parameters()
    with torch.no_grad():
        parameter.copy_(draw())
    matrix = rotation()
    pull = draw()
    rotation.pull(pull)
    wanted = start @ torch.nn.utils.parametrizations._Orthogonal(
        parameter, getattr(torch.nn.utils.parametrizations._OrthMaps, orthogonal_map),
        use_trivialization=False,
    )(parameter)  # fmt: skip
    torch.testing.assert_close(matrix, wanted.detach())
    (expected,) = torch.autograd.grad(wanted, parameter, matrix @ pull)
    torch.testing.assert_close(parameter.grad, expected, rtol=1e-10, atol=1e-12)
