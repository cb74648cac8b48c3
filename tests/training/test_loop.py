"""The loop: single-task equality, resuming, and losses that are not finite."""

import pytest
import torch

from recon_search.conflict.scores import ConflictScores
from recon_search.errors import TrainingError
from recon_search.graph.layers import layers
from recon_search.graph.split import Split
from recon_search.methods.surgeon import create_surgeon
from recon_search.model.network import build_model, create_backbone
from recon_search.recipe import HeadConfig
from recon_search.tasks.classes import Classes
from recon_search.training.loop import fit
from tests.conftest import BACKBONE


def build(data, split_layers=(), tasks=("left", "right"), seed=0):
    return build_model(
        BACKBONE,
        HeadConfig(activation="relu"),
        [Classes(task, 10) for task in tasks],
        shape=(1, 12, 12),
        split=Split.private(split_layers, tasks) if len(tasks) > 1 else None,
        seed=seed,
    )


@pytest.mark.parametrize("method", ["joint", "pcgrad"])
def test_with_every_layer_split_training_is_single_task_training(data, train_config, method):
    every = list(layers(create_backbone(BACKBONE, in_chans=1)))
    config = train_config.model_copy(update={"method": method})
    model = build(data, every)
    fit(model, data, config, seed=3)
    for task in model.tasks:
        single = build(data, tasks=(task,))
        fit(single, data, train_config, seed=3)
        expected = single.backbone.task_state_dict(task)
        for name, tensor in model.backbone.task_state_dict(task).items():
            assert torch.equal(tensor, expected[name]), name
        for mine, theirs in zip(
            model.heads[task].parameters(), single.heads[task].parameters(), strict=True
        ):
            assert torch.equal(mine, theirs)


def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(tmp_path, data, train_config):
    config = train_config.model_copy(update={"epochs": 3, "method": "pcgrad", "measure_every": 2})

    def train(directory, stop_after=None):
        model = build(data, ["layer1.0.conv1", "layer4.1.bn2"])
        scores = ConflictScores(list(model.backbone.layers()), model.tasks)

        def report(progress):
            if stop_after is not None and progress.step > stop_after:
                raise KeyboardInterrupt

        history = fit(
            model, data, config, seed=1, directory=directory, scores=scores, report=report
        )
        for record in history:
            record.pop("seconds")
        return model, scores, history

    whole, whole_scores, whole_history = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", stop_after=4)  # in the second of three epochs
    model, scores, history = train(tmp_path / "cut")
    assert history == whole_history
    for mine, theirs in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    for name, tensor in scores.tensors.items():
        assert torch.equal(tensor, whole_scores.tensors[name])
    assert scores.steps == 5  # steps 0, 2, 4, 6, 8 of 9: none lost, none twice


def test_a_loss_that_is_not_finite_names_task_and_step(data, train_config):
    config = train_config.model_copy(update={"lr": 1e30, "scheduler": "constant"})
    with pytest.raises(TrainingError, match=r"got (nan|inf) for task '(left|right)' at step \d"):
        fit(build(data), data, config, seed=0)


def test_what_the_last_step_breaks_is_found(data, train_config):
    """Nobody sees the losses after an epoch's last step."""
    config = train_config.model_copy(update={"epochs": 1, "batch_size": 96, "lr": 3e38})
    model = build(data, [])
    with torch.no_grad():
        model.heads["left"][-1].weight.mul_(1000)
    with pytest.raises(TrainingError, match=r"must stay finite, '.*' did not by update 1\. Lower"):
        fit(model, data, config, seed=0)


@pytest.mark.parametrize("method", ["joint", "pcgrad", "graddrop"])
@pytest.mark.parametrize("measure_every", [0, 1])
def test_a_loss_that_is_not_finite_is_named_before_gradients_are(
    data, train_config, method, measure_every
):
    update = {"lr": 1e30, "method": method, "measure_every": measure_every}
    model = build(data, [])
    scores = ConflictScores(list(model.backbone.layers()), model.tasks)
    with pytest.raises(TrainingError, match=r"Every loss must be finite, got .* for task 'left'"):
        fit(model, data, train_config.model_copy(update=update), seed=0, scores=scores)


@pytest.mark.parametrize("method", ["pcgrad", "graddrop"])
def test_the_task_whose_gradients_are_not_finite_is_named(make_model, method):
    """Its loss is finite, so that nobody else will say it."""
    model = make_model()
    outputs = model(torch.randn(4, 1, 16, 16, dtype=torch.float64))
    losses = {"a": outputs["a"].square().mean(), "b": (outputs["b"] * 0).abs().sqrt().sum()}
    assert all(bool(loss.isfinite()) for loss in losses.values())
    surgeon = create_surgeon(model, method)
    surgeon.backward(losses)
    assert f"for method '{method}', those of task 'b' are not" in surgeon.fault


def test_equal_seeds_start_equal_whatever_the_split(data):
    split, plain = build(data, ["layer1.0.conv1"], seed=5), build(data, seed=5)
    for task in plain.tasks:
        mine, theirs = (model.backbone.task_state_dict(task) for model in (split, plain))
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_fresh_copies_differ_and_shared_layers_do_not(make_model):
    model = make_model(["layer1.0.conv1"], 3, init="fresh", as_built=True)
    first, second, third = model.backbone.layers()["layer1.0.conv1"]
    assert not torch.equal(first.parameters[0], second.parameters[0])
    assert not torch.equal(second.parameters[0], third.parameters[0])
    plain = make_model(as_built=True)
    assert torch.equal(
        first.parameters[0], plain.backbone.layers()["layer1.0.conv1"][0].parameters[0]
    )
    assert torch.equal(
        model.backbone.layers()["layer2.0.conv1"][0].parameters[0],
        plain.backbone.layers()["layer2.0.conv1"][0].parameters[0],
    )
