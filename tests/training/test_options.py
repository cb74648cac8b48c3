"""Every option of a training, with surgery and the probe, interrupted and not."""

import pytest
import torch

from recon_search.conflict.scores import ConflictScores
from recon_search.errors import RecipeError
from recon_search.graph.split import Split
from recon_search.model.network import build_model
from recon_search.recipe import TrainConfig, parse_recipe
from recon_search.tasks.classes import Classes
from recon_search.training.evaluation import evaluate
from recon_search.training.loop import fit
from recon_search.training.stopping import kept
from tests.conftest import BACKBONE, HEAD, pairs

TASKS = ("left", "right")
SPLIT = Split.private(["layer3.0.conv1", "layer4.1.bn2"], TASKS)
CONFIG = TrainConfig(epochs=2, batch_size=32, lr=0.05, measure_every=2)
OPTIONS = {
    "freeze": {"freeze": ["conv1", "bn1", "layer1.*"]},
    "layer_decay": {"layer_decay": 0.75, "head_lr_scale": 10.0, "weight_decay": 0.1},
    "ema": {"ema": 0.8},
    "constant ema": {"ema": 0.5, "ema_warmup": False},
    "best": {"select": "best", "lr": 0.3, "epochs": 3},
    "patience": {"patience": 1, "epochs": 5, "lr": 0.3},
    "bfloat16": {"precision": "bfloat16"},
    "float16": {"precision": "float16"},
    "clip": {"clip_grad": 0.5, "precision": "float16", "accumulate": 2},
    "min_lr": {"min_lr": 0.01, "warmup_epochs": 1, "optimizer": "adamw", "lr": 0.02},
    "checkpointing": {"grad_checkpointing": True},
    "everything": {
        "grad_checkpointing": True,
        "freeze": ["layer1.*"],
        "layer_decay": 0.8,
        "head_lr_scale": 2.0,
        "ema": 0.9,
        "patience": 2,
        "precision": "float16",
        "clip_grad": 1.0,
        "accumulate": 2,
        "optimizer": "adamw",
        "lr": 0.01,
    },
}
METHODS = ("joint", "pcgrad", "rotograd", "uw", "graddrop")


def make(config, split=SPLIT, seed=0, shape=(1, 12, 12)):
    classes = [Classes(task, 10) for task in TASKS]
    return build_model(
        BACKBONE, HEAD, classes, shape=shape, split=split, seed=seed, frozen=config.freeze
    )


def train(data, config, directory=None, stop_after=None, split=SPLIT):
    """A trained model, its scores and its history without times."""
    if config.precision == "bfloat16":
        data = pairs(20)
    model = make(config, split, shape=data.schema.shape)
    scores = ConflictScores(list(model.backbone.layers()), TASKS)

    def report(progress):
        if stop_after is not None and progress.step > stop_after:
            raise KeyboardInterrupt

    history = fit(model, data, config, seed=1, directory=directory, scores=scores, report=report)
    for record in history:
        record.pop("seconds")
    return model, scores, history


def assert_same(found, expected):
    (model, scores, history), (other, other_scores, other_history) = found, expected
    assert history == other_history
    assert model.state_dict().keys() == other.state_dict().keys()
    for name, tensor in other.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    for name, tensor in other_scores.tensors.items():
        assert torch.equal(scores.tensors[name], tensor), name


CASES = [
    pytest.param(option, method, marks=() if is_fast else pytest.mark.slow)
    for place, option in enumerate(OPTIONS)
    for number, method in enumerate(METHODS)
    if (is_fast := option == "everything" or place % 3 == number)
    or number < 3
    or option == "float16"
]
"""Every option goes with one of three methods in turn, and all at once with every method; the other
pairs are slow."""


