"""Training on tasks with data of their own."""

import copy

import pytest
import torch
import torch.nn.functional as F

from recon_search.conflict.scores import ConflictScores
from recon_search.data.order import Lane
from recon_search.data.resident import Part, ResidentFeed
from recon_search.data.source import Batch, Inputs, Schema
from recon_search.graph.layers import layers
from recon_search.graph.split import Split
from recon_search.methods.registry import METHODS
from recon_search.methods.surgeon import create_surgeon
from recon_search.model.backbone import create_backbone
from recon_search.model.network import build_model
from recon_search.recipe import BackboneConfig, HeadConfig, TrainConfig
from recon_search.tasks.classes import Classes
from recon_search.training.evaluation import evaluate
from recon_search.training.loop import fit
from recon_search.training.step import Learner
from tests.methods.gradients import flat, gradients_of, randomise, task_gradients

TASKS = "abc"
SHAPE = (1, 12, 12)
CONFIG = TrainConfig(epochs=2, batch_size=8, lr=0.05)
PLAIN = BackboneConfig(
    name="test_resnet", args={"channels": [4, 4, 8, 8], "norm_layer": "groupnorm1"}, features=6
)
NORMED = PLAIN.model_copy(update={"args": {"channels": [4, 4, 8, 8]}})
PRIVATE = {"layer3.0.conv1": (("a",), ("b",), ("c",))}
GROUPS = {"layer1.0.conv1": (("a", "b"), ("c",)), **PRIVATE}


def part(lengths, *, alike=False, seed=0):
    """Random images; alike, every task has the same ones, with labels of its own."""
    generator = torch.Generator().manual_seed(seed)
    images, labels, lanes, start = [], {}, [], 0
    for name, n in zip(TASKS, lengths, strict=True):
        own = torch.randint(256, (n, *SHAPE), generator=generator, dtype=torch.uint8)
        images.append(images[0] if alike and images else own)
        labels[name] = torch.randint(5, (n,), generator=generator)
        lanes.append(Lane((name,), range(start, start + n), name))
        start += n
    return Part(torch.cat(images), labels, lanes)


def make_feed(lengths=(24, 16, 8), *, alike=False):
    tasks = tuple(Classes(task, 5) for task in TASKS)
    schema = Schema(tasks, SHAPE, frozenset(TASKS), apart=True)
    parts = {
        name: part(lengths, alike=alike, seed=seed)
        for seed, name in enumerate(("train", "validation", "test"))
    }
    return ResidentFeed(schema, parts)


def build(split=None, tasks=TASKS, backbone=PLAIN):
    names = tuple(tasks)
    plan = Split(names, GROUPS if split is None and len(names) > 1 else split or {})
    head = HeadConfig(activation="relu")
    return build_model(backbone, head, [Classes(t, 5) for t in names], shape=SHAPE, split=plan)


def both_steps(size=8):
    """A step of one batch for all tasks, and the same step with a batch for each."""
    feed = make_feed((size,) * 3, alike=True)
    (apart,) = feed.steps("train", size)
    targets = {name: own for batch in apart for name, own in batch.targets.items()}
    return feed, (Batch(apart[0].inputs, targets),), apart


