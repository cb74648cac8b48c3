"""Steps of several batches, absent tasks, frozen layers, half precision, clipping."""

import pytest
import torch

from recon_search.conflict.scores import ConflictScores
from recon_search.data.resident import Part, ResidentFeed
from recon_search.data.source import Schema
from recon_search.graph.split import Split
from recon_search.methods.surgeon import create_surgeon
from recon_search.model.network import build_model
from recon_search.recipe import HeadConfig
from recon_search.tasks.classes import IGNORED, Classes
from recon_search.training.loop import fit
from tests.conftest import BACKBONE, pairs
from tests.methods.gradients import (
    SPLIT,
    flat,
    forward,
    gradients_of,
    losses_of,
    shared_names,
    task_gradients,
)

KINDS = ["joint", "uw", "pcgrad", "gradvac", "graddrop", "rotograd", "rotate-only"]
"""One or two methods for each thing a method may need."""


def build(data, split=None, seed=0):
    return build_model(
        BACKBONE,
        HeadConfig(activation="relu"),
        data.schema.tasks,
        shape=data.schema.shape,
        split=split,
        seed=seed,
    )


# Gradient accumulation


@pytest.mark.parametrize("measure", [False, True])
@pytest.mark.parametrize("method", ["joint", "pcgrad", "gradvac", "mgda", "graddrop"])
def test_two_batches_are_combined_after_their_gradients_have_added_up(make_model, method, measure):
    model = make_model(SPLIT, 3)
    first, second = losses_of(model, 0), losses_of(model, 1)
    torch.manual_seed(0)
    whole = create_surgeon(model, method).backward(
        {task: (first[task] + second[task]) / 2 for task in first}, measure=measure
    )
    expected = gradients_of(model)
    model.zero_grad()
    combiner = create_surgeon(model, method)
    for seed in (0, 1):
        combiner.accumulate(losses_of(model, seed), share=0.5, measure=measure)
    torch.manual_seed(0)
    gramians = combiner.combine(measure=measure)
    for name, gradient in gradients_of(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12)
    if measure:
        torch.testing.assert_close(gramians, whole)
    model.zero_grad()
    assert combiner.combine(measure=measure) is None  # nothing is left over for the next step
    assert not gradients_of(model)


def test_accumulating_in_the_loop(data, train_config):
    """96 images: 3 batches of 32 an epoch, so updates of 2 batches and of 1."""
    config = train_config.model_copy(
        update={"accumulate": 2, "method": "pcgrad", "measure_every": 1}
    )
    model = build(data)
    scores = ConflictScores(list(model.backbone.layers()), model.tasks)
    steps = []
    fit(model, data, config, seed=0, scores=scores, report=lambda p: steps.append(p.n_steps))
    assert scores.steps == 4
    assert set(steps) == {4}


# Absent tasks


@pytest.mark.parametrize("method", ["pcgrad", "mgda", "graddrop"])
def test_an_absent_task_takes_no_part(make_model, method):
    model = make_model(SPLIT, 3)
    losses = losses_of(model)
    rows = task_gradients(model, losses)
    present = {task: losses[task] for task in "ac"}
    torch.manual_seed(0)
    combiner = create_surgeon(model, method)
    combiner.backward(present)
    found = gradients_of(model)
    names = shared_names(model)
    operator = combiner.operators[0, 2]
    torch.manual_seed(0)
    jacobian = torch.stack([flat(rows[task], names) for task in (0, 2)])
    statistic = jacobian if method == "graddrop" else jacobian @ jacobian.T
    expected = operator(statistic)
    expected = expected if method == "graddrop" else expected @ jacobian
    torch.testing.assert_close(flat(found, names), expected, rtol=1e-9, atol=1e-12)
    assert not any(name.startswith("heads.b.") for name in found)


@pytest.mark.parametrize("method", KINDS)
def test_a_single_present_task_trains_alone(make_model, method):
    model = make_model(SPLIT, 3)
    surgeon = create_surgeon(model, method)
    losses, features = forward(model)
    row = task_gradients(model, {"b": losses["b"]})[0]
    surgeon.accumulate({"b": losses["b"]}, features)
    surgeon.combine()
    factor = 0.5 if method == "uw" else 1.0  # exp(-s) / 2 at s = 0
    for name, gradient in gradients_of(model).items():
        torch.testing.assert_close(gradient, factor * row[name], rtol=1e-6, atol=1e-9)
    model.zero_grad()
    surgeon.accumulate({}, features)  # no task at all: no gradient
    surgeon.combine()
    assert not gradients_of(model)


def test_a_scalariser_sees_an_absent_tasks_last_loss(make_model):
    model = make_model(SPLIT, 3)
    combiner = create_surgeon(model, "dwa")
    first, second = losses_of(model), losses_of(model, 1)
    combiner.backward(first)
    combiner.backward({"a": second["a"]})
    expected = [second["a"].item(), first["b"].item(), first["c"].item()]
    assert combiner.state_dict()["last_losses"].tolist() == expected


def with_labels_missing(data, task, missing):
    """The same data with one task's labels missing where the mask says so."""
    train = data.parts["train"]
    targets = {**train.targets, task: torch.where(missing, IGNORED, train.targets[task])}
    schema = Schema(data.schema.tasks, data.schema.shape, data.schema.complete - {task})
    return ResidentFeed(schema, {**data.parts, "train": Part(train.inputs, targets)})