@pytest.mark.parametrize(("option", "method"), CASES)
def test_an_interrupted_training_ends_with_the_same_bits(tmp_path, data, option, method):
    config = CONFIG.model_copy(update={"method": method, **OPTIONS[option]})
    whole = train(data, config, tmp_path / "whole")
    n_updates = -(-3 // config.accumulate)
    with pytest.raises(KeyboardInterrupt):
        train(data, config, tmp_path / "cut", stop_after=n_updates)  # in the second epoch
    assert_same(train(data, config, tmp_path / "cut"), whole)
    assert_same(train(data, config, tmp_path / "cut"), whole)  # nothing is left to do
    assert all(torch.isfinite(tensor).all() for tensor in whole[0].state_dict().values())


@pytest.mark.parametrize(
    "option",
    [
        {"accumulate": 2},
        {"precision": "float16"},
        {"grad_checkpointing": True},
        {"low_memory": True},
        {"freeze": ["conv1", "layer2.*"]},
    ],
    ids=str,
)
def test_sketched_steps_train_as_others_do_and_are_the_same_after_an_interruption(
    tmp_path, data, option
):
    config = CONFIG.model_copy(update={"epochs": 2, "measure_every": 1, **option})
    sketched = config.model_copy(update={"measure_sketch": 16})
    whole = train(data, sketched, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(data, sketched, tmp_path / "cut", stop_after=-(-3 // config.accumulate))
    assert_same(train(data, sketched, tmp_path / "cut"), whole)
    plain = train(data, config)
    for name, tensor in plain[0].state_dict().items():
        torch.testing.assert_close(whole[0].state_dict()[name], tensor, rtol=1e-3, atol=1e-3)
    exact, found = (scores.tensors["inner"].sum((0, 1, 2)) for scores in (plain[1], whole[1]))
    assert torch.equal(exact != 0, found != 0)
    assert not torch.equal(exact, found)
    torch.testing.assert_close(found, exact, rtol=0.0, atol=0.5 * plain[1].steps ** 0.5)


@pytest.mark.parametrize(
    "option", [name for name in OPTIONS if name not in ("patience", "checkpointing")]
)
def test_an_option_changes_what_is_learned(data, option):
    plain = CONFIG.model_copy(update={"lr": OPTIONS[option].get("lr", CONFIG.lr)})
    one = train(data, plain)[0].state_dict()
    other = train(data, CONFIG.model_copy(update=OPTIONS[option]))[0].state_dict()
    if option == "best" and all(torch.equal(one[name], other[name]) for name in one):
        pytest.skip("the last epoch was the best")
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("method", METHODS[:3])
def test_checkpointing_changes_no_bit(data, method):
    config = CONFIG.model_copy(update={"method": method, "epochs": 2})
    assert_same(
        train(data, config.model_copy(update={"grad_checkpointing": True})), train(data, config)
    )


def test_the_model_holds_the_epoch_whose_metrics_are_reported(data):
    for option in ("ema", "best", "patience", "everything"):
        config = CONFIG.model_copy(update=OPTIONS[option])
        model, _, history = train(data, config)
        assert evaluate(model, data, "validation", config) == kept(history, config)["validation"], (
            option
        )


RECIPE = {
    "data": {"name": "multi-digits"},
    "backbone": {"name": "resnet18"},
    "train": {"epochs": 2, "batch_size": 8, "lr": 0.1},
    "probe": {"epochs": 1},
}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layer_decay": 0.0}, r"`train.layer_decay`: .*greater than 0, got 0.0"),
        ({"layer_decay": 1.5}, r"`train.layer_decay`: .*less than or equal to 1, got 1.5"),
        ({"head_lr_scale": 0.0}, r"`train.head_lr_scale`: .*greater than 0"),
        ({"freeze": "conv1"}, r"`train.freeze`: .*valid (list|array)"),
        ({"ema": 1.0}, r"`train.ema`: .*less than 1"),
        ({"ema_warmup": False}, r"`train.ema_warmup` needs `train.ema`"),
        ({"patience": -1}, r"`train.patience`: .*greater than or equal to 0"),
        ({"select": "first"}, r"`train.select`: .*'last' or 'best'"),
        ({"precision": "half"}, r"`train.precision`: .*'float16'"),
        ({"precision": "float16", "low_memory": True}, "exclude each other.*scaled back"),
        ({"grad_checkpointing": True, "low_memory": True}, "exclude each other.*anew"),
        ({"min_lr": 0.1}, r"`train.min_lr` must be below `train.lr`, got 0.1 and 0.1"),
        ({"min_lr": 0.01, "scheduler": "step"}, r"`train.min_lr` needs .*cosine.*got \"step\""),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_line(values, message):
    raw = {**RECIPE, "train": {**RECIPE["train"], **values}}
    with pytest.raises(RecipeError, match=message) as caught:
        parse_recipe(raw)
    assert "\n" not in str(caught.value)
