"""Streamed data obeys the contract of feeds, and is what resident data is, byte for byte."""

import gc
import multiprocessing
import time

import pytest
import torch

from recon_search.errors import DataError
from tests.data.contract import FeedContract
from tests.data.samples import SIZES, of_feed, of_files, of_tensors, open_feed


def same(first, second):
    """Whether two lists of batches are equal, byte for byte."""
    return len(first) == len(second) and all(map(FeedContract.same, first, second))


def batches(feed, part="train", size=16, order=None, share=(0, 1)):
    return [batch for step in feed.steps(part, size, order, share=share) for batch in step]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


KINDS = {
    "partial labels": lambda folder: of_tensors(missing=30),
    "numbers": lambda folder: of_tensors(dtype=torch.float32),
    "files, 2 workers": lambda folder: of_files(folder, image_size=(10, 12)),
    "files in memory": lambda folder: of_files(folder, image_size=(10, 12)),
}


class TestStreamed(FeedContract):
    @pytest.fixture(params=KINDS)
    def feed(self, request, folder):
        cache = "memory" if "memory" in request.param else "none"
        workers = 2 if "workers" in request.param else 0
        feed = open_feed(KINDS[request.param](folder), cache=cache, workers=workers)
        yield feed
        feed.close()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("share", [(0, 1), (0, 2), (1, 2)])
def test_streamed_equals_resident_batch_for_batch(data, workers, share):
    feed = open_feed(of_feed(data), cache="none", workers=workers)
    for part, order in (("train", (3, 0)), ("train", (3, 1)), ("validation", None)):
        assert same(
            batches(feed, part, order=order, share=share),
            batches(data, part, order=order, share=share),
        )
    assert torch.equal(feed.inputs.mean, data.inputs.mean)
    assert torch.equal(feed.inputs.std, data.inputs.std)
    assert feed.schema.complete == data.schema.complete
    feed.close()


AUGMENT = {
    "crop": {"scale": [0.3, 1.0]},
    "all": {
        "flip": 0.5,
        "scale": [0.2, 0.9],
        "ratio": [0.5, 2.0],
        "color_jitter": [0.4, 0.4, 0.4, 0.1],
        "auto_augment": "rand-m9-mstd0.5",
        "random_erasing": 0.5,
    },
    "in place": {"flip": 0.5, "color_jitter": 0.4, "random_erasing": 0.5},
    "policy": {"auto_augment": "augmix-m5-w4-d2"},
}


@pytest.mark.parametrize("augment", AUGMENT.values(), ids=AUGMENT)
def test_augmentation_depends_on_seed_epoch_and_index_alone(tmp_path, augment):
    """Neither workers, nor a cache, nor ranks, nor what was read before change a byte."""
    data, order = of_files(tmp_path), (5, 2)
    settings = {"image_size": [12, 10], "augment": augment}
    first = open_feed(data, cache="none", workers=0, **settings)
    expected = batches(first, order=order)
    for loading in (
        {"workers": 2, "cache": "none"},
        {"workers": 0, "cache": "memory"},
        {"workers": 2, "cache": "memory"},
        {"workers": 0, "cache": "auto"},
    ):
        feed = open_feed(data, **loading, **settings)
        batches(feed, order=(5, 1), size=7)
        torch.manual_seed(17)
        assert same(batches(feed, order=order), expected)
        halves = [batches(feed, order=order, share=(rank, 2)) for rank in range(2)]
        for whole, *parts in zip(expected, *halves, strict=True):
            assert torch.equal(torch.cat([part.inputs for part in parts]), whole.inputs)
        feed.close()
    assert not same(batches(first, order=(5, 3)), expected)
    plain = batches(open_feed(data, cache="none", image_size=[12, 10]), order=order)
    assert not any(map(torch.equal, *([b.inputs for b in found] for found in (plain, expected))))


def test_only_training_is_augmented(tmp_path):
    data = of_files(tmp_path)
    feeds = [
        open_feed(data, image_size=[10, 10], cache="none", augment=augment)
        for augment in ({}, AUGMENT["all"])
    ]
    for part in ("train", "validation", "test"):
        assert same(*(batches(feed, part) for feed in feeds))
    assert torch.equal(feeds[0].inputs.mean, feeds[1].inputs.mean)


@pytest.mark.parametrize("workers", [0, 2])
def test_reading_draws_from_nobodys_generator(tmp_path, workers):
    """Dropout of a training must not change with how its data is read."""
    feed = open_feed(of_files(tmp_path), image_size=[8, 8], augment=AUGMENT["all"], workers=workers)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    steps = feed.steps("train", 16, (0, 0))
    next(steps)
    assert torch.equal(torch.rand(4), expected)
    steps.close()
    feed.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_passes_may_be_left_and_may_run_side_by_side(workers):
    feed = open_feed(of_tensors(), cache="none", workers=workers)
    expected = batches(feed, order=(0, 0))
    next(feed.steps("train", 4, (1, 1)))
    pairs = zip(feed.steps("train", 16, (0, 0)), feed.steps("train", 16, (0, 0)), strict=True)
    for wanted, (one, other) in zip(expected, pairs, strict=True):
        assert FeedContract.same(one[0], wanted)
        assert FeedContract.same(other[0], wanted)
    feed.close()


def test_processes_live_through_epochs_and_end_with_the_feed():
    feed = open_feed(of_tensors(), cache="none", workers=2)
    before = set(multiprocessing.active_children())
    batches(feed, order=(0, 0))
    first = set(multiprocessing.active_children()) - before
    batches(feed, "validation")
    batches(feed, order=(0, 1))
    assert set(multiprocessing.active_children()) - before == first
    assert len(first) == 2
    feed.close()
    gc.collect()
    end = time.monotonic() + 10
    while set(multiprocessing.active_children()) - before and time.monotonic() < end:
        time.sleep(0.05)
    assert not set(multiprocessing.active_children()) - before
    assert batches(feed, order=(0, 0)), "and may be read again"
    feed.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_cannot_be_read_is_one_line_with_its_name_and_row(tmp_path, workers):
    data = of_files(tmp_path)
    path = tmp_path / "train" / "7.jpg"
    path.write_bytes(path.read_bytes()[:400])
    feed = open_feed(data, image_size=[8, 8], cache="none", workers=workers)
    with pytest.raises(
        DataError, match=r"^\S*7\.jpg \(row 7\) must be readable, got .+$"
    ) as caught:
        batches(feed)
    assert "\n" not in str(caught.value)
    assert batches(feed, "validation"), "others can be read"
    feed.close()


def test_what_is_kept_is_said_with_its_size(tmp_path):
    said = []
    data = of_files(tmp_path)
    feed = open_feed(data, say=said.append, image_size=[64, 64])
    assert not said, "nothing is read before it is asked for"
    batches(feed)
    size = sum(SIZES.values()) * 3 * 64 * 64 / 2**20
    assert said == [f"Images are kept in memory: {size:.1f} MiB in each process that trains."]


def test_large_data_is_streamed_by_itself(monkeypatch):
    said = []
    monkeypatch.setattr("recon_search.data.images.SMALL", 86 * 3 * 6 * 8 - 1)
    feed = open_feed(of_tensors(), say=said.append)
    assert same(batches(feed), batches(open_feed(of_tensors(), cache="memory")))
    assert not said
