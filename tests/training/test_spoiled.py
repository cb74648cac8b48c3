"""Losses and gradients that are not finite: named, or their steps left out."""

import json
import math
import re

import pytest
import torch

from recon_search.errors import RecipeError, TrainingError
from recon_search.memory import is_exhausted
from recon_search.recipe import load_recipe
from recon_search.training import spoiled
from recon_search.training.loop import fit
from recon_search.training.spoiled import Spoiled, faulty_gradient
from recon_search.training.step import Learner
from tests.stages.recipes import TINY

METHODS = ["joint", "dwa", "pcgrad", "rotograd", "graddrop"]


@pytest.fixture
def spoil(monkeypatch):
    """Make the loss of a task at some steps what is no number."""

    def at(*steps, task="left"):
        losses, number = Learner.losses, iter(range(10**6))

        def spoiled_losses(learner, step):
            found, features = losses(learner, step)
            if torch.is_grad_enabled() and next(number) in steps:
                found[task] = found[task] * math.nan
                # A forward pass on such images would spoil the norms as well.
                for module in learner.model.modules():
                    if isinstance(module, torch.nn.BatchNorm2d):
                        module.running_mean.data.fill_(math.nan)
            return found, features

        monkeypatch.setattr(Learner, "losses", spoiled_losses)

    return at


@pytest.fixture
def model(data, make_model):
    from recon_search.graph.split import Split
    from recon_search.model.network import build_model
    from tests.conftest import BACKBONE, HEAD

    tasks = data.schema.tasks
    split = Split(data.schema.names, {})
    return build_model(BACKBONE, HEAD, tasks, shape=(1,), split=split)


@pytest.mark.parametrize("method", METHODS)
def test_a_step_that_is_left_out_changes_nothing_and_is_counted(
    data, model, train_config, spoil, method
):
    spoil(1, 4)
    config = train_config.model_copy(update={"non_finite": "skip", "method": method})
    history = fit(model, data, config, seed=0)
    assert [record.get("skipped") for record in history] == [1, 1]
    assert all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values())
    losses = [value for record in history for value in record["train"].values()]
    assert all(map(math.isfinite, losses))


def test_without_a_faulty_step_leaving_out_changes_no_bit(data, model, train_config):
    import copy

    other = copy.deepcopy(model)
    fit(model, data, train_config, seed=0)
    history = fit(other, data, train_config.model_copy(update={"non_finite": "skip"}), seed=0)
    assert "skipped" not in history[-1]
    for one, two in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_too_many_in_a_row_are_no_accident(data, model, train_config, spoil, monkeypatch):
    spoil(*range(100), task="right")
    monkeypatch.setattr(spoiled, "PATIENCE", 3)
    config = train_config.model_copy(update={"non_finite": "skip"})
    with pytest.raises(
        TrainingError, match=r"at step 2 the loss of task 'right' .* in 3 steps in a"
    ):
        fit(model, data, config, seed=0)


def test_a_faulty_gradient_is_named(model):
    assert faulty_gradient(model) == ""
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e30)  # whose norm overflows
    assert faulty_gradient(model) == ""
    names = [name for name, _ in model.named_parameters()]
    model.get_parameter(names[3]).grad[..., 0] = math.inf
    assert faulty_gradient(model) == names[3]
    watch = Spoiled(model)
    watch.begin()
    watch.look_at_gradients()
    assert watch.reason == f"the gradient of '{names[3]}' is not finite"


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("joint", r"got nan for task 'left' at step 2\."),
        ("pcgrad", r"got nan for task 'left' at step 2\."),
    ],
)
def test_without_it_training_stops_and_the_last_good_checkpoint_stays(
    data, model, train_config, spoil, tmp_path, method, text
):
    spoil(3 + 2)  # of two epochs of three steps
    config = train_config.model_copy(update={"method": method})
    with pytest.raises(TrainingError, match=text.replace("step 2", "step 5")):
        fit(model, data, config, seed=0, directory=tmp_path)
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["epoch"] == 1
    from recon_search.training.checkpoint import load_checkpoint

    state = load_checkpoint(tmp_path / "checkpoint.safetensors")
    assert state["epoch"] == 1
    assert all(bool(tensor.isfinite().all()) for tensor in state["model"].values())


