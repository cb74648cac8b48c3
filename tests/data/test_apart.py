"""Tasks with data of their own: their steps, their order, and what is refused."""

from collections import Counter

import pytest
import torch

from recon_search.data.task_data import TaskData
from recon_search.errors import DataError
from recon_search.tasks.classes import Classes
from recon_search.tasks.values import Values
from tests.data.contract import FeedContract, are_equal
from tests.data.samples import Listed, numbers, open_feed

SIZES = {"train": {"a": 45, "b": 64, "c": 10}, "validation": {"a": 21, "b": 9, "c": 5}}
SIZES["test"] = SIZES["validation"]
TASKS = (Classes("a", 3), Classes("b", 4), Values("c"))
AUGMENTED = {"augment": {"flip": 0.5, "color_jitter": 0.3}}
CACHES = ("auto", "none", "memory")


class Blind(Listed):
    """Targets cannot be read without images; `targets` is a list, as torchvision's data sets do."""

    @property
    def targets(self):
        return [target for _, target in self.samples]


def of_tasks(names="abc", kind=Listed, missing=0, **options):
    """Data sets of tasks, of tensors; every image holds its part, task and place."""
    parts = {}
    for seed, (part, sizes) in enumerate(SIZES.items()):
        sets = {}
        for name in names:
            images = numbers(sizes[name], 3, 6, 8, seed=10 * seed + ord(name))
            labels = numbers(sizes[name], seed=seed + ord(name), most=3).tolist()
            own = [(image, label) for image, label in zip(images, labels, strict=True)]
            sets[name] = kind((i, None if n < missing else y) for n, (i, y) in enumerate(own))
        parts[part] = sets
    tasks = [task for task in TASKS if task.name in names]
    return TaskData(tasks, parts, **options)


def same(first, second):
    """Whether two steps are equal, batch by batch."""
    return len(first) == len(second) and all(map(FeedContract.same, first, second))


class LaneContract(FeedContract):
    """What one task sees is a feed like any other; but for the statistics, which are of all."""

    TASK, CACHE = "a", "auto"

    @pytest.fixture
    def feed(self):
        return open_feed(of_tasks(), cache=self.CACHE).select((self.TASK,))

    def test_inputs_are_normalised_by_the_training_part(self, feed):
        every = [batch.inputs for step in feed.feed.steps("train", 7) for batch in step]
        ready = feed.inputs.normalise(torch.cat(every)).double()
        assert ready.mean((0, 2, 3)).abs().max() < 1e-5
        assert feed.inputs is feed.select(("b",)).inputs, "taken once"

    def test_statistics_are_those_of_a_double_copy_of_the_training_part(self, feed):
        every = [batch.inputs for step in feed.feed.steps("train", 7) for batch in step]
        levels = torch.cat(every).double() / 255
        torch.testing.assert_close(feed.inputs.mean.double(), levels.mean((0, 2, 3)))


class TestFirst(LaneContract):
    pass


class TestStreamedLast(LaneContract):
    TASK, CACHE = "b", "none"


@pytest.fixture(params=CACHES)
def feed(request):
    return open_feed(of_tasks(), cache=request.param, **AUGMENTED)


def test_a_step_is_a_batch_of_each_task_until_the_longest_is_through(feed):
    steps = list(feed.steps("train", 16, (1, 2)))
    assert len(steps) == feed.n_steps("train", 16, shuffled=True) == 64 // 16
    for step in steps:
        assert [tuple(batch.targets) for batch in step] == [("a",), ("b",), ("c",)]
        assert [len(batch.inputs) for batch in step] == [16, 16, 10]


def test_each_task_s_batches_are_those_it_has_alone(feed):
    """A single-task baseline trains on its own data, for as long as they last, in that order."""
    together = list(feed.steps("train", 16, (1, 2)))
    for place, task in enumerate("abc"):
        alone = list(feed.select((task,)).steps("train", 16, (1, 2)))
        assert len(alone) == {"a": 2, "b": 4, "c": 1}[task]
        for step, (batch,) in zip(together, alone, strict=False):
            assert FeedContract.same(step[place], batch)