METHOD_NAMES = [name for name, method in METHODS.items() if method.needs != "features"]


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")  # of Nash-MTL's solver
@pytest.mark.parametrize("method", METHOD_NAMES)
def test_of_equal_images_a_step_of_several_batches_is_the_step_of_one(method, monkeypatch):
    """In a network whose norms look at one image at a time."""
    plain = Inputs.normalise
    monkeypatch.setattr(Inputs, "normalise", lambda own, inputs: plain(own, inputs).double())
    feed, shared, apart = both_steps()
    found = []
    for step in (shared, apart):
        model = randomise(build(PRIVATE).double())
        surgeon = create_surgeon(model, method)
        learner = Learner(model, feed.schema.tasks, feed, CONFIG)
        torch.manual_seed(0)
        losses, features = learner.losses(step)
        gramians = surgeon.backward(losses, features, measure=True)
        found.append((gradients_of(model), gramians, losses))
    (one, gramians, losses), (other, others, more) = found
    assert one.keys() == other.keys()
    for task in TASKS:
        torch.testing.assert_close(more[task], losses[task], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(others, gramians, rtol=1e-6, atol=1e-9)
    for name, gradient in one.items():
        torch.testing.assert_close(other[name], gradient, rtol=1e-6, atol=1e-8, msg=name)


@pytest.mark.parametrize("low_memory", [False, True])
def test_the_gramians_are_those_of_each_task_s_gradient_on_its_own_batch(low_memory):
    feed = make_feed()
    model = build(backbone=NORMED)
    randomise(model)
    reference = copy.deepcopy(model)
    (step, *_) = feed.steps("train", 8, (0, 0))
    learner = Learner(model, feed.schema.tasks, feed, CONFIG)
    surgeon = create_surgeon(model, "joint", low_memory=low_memory)
    gramians = surgeon.backward(*learner.losses(step), measure=True)
    losses = {}
    for batch in step:
        ((name, target),) = batch.targets.items()
        features = reference.backbone(feed.inputs.normalise(batch.inputs))  # all paths, every time
        losses[name] = F.cross_entropy(reference.heads[name](features[name]), target)
    rows = task_gradients(reference, losses)
    numbers = {id(parameter): name for name, parameter in reference.named_parameters()}
    for number, blocks in enumerate(reference.backbone.layers().values()):
        names = [numbers[id(p)] for block in blocks for p in block.parameters]
        jacobian = torch.stack([flat(row, names) for row in rows])
        torch.testing.assert_close(gramians[number], jacobian @ jacobian.T, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["joint", "pcgrad"])
def test_with_every_layer_split_training_is_single_task_training(method):
    """Of tasks with equally many images; norms and shuffles included, bit for bit."""
    feed = make_feed((20, 20, 20))
    every = list(layers(create_backbone(NORMED, in_chans=1)))
    split = dict.fromkeys(every, tuple((t,) for t in TASKS))
    model = build(split, backbone=NORMED)
    fit(model, feed, CONFIG.model_copy(update={"method": method}), seed=3)
    for task in TASKS:
        single = build(tasks=(task,), backbone=NORMED)
        fit(single, feed, CONFIG, seed=3)
        expected = single.backbone.task_state_dict(task)
        for name, tensor in model.backbone.task_state_dict(task).items():
            assert torch.equal(tensor, expected[name]), name


def test_running_statistics_are_those_of_all_batches_in_turn():
    feed, model = make_feed(), build({}, backbone=NORMED)
    reference = copy.deepcopy(model).train()
    (step, *_) = feed.steps("train", 8, (0, 0))
    Learner(model.train(), feed.schema.tasks, feed, CONFIG).losses(step)
    for batch in step:
        reference(feed.inputs.normalise(batch.inputs), tuple(batch.targets))
    assert int(model.get_buffer("backbone.shared.bn1.num_batches_tracked")) == 3
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, reference.get_buffer(name)), name


OPTIONS = {
    "pcgrad": {"method": "pcgrad", "measure_every": 2, "clip_grad": 1.0, "ema": 0.8},
    "joint": {"accumulate": 2, "measure_every": 1, "measure_tasks": 2},
    "famo": {"method": "famo", "precision": "float16"},
    "low memory": {"low_memory": True, "measure_every": 1},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_training_that_is_cut_off_goes_on_as_if_it_had_not_been(name, tmp_path, monkeypatch):
    monkeypatch.setattr("recon_search.training.loop.CHECK_EVERY", 1)
    feed, config = make_feed(), CONFIG.model_copy(update=OPTIONS[name])

    def train(folder, last=None):
        model = build(backbone=NORMED)
        scores = ConflictScores(list(model.backbone.layers()), tuple(TASKS))

        def report(progress):
            if progress.step == last:
                raise KeyboardInterrupt

        history = fit(
            model, feed, config, seed=1, directory=tmp_path / folder, scores=scores, report=report
        )
        plain = [{k: v for k, v in record.items() if k != "seconds"} for record in history]
        return model.state_dict(), scores.tensors, plain

    whole = train("whole")
    n_updates = -(-3 // config.accumulate)
    with pytest.raises(KeyboardInterrupt):
        train("cut", last=n_updates + 1)  # within the second epoch
    resumed = train("cut")
    assert resumed[2] == whole[2]
    for first, second in zip(whole[:2], resumed[:2], strict=True):
        assert first.keys() == second.keys()
        for key, tensor in first.items():
            assert torch.equal(second[key], tensor), key


def test_of_many_tasks_some_are_measured_at_once():
    feed, model = make_feed(), build(backbone=NORMED)
    scores = ConflictScores(list(model.backbone.layers()), tuple(TASKS))
    update = {"measure_every": 1, "measure_tasks": 2, "epochs": 4}
    fit(model, feed, CONFIG.model_copy(update=update), seed=1, scores=scores)
    assert scores.pair_steps.sum() == 4 * 3  # one pair a step, three steps an epoch
    assert (scores.pair_steps > 0).sum() > 1


def test_every_task_is_judged_on_its_own_part():
    feed, model = make_feed(), build(backbone=NORMED)
    found = evaluate(model, feed, "validation", CONFIG)
    assert list(found) == list(TASKS)
    for task in TASKS:
        ((batch,),) = feed.select((task,)).steps("validation", 100)
        with torch.no_grad():
            output = model.eval()(feed.inputs.normalise(batch.inputs))[task]
        accuracy = (output.argmax(1) == batch.targets[task]).double().mean() * 100
        assert found[task]["accuracy"] == pytest.approx(float(accuracy))