def test_a_method_on_gradients_names_task_layer_and_step(data, model, train_config, monkeypatch):
    features = type(model).features
    calls = iter(range(10**6))

    def grow(self, images, tasks=None):
        found = features(self, images, tasks)
        if self.training and next(calls) == 1:
            for each in found.values():
                each.register_hook(lambda gradient: gradient * math.inf)
        return found

    monkeypatch.setattr(type(model), "features", grow)
    config = train_config.model_copy(update={"method": "pcgrad"})
    with pytest.raises(
        TrainingError, match=r"those of task '\w+' are not.* It was at step 1, first in 'backbone\."
    ):
        fit(model, data, config, seed=0)


def test_float16_leaves_out_such_steps_by_itself(tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY)
    overrides = ["train.non_finite=skip", "train.precision=float16"]
    with pytest.raises(RecipeError, match='"skip" is for full precision'):
        load_recipe(tmp_path / "tiny.toml", overrides)


def test_a_command_says_how_many_steps_it_has_left_out(tmp_path, invoke, spoil):
    (tmp_path / "tiny.toml").write_text(TINY)
    spoil(1, 2)
    done = invoke("train", "tiny.toml", "--set", "train.non_finite=skip", "--device", "cpu",
                  "--out", "out")  # fmt: skip
    assert done.code == 0, done.error
    assert "Warning: 2 steps of joint, unsplit, seed 0 were skipped" in done.output


EXHAUSTED = [
    torch.OutOfMemoryError("CUDA out of memory."),
    MemoryError(),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({}, r"size=16 --set train.accumulate=2\), or set train.grad_check.* or train.low_memory"),
        ({"accumulate": 3}, r"accumulate=6\), or set train.grad_checkpointing, or make images"),
        ({"grad_checkpointing": "true"}, r"accumulate=2\), or make images .* smaller\."),
        ({"low_memory": "true"}, r"Lower train.batch_size, or make images .* smaller\."),
        ({"batch_size": 7}, r"by the same factor, or set"),
        ({"precision": '"float16"'}, r"or set train.grad_checkpointing, or make images"),
    ],
)  # fmt: skip
def test_what_may_be_lowered_goes_with_the_recipe(tmp_path, invoke, monkeypatch, options, advice):
    (tmp_path / "tiny.toml").write_text(TINY)

    def exhaust(*_):
        raise MemoryError

    monkeypatch.setattr(Learner, "losses", exhaust)
    sets = [word for key, value in options.items() for word in ("--set", f"train.{key}={value}")]
    done = invoke("train", "tiny.toml", "--device", "cpu", "--out", "out", *sets)
    assert done.code == 2
    (line,) = done.error.splitlines()
    assert re.search(advice, line), line


@pytest.mark.parametrize("command", ["plan", "probe", "validate"])
def test_every_command_that_trains_says_so(tmp_path, invoke, monkeypatch, command):
    (tmp_path / "tiny.toml").write_text(TINY)

    def exhaust(*_):
        raise EXHAUSTED[0]

    monkeypatch.setattr(Learner, "losses", exhaust)
    where = [] if command == "validate" else ["--device", "cpu", "--workers", 1]
    done = invoke(command, "tiny.toml", *where)
    assert done.code == 2
    (line,) = done.error.splitlines()
    assert "must hold a step of" in line


@pytest.mark.parametrize("error", EXHAUSTED)
def test_memory_that_is_exhausted_is_one_line(tmp_path, invoke, monkeypatch, error):
    (tmp_path / "tiny.toml").write_text(TINY)

    def exhaust(*_):
        raise error

    monkeypatch.setattr(Learner, "losses", exhaust)
    done = invoke("train", "tiny.toml", "--device", "cpu", "--out", "out")
    assert done.code == 2
    (line,) = done.error.splitlines()
    assert "The memory of cpu must hold a step of joint, unsplit, seed 0, it does not" in line
    assert "Lower train.batch_size and raise train.accumulate" in line
    assert not is_exhausted(RuntimeError("shapes differ"))
    assert not is_exhausted(ValueError("out of memory"))
