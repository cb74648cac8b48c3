"""Evaluation a batch at a time equals one computation on the whole part."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from sklearn.metrics import accuracy_score

from recon_search.data.resident import Part, ResidentFeed
from recon_search.data.source import Batch, Inputs, Schema
from recon_search.model.network import build_model
from recon_search.tasks.classes import IGNORED, Classes
from recon_search.tasks.depth import Depth
from recon_search.training import evaluation
from recon_search.training.evaluation import evaluate
from tests.conftest import BACKBONE, HEAD

TASKS = (Classes("a", 4), Classes("b", 3, weight=5.0), Classes("never", 2))


def make_part(n, seed):
    generator = torch.Generator().manual_seed(seed)
    targets = {
        task.name: torch.randint(task.n_classes, (n,), generator=generator) for task in TASKS
    }
    targets["b"][torch.rand(n, generator=generator) < 0.5] = IGNORED
    targets["never"][:] = IGNORED
    images = torch.randint(256, (n, 1, 12, 12), generator=generator, dtype=torch.uint8)
    return Part(images, targets)


@pytest.fixture(scope="module")
def feed():
    parts = {"train": make_part(40, 0), "validation": make_part(37, 1), "test": make_part(300, 2)}
    return ResidentFeed(Schema(TASKS, (1, 12, 12), frozenset("a")), parts)


@pytest.fixture
def model():
    """A model whose statistics and dropout tell training from evaluation."""
    config = BACKBONE.model_copy(update={"args": {**BACKBONE.args, "drop_rate": 0.5}})
    model = build_model(config, HEAD, TASKS, shape=(1, 12, 12), seed=0)
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            generator = torch.Generator().manual_seed(index)
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.train()


def in_one_go(model, feed, part):
    """Accuracy by scikit-learn and mean cross-entropy by hand, of the whole part at once."""
    model.eval()
    with torch.no_grad():
        outputs = model(feed.inputs.normalise(feed.parts[part].inputs))
    found = {}
    for name, output in outputs.items():
        target = feed.parts[part].targets[name]
        known = target != IGNORED
        found[name] = {"accuracy": math.nan, "loss": math.nan}
        if known.any():
            scores, classes = output[known].double(), target[known]
            chosen = scores.gather(1, classes[:, None])[:, 0]
            found[name] = {
                "accuracy": 100 * accuracy_score(classes, scores.argmax(1)),
                "loss": float((scores.logsumexp(1) - chosen).mean()),
            }
    return found


def assert_close(found, expected, rel=1e-5):
    assert found.keys() == expected.keys()
    for task, values in expected.items():
        assert found[task] == pytest.approx(values, rel=rel, nan_ok=True), task


@pytest.mark.parametrize("part", ["train", "validation", "test"])
@pytest.mark.parametrize("least", [1, 7, 256, 10**6])
def test_it_equals_one_computation_however_it_is_cut(
    model, feed, train_config, monkeypatch, part, least
):
    monkeypatch.setattr(evaluation, "LEAST_SIZE", least)
    config = train_config.model_copy(update={"batch_size": 1})
    assert_close(evaluate(model, feed, part, config), in_one_go(model, feed, part))


def test_larger_batches_of_training_are_used(model, feed, train_config, monkeypatch):
    sizes = []

    def steps(self, part, size, *arguments):
        sizes.append(size)
        return iter(())

    monkeypatch.setattr(ResidentFeed, "steps", steps)
    for batch_size in (1, 512):
        evaluate(model, feed, "test", train_config.model_copy(update={"batch_size": batch_size}))
    assert sizes == [256, 512]


@pytest.mark.parametrize(
    ("side", "trained", "size"), [(64, 8, 256), (256, 8, 64), (256, 100, 100), (4096, 2, 2)]
)
def test_batches_of_large_images_are_small_where_pixels_are_told_of(
    side, trained, size, train_config
):
    config = train_config.model_copy(update={"batch_size": trained})
    schemas = [
        Schema((task,), (3, side, side), frozenset()) for task in (Depth("a"), Classes("a", 2))
    ]
    assert [evaluation.batch_size(schema, config) for schema in schemas] == [size, 256]


def test_it_is_in_eval_mode_and_leaves_the_model_as_it_was(model, feed, train_config):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.random.get_rng_state()
    first = evaluate(model, feed, "test", train_config)
    assert not any(module.training for module in model.modules())
    assert torch.equal(torch.random.get_rng_state(), state), "no dropout is drawn"
    model.train()
    again = evaluate(model, feed, "test", train_config)
    assert_close(again, first, rel=0)
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_it_computes_in_the_precision_of_training(model, feed, train_config):
    low = train_config.model_copy(update={"precision": "bfloat16"})
    seen = []
    for head in model.heads.values():
        head.register_forward_hook(lambda *hooked: seen.append(hooked[2].dtype))
    found = evaluate(model, feed, "test", low)
    assert set(seen) == {torch.bfloat16}
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        outputs = model(feed.inputs.normalise(feed.parts["test"].inputs))
    target = feed.parts["test"].targets["a"]
    loss = torch.nn.functional.cross_entropy(outputs["a"].float(), target)
    assert found["a"]["loss"] == pytest.approx(float(loss), rel=2e-3)
    seen.clear()
    exact = evaluate(model, feed, "test", train_config)
    assert set(seen) == {torch.float32}
    assert found["a"]["loss"] != exact["a"]["loss"]


def test_a_model_of_some_tasks_is_judged_by_those(feed, train_config):
    single = build_model(BACKBONE, HEAD, TASKS[1:2], shape=(1, 12, 12), seed=0)
    found = evaluate(single, feed, "validation", train_config)
    assert_close(found, in_one_go(single, feed, "validation"))
    assert list(found) == ["b"]


@dataclass
class OwnInputs:
    """A feed in which every task has inputs of its own, two batches a step."""

    feed: ResidentFeed

    @property
    def schema(self):
        return self.feed.schema

    @property
    def inputs(self) -> Inputs:
        return self.feed.inputs

    device = torch.device("cpu")

    def select(self, tasks):
        return self

    def steps(self, part, size, order=None, *, share=(0, 1)):
        own = self.feed.parts[part]
        for start in range(0, len(own), size):
            rows = slice(start, start + size)
            images = own.inputs[rows]
            yield (
                Batch(images, {"a": own.targets["a"][rows]}),
                Batch(
                    255 - images, {"b": own.targets["b"][rows], "never": own.targets["never"][rows]}
                ),
            )


def test_inputs_of_ones_own_are_judged_by_the_tasks_that_they_name(model, feed, train_config):
    found = evaluate(model, OwnInputs(feed), "test", train_config)
    negative = {name: replace(part, inputs=255 - part.inputs) for name, part in feed.parts.items()}
    other = ResidentFeed(feed.schema, negative)
    other.__dict__["inputs"] = feed.inputs
    assert_close(
        found,
        {"a": in_one_go(model, feed, "test")["a"]}
        | {name: in_one_go(model, other, "test")[name] for name in ("b", "never")},
    )


@pytest.mark.parametrize("most", [200, 7, 1])
def test_where_memory_is_short_batches_are_halved_and_nothing_changes(
    model, feed, train_config, monkeypatch, most
):
    whole = evaluate(model, feed, "test", train_config)
    forward, sizes = evaluation.forward, []

    def limited(model, step, *arguments):
        (batch,) = step
        if len(batch.inputs) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        sizes.append(len(batch.inputs))
        return forward(model, step, *arguments)

    monkeypatch.setattr(evaluation, "forward", limited)
    found = evaluate(model, feed, "test", train_config)
    assert sum(sizes) == len(feed.parts["test"])
    assert max(sizes) <= most
    for name, metrics in whole.items():
        assert found[name] == pytest.approx(metrics, rel=1e-5, nan_ok=True)


def test_where_it_is_short_for_one_image_that_is_said(model, feed, train_config, monkeypatch):
    def exhaust(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(evaluation, "forward", exhaust)
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        evaluate(model, feed, "test", train_config)