@pytest.mark.parametrize("method", KINDS)
def test_batches_without_any_label_of_a_task(data, train_config, method):
    missing = torch.ones(96, dtype=torch.bool)
    missing[:2] = False  # at most two of the three batches hold a label
    partial = with_labels_missing(data, "right", missing)
    config = train_config.model_copy(update={"method": method})
    model = build(partial)
    history = fit(model, partial, config, seed=0)
    assert all(0 < record["train"]["right"] < 10 for record in history)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_a_task_without_any_label_has_no_training_loss(data, train_config):
    partial = with_labels_missing(data, "right", torch.ones(96, dtype=torch.bool))
    history = fit(build(partial), partial, train_config, seed=0)
    assert [list(record["train"]) for record in history] == [["left"], ["left"]]
    assert all(record["train"]["left"] > 0 for record in history)


def test_a_loss_is_of_what_has_a_label():
    outputs, task = torch.randn(6, 3), Classes("a", 3)
    targets = torch.tensor([0, IGNORED, 2, 1, IGNORED, 1])
    labelled = targets != IGNORED
    assert task.loss(outputs, targets) == task.loss(outputs[labelled], targets[labelled])


# Frozen layers, half precision, clipping


@pytest.mark.parametrize("method", KINDS)
def test_frozen_layers_stay_and_are_not_looked_at(make_model, method):
    model = make_model(SPLIT, 3)
    frozen = ["backbone.shared.layer1", "heads.b"]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(tuple(frozen)))
    losses, features = forward(model)
    surgeon = create_surgeon(model, method)
    losses, features = forward(model)
    rows = task_gradients(model, losses)
    surgeon.accumulate(losses, features)
    torch.manual_seed(0)
    surgeon.combine()
    found = gradients_of(model)
    still = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert still
    assert set(found).isdisjoint(still)
    assert len(found) + len(still) == len(list(model.parameters()))
    if method == "pcgrad":
        names = shared_names(model)
        jacobian = torch.stack([flat(row, names) for row in rows])
        torch.manual_seed(0)
        expected = surgeon.operators[0, 1, 2](jacobian @ jacobian.T) @ jacobian
        torch.testing.assert_close(flat(found, names), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", KINDS)
def test_a_frozen_backbone_leaves_the_heads_to_train(make_model, method):
    model = make_model([], 2)
    model.backbone.requires_grad_(False)
    surgeon = create_surgeon(model, method)
    surgeon.accumulate(*forward(model))
    surgeon.combine()
    assert {name.split(".")[0] for name in gradients_of(model)} == {"heads"}


@pytest.mark.parametrize("method", KINDS)
def test_under_bfloat16_autocast_gradients_are_close_to_full_precision(make_model, method):
    model = make_model(SPLIT, 3).float()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 1, 32, 32, generator=generator)
    targets = torch.randint(5, (8,), generator=generator)
    found = []
    for enabled in (False, True):
        surgeon = create_surgeon(model, method)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            features = model.backbone(images)
            losses = {
                t: Classes(t, 5).loss(model.heads[t](features[t]), targets) for t in model.tasks
            }
        torch.manual_seed(0)
        model.zero_grad()
        surgeon.accumulate(losses, features)
        surgeon.combine()
        surgeon.step()
        gradients = gradients_of(model)
        assert all(gradient.dtype == torch.float32 for gradient in gradients.values())
        found.append(flat(gradients, sorted(gradients)))
        if method.startswith("rot"):
            model.heads = torch.nn.ModuleDict({t: h.head for t, h in model.heads.items()})
    full, half = found
    least = 0.7 if method == "graddrop" else 0.98  # a flipped sign drops an entry
    assert torch.nn.functional.cosine_similarity(full, half, dim=0) > least


@pytest.mark.parametrize("method", KINDS)
def test_a_whole_training_in_bfloat16(train_config, method):
    """Forward passes are in bfloat16; what is learned and measured stays in single precision."""
    update = {"method": method, "precision": "bfloat16", "measure_every": 1}
    data = pairs(20)
    model = build(data, Split.private(["conv1", "layer1.0.conv1"], data.schema.names))
    seen = set()
    model.backbone.register_forward_hook(lambda *_: seen.add(torch.is_autocast_enabled("cpu")))
    scores = ConflictScores(list(model.backbone.layers()), model.tasks)
    before = [parameter.detach().clone() for parameter in model.backbone.parameters()]
    fit(model, data, train_config.model_copy(update=update), seed=0, scores=scores)
    assert seen == {True}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not any(map(torch.equal, before, model.backbone.parameters()))
    assert scores.steps == 6
    assert 0 < scores.share(0.0) < 1


@pytest.mark.parametrize("method", KINDS)
def test_gradients_are_clipped_after_they_are_combined(data, train_config, method):
    """A small norm and plain SGD: no update is longer than learning rate times norm."""
    config = train_config.model_copy(
        update={
            "method": method,
            "clip_grad": 1e-2,
            "epochs": 1,
            "optimizer": "momentum",
            "momentum": 0.0,
            "scheduler": "constant",
        }
    )
    model = build(data)
    before = torch.cat([p.detach().flatten().double() for p in model.parameters()])
    fit(model, data, config, seed=0)
    after = torch.cat([p.detach().flatten().double() for p in model.parameters()])
    assert 1e-4 < (after - before).norm() < 3 * 0.05 * 1e-2 + 1e-5


@pytest.mark.parametrize("method", ["gradvac", "pcd", "uw", "famo", "dwa", "rotograd"])
def test_an_interrupted_training_of_a_stateful_method_goes_on(tmp_path, data, train_config, method):
    config = train_config.model_copy(update={"epochs": 3, "method": method, "accumulate": 2})

    def train(directory, stop_after=None):
        model = build(data)

        def report(progress):
            if stop_after is not None and progress.step > stop_after:
                raise KeyboardInterrupt

        fit(model, data, config, seed=1, directory=directory, report=report)
        return model

    whole = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", stop_after=3)
    resumed = train(tmp_path / "cut")
    for mine, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, theirs)