def test_a_task_s_order_does_not_depend_on_the_others():
    steps = open_feed(of_tasks(), **AUGMENTED).steps("train", 16, (1, 2))
    others = open_feed(of_tasks("ab"), **AUGMENTED).steps("train", 16, (1, 2))
    for (a, b, _), other in zip(steps, others, strict=True):
        assert torch.equal(a.targets["a"], other[0].targets["a"])
        assert torch.equal(b.targets["b"], other[1].targets["b"])


def test_a_task_that_is_through_begins_anew_in_another_order_and_changed_anew():
    plain = [step[0] for step in open_feed(of_tasks()).steps("train", 16, (1, 2))]
    rows = [[image.numpy().tobytes() for image in batch.inputs] for batch in plain]
    first, second = rows[0] + rows[1], rows[2] + rows[3]
    assert max(Counter(first).values()) == max(Counter(second).values()) == 1
    assert first != second
    assert set(first) & set(second)
    changed = [step[2] for step in open_feed(of_tasks(), **AUGMENTED).steps("train", 16, (1, 2))]
    orders = [batch.targets["c"].flatten().argsort() for batch in changed]
    images = [batch.inputs[order] for batch, order in zip(changed, orders, strict=True)]
    assert not torch.equal(images[0], images[1])


def test_cached_and_streamed_steps_are_equal_bytes():
    feeds = [open_feed(of_tasks(), cache=cache, **AUGMENTED) for cache in CACHES]
    for part, order in (("train", (3, 1)), ("train", None), ("test", None)):
        first, *others = (list(feed.steps(part, 8, order)) for feed in feeds)
        for other in others:
            assert all(map(same, first, other))
            assert len(first) == len(other)


@pytest.mark.parametrize("part", ["train", "test"])
def test_without_an_order_every_sample_comes_once_to_its_task(feed, part):
    steps = list(feed.steps(part, 4))
    for task in "abc":
        found = [own.targets[task] for step in steps for own in step if task in own.targets]
        assert sum(map(len, found)) == SIZES[part][task]
    assert feed.lengths(part) == tuple(SIZES[part].values())


def test_the_shares_of_the_ranks_make_the_batches(feed):
    whole = list(feed.steps("train", 8, (0, 0)))
    parts = [list(feed.steps("train", 8, (0, 0), share=(rank, 2))) for rank in (0, 1)]
    for index, step in enumerate(whole):
        for place, batch in enumerate(step):
            own = [shares[index][place] for shares in parts]
            assert torch.equal(torch.cat([each.inputs for each in own]), batch.inputs)
            for name, target in batch.targets.items():
                assert are_equal(torch.cat([each.targets[name] for each in own]), target)


def test_workers_read_the_same_steps():
    alone = open_feed(of_tasks(), cache="none", **AUGMENTED)
    helped = open_feed(of_tasks(), cache="none", workers=1, **AUGMENTED)
    assert all(map(same, alone.steps("train", 16, (0, 1)), helped.steps("train", 16, (0, 1))))
    helped.close()


def test_what_is_complete_is_told_by_each_task_s_own_samples():
    assert open_feed(of_tasks()).schema.complete == set("abc")
    assert open_feed(of_tasks(missing=1)).schema.complete == set()
    schema = open_feed(of_tasks(kind=Blind)).schema
    assert (schema.complete, schema.apart) == (set(), True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda parts: parts["test"].pop("b"), "'b' has none in the test part"),
        (lambda parts: parts["train"].update(d=Listed([1])), "got 'd' in the train part"),
        (lambda parts: parts["train"].update(a=Listed([])), "'a' has none in the train part"),
        (lambda parts: parts.update(test=Listed([1])), "got Listed for the test part"),
        (lambda parts: parts["train"].update(a=3), "got dict for the train part"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    parts = {part: {task: Listed([1]) for task in "abc"} for part in SIZES}
    change(parts)
    with pytest.raises(DataError, match=message):
        TaskData(TASKS, parts).check()


def test_a_sample_that_cannot_be_read_is_named_by_its_task():
    data = of_tasks()
    sets = {task.name: data.parts["train"].sets[task.name] for task in TASKS}
    sets["b"] = Listed([*sets["b"].samples[:3], (sets["b"].samples[3][0], 9)])
    parts = {"train": sets, "validation": data.parts["validation"], "test": data.parts["test"]}
    with pytest.raises(DataError, match=r"^sample 3 of task 'b' in the train part: The target"):
        open_feed(TaskData(TASKS, parts))
