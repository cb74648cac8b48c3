"""Which epoch is kept and when a training ends, by a plain reading of the losses."""

import math
from dataclasses import replace

import pytest
import torch

from recon_search.errors import RecipeError
from recon_search.recipe import TrainConfig, parse_recipe
from recon_search.runs.run import Run
from recon_search.runs.trainer import train
from recon_search.runs.training import Training
from recon_search.stages.probe import probe_training
from recon_search.training import loop
from recon_search.training.loop import fit
from recon_search.training.stopping import is_over, judge, kept, relative_loss
from tests.training.test_options import make

CONFIG = TrainConfig(epochs=8, batch_size=32, lr=0.05)


def history_of(losses):
    """Records of epochs with these losses, one or several a task."""
    history = []
    for number, values in enumerate(losses, start=1):
        values = values if isinstance(values, tuple) else (values,)
        validation = {f"t{i}": {"loss": v, "accuracy": 0.0} for i, v in enumerate(values)}
        history.append({"epoch": number, "validation": validation, **judge(validation, history)})
    return history


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([3.0], 1),
        ([3.0, 2.0, 1.0], 3),
        ([1.0, 2.0, 3.0], 1),
        ([3.0, 1.0, 2.0, 1.0], 2),
        ([1.0, math.nan, 0.5, math.nan], 3),
        ([math.nan, math.nan], 1),
        ([0.0, 0.0, 1.0], 1),
        ([(1.0, 100.0), (0.5, 120.0), (0.9, 99.0)], 2),  # relative: 0.85, and 0.945
        ([(1.0, 100.0), (0.9, 70.0), (0.5, 120.0)], 2),  # relative: 0.8, and 0.85
        ([(1.0, math.nan), (0.5, math.nan), (0.7, math.nan)], 2),
    ],
    ids=str,
)
def test_the_epoch_with_the_lowest_relative_loss_is_kept(losses, best):
    config = CONFIG.model_copy(update={"select": "best"})
    assert kept(history_of(losses), config)["epoch"] == best


def test_the_unit_of_a_loss_does_not_count():
    losses = [(1.0, 2.0), (0.8, 2.5), (0.9, 1.2), (0.95, 1.9)]
    scaled = [(a, 1e6 * b) for a, b in losses]
    found = [record["relative_loss"] for record in history_of(losses)]
    assert [record["relative_loss"] for record in history_of(scaled)] == pytest.approx(found)
    assert found[0] == 1.0
    assert relative_loss({"a": {"loss": 3.0}}, {"a": {"loss": 4.0}}) == 0.75


@pytest.mark.parametrize(
    ("losses", "patience", "ends"),
    [
        ([1.0, 2.0, 2.0, 2.0], 2, 3),
        ([1.0, 2.0, 0.5, 2.0, 2.0, 0.1], 2, 5),
        ([1.0, 1.0, 1.0], 1, 2),
        ([4.0, 3.0, 2.0, 1.0], 1, None),
        ([1.0, 2.0, 2.0, 2.0], 0, None),
        ([1.0, math.nan, math.nan], 2, 3),
    ],
    ids=str,
)
def test_so_many_epochs_without_a_better_one_end_a_training(losses, patience, ends):
    config = CONFIG.model_copy(update={"patience": patience})
    history = history_of(losses)
    over = [n for n in range(len(losses) + 1) if is_over(history[:n], config)]
    assert (over[0] if over else None) == ends


@pytest.fixture
def scripted(monkeypatch):
    """Validation losses as they are given, an epoch at a time; the weights of each epoch."""

    def script(losses):
        left, seen = list(losses), []

        def evaluate(model, feed, part, config):
            seen.append({name: t.clone() for name, t in model.state_dict().items()})
            value = left.pop(0)
            return {task: {"loss": value, "accuracy": value} for task in model.tasks}

        monkeypatch.setattr(loop, "evaluate", evaluate)
        return seen

    return script


