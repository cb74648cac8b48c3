"""The average of the weights, by hand; what is evaluated, saved and tested is the average."""

import pytest
import torch

from recon_search.model.files import load
from recon_search.recipe import TrainConfig, parse_recipe
from recon_search.runs.run import Run
from recon_search.runs.trainer import train
from recon_search.runs.training import Training
from recon_search.training import step as module
from recon_search.training.averaging import Average
from recon_search.training.evaluation import evaluate
from recon_search.training.loop import fit
from tests.training.test_options import make

CONFIG = TrainConfig(epochs=2, batch_size=16, lr=0.1)


def decay_by_hand(n, decay, warmup):
    """Weight of the past in the n-th update, counted from 1."""
    if n == 1:
        return 0.0
    return min(decay, 1 - n ** (-2 / 3)) if warmup else decay


@pytest.mark.parametrize("warmup", [True, False])
@pytest.mark.parametrize("changes", [{}, {"accumulate": 2}, {"method": "pcgrad"}], ids=str)
def test_it_is_the_average_of_every_update(data, monkeypatch, warmup, changes):
    """Running statistics are averaged like weights; counts are the latest."""
    config = CONFIG.model_copy(update={"ema": 0.7, "ema_warmup": warmup, **changes})
    seen = []
    update = Average.update

    def spy(self, model, number):
        seen.append({k: v.double().clone() for k, v in model.state_dict().items()})
        update(self, model, number)

    monkeypatch.setattr(module.Average, "update", spy)
    model = make(config)
    fit(model, data, config, seed=0)
    assert len(seen) == 12 // config.accumulate
    expected = {}
    for number, state in enumerate(seen, start=1):
        keep = decay_by_hand(number, 0.7, warmup)
        for name, tensor in state.items():
            before = expected.get(name, tensor)
            is_count = name.endswith("num_batches_tracked")
            expected[name] = tensor if is_count else keep * before + (1 - keep) * tensor
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6, msg=name)
    assert any(not torch.equal(seen[-1][n], t.double()) for n, t in model.state_dict().items())


def test_training_itself_is_as_without(data, monkeypatch):
    """The average learns nothing and changes nothing: losses of training are the same."""
    plain = fit(make(CONFIG), data, CONFIG, seed=0)
    averaged = fit(make(CONFIG), data, CONFIG.model_copy(update={"ema": 0.9}), seed=0)
    for mine, theirs in zip(averaged, plain, strict=True):
        assert mine["train"] == theirs["train"]
        assert mine["validation"] != theirs["validation"]


def test_averaged_rotations_are_rotations(data):
    config = CONFIG.model_copy(
        update={"ema": 0.9, "method": "rotograd", "options": {"lr": 0.3, "every": 1}}
    )
    model = make(config)  # the head's activation keeps the rotation from being folded
    fit(model, data, config, seed=0)
    for head in model.heads.values():
        eye = torch.eye(len(head.rotation))
        torch.testing.assert_close(head.rotation @ head.rotation.T, eye, atol=1e-5, rtol=0)
        assert (head.rotation - eye).abs().max() > 0.05, "it has turned"


def test_what_is_saved_reported_and_tested_is_the_average(tmp_path):
    raw = {
        "data": {"name": "multi-digits", "train": 96, "validation": 32, "test": 32, "canvas": 12},
        "backbone": {"name": "resnet18", "args": {"channels": [4, 4, 8, 8]}},
        "train": {"epochs": 2, "batch_size": 16, "lr": 0.1, "ema": 0.8},
        "probe": {"epochs": 1},
    }
    recipe = parse_recipe(raw)
    run = Run(recipe, tmp_path)
    training = Training(run.schema.names, None, recipe.train, recipe.backbone, 0)
    result = train(training, run)
    model = load(result.directory / "model")
    assert evaluate(model, run.feed, "validation", recipe.train) == result.validation
    assert evaluate(model, run.feed, "test", recipe.train) == result.test
    plain = recipe.train.model_copy(update={"ema": None})
    other = train(Training(run.schema.names, None, plain, recipe.backbone, 0), run)
    assert other.directory != result.directory
    assert other.validation != result.validation