@pytest.mark.parametrize(
    ("changes", "losses", "epochs", "best"),
    [
        ({"patience": 2}, [3, 2, 1, 4, 4, 0], 5, 3),
        ({"patience": 2, "select": "last"}, [3, 2, 1, 4, 4, 0], 5, 5),
        ({"select": "best", "epochs": 4}, [3, 1, 2, 2], 4, 2),
        ({"select": "last", "epochs": 4}, [3, 1, 2, 2], 4, 4),
        ({"epochs": 3}, [3, 1, 2], 3, 3),
        ({"patience": 1, "ema": 0.5}, [3, 2, 5], 3, 2),
        ({"patience": 1, "method": "pcgrad"}, [3, 2, 5], 3, 2),
    ],
    ids=str,
)
def test_the_model_ends_as_it_was_in_the_epoch_that_is_kept(
    data, tmp_path, scripted, changes, losses, epochs, best
):
    seen = scripted(losses)
    config = CONFIG.model_copy(update=changes)
    model = make(config)
    history = fit(model, data, config, seed=0, directory=tmp_path)
    assert [record["epoch"] for record in history] == list(range(1, epochs + 1))
    assert kept(history, config)["epoch"] == best
    for name, tensor in seen[best - 1].items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert ("best" in history[0]) is (config.keeps_best or config.patience > 0)


RECIPE = {
    "data": {"name": "multi-digits", "train": 64, "validation": 32, "test": 32, "canvas": 12},
    "backbone": {"name": "test_resnet", "args": {"channels": [4, 4, 8, 8]}},
    "train": {"epochs": 6, "batch_size": 32, "lr": 0.01, "patience": 1},
    "probe": {"epochs": 2},
}


def test_the_result_is_that_of_the_best_epoch(tmp_path, scripted):
    scripted([3.0, 1.0, 2.0])
    recipe = parse_recipe(RECIPE)
    run = Run(recipe, tmp_path)
    training = Training(run.schema.names, None, recipe.train, recipe.backbone, 0, test=False)
    result = train(training, run)
    assert {m["loss"] for m in result.validation.values()} == {1.0}
    assert [record["best"] for record in result.history()] == [True, True, False]


def test_a_probe_goes_on_to_the_end_and_keeps_the_last(tmp_path):
    """Its steps are counted by their place in the whole, and it is no model for use."""
    raw = {**RECIPE, "train": {**RECIPE["train"], "ema": 0.9, "select": "best"}}
    config = probe_training(Run(parse_recipe(raw), tmp_path), 0).train
    assert (config.patience, config.ema, config.keeps_best) == (0, None, False)


def test_what_is_reported_are_means_over_the_last_epochs(tmp_path, scripted):
    """Validation is looked at in each of three epochs, and test data in the last two."""
    scripted([3.0, 1.0, 10.0, 2.0, 20.0])
    train_config = {"epochs": 3, "batch_size": 32, "lr": 0.01, "report_epochs": 2}
    recipe = parse_recipe({**RECIPE, "train": train_config})
    run = Run(recipe, tmp_path)
    training = Training(run.schema.names, None, recipe.train, recipe.backbone, 0, test=False)
    result = train(training, run)
    assert result.test is None, "where nobody asked"
    assert {m["loss"] for m in result.validation.values()} == {1.5}
    assert ["test" in record for record in result.history()] == [False, True, True]
    result = train(replace(training, test=True), run)
    assert {m["loss"] for m in result.test.values()} == {15.0}


@pytest.mark.parametrize("changes", [{"select": "best"}, {"patience": 1}, {"epochs": 1}])
def test_what_has_no_last_epochs_is_one_line(changes):
    given = {"epochs": 3, "batch_size": 32, "lr": 0.01, "report_epochs": 2, **changes}
    with pytest.raises(
        RecipeError, match=r"`train.report_epochs` (must be at most|above 1)"
    ) as caught:
        parse_recipe({**RECIPE, "train": given})
    assert "\n" not in str(caught.value)
