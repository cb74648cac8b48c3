"""Data held in tensors obeys the contract of feeds."""

import pytest
import torch

from recon_search.data.registry import find_source
from recon_search.data.resident import Part, ResidentFeed
from recon_search.data.source import Schema
from recon_search.recipe import DataConfig
from recon_search.tasks.classes import IGNORED, Classes
from tests.data.contract import FeedContract
from tests.idx import write_item_set


def make_feed(n=45, channels=3, missing=0):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(256, (n, channels, 4, 5), generator=generator, dtype=torch.uint8)
    targets = {task: torch.randint(3, (n,), generator=generator) for task in "ab"}
    targets["b"][:missing] = IGNORED
    part = Part(inputs, targets)
    tasks = (Classes("a", 3), Classes("b", 3))
    schema = Schema(tasks, (channels, 4, 5), frozenset("a" if missing else "ab"))
    return ResidentFeed(schema, {"train": part, "validation": part, "test": part})


class TestResident(FeedContract):
    @pytest.fixture
    def feed(self):
        return make_feed()


class TestPartial(FeedContract):
    @pytest.fixture
    def feed(self):
        return make_feed(channels=1, missing=30)


class TestFewerThanAStep(FeedContract):
    """Batches are larger than some parts."""

    SIZE = 20

    @pytest.fixture
    def feed(self):
        feed = make_feed()
        few = dict.fromkeys(("validation", "test"), feed.parts["train"].inputs[:5])
        targets = {task: target[:5] for task, target in feed.parts["train"].targets.items()}
        parts = {name: Part(inputs, targets) for name, inputs in few.items()}
        return ResidentFeed(feed.schema, {**feed.parts, **parts})


class TestDigits(FeedContract):
    """What `[data]` names."""

    @pytest.fixture
    def feed(self, data):
        return data


class TestItems(FeedContract):
    """Pairs of items from IDX files."""

    @pytest.fixture
    def feed(self, tmp_path):
        for name in ("mnist", "fashion-mnist"):
            write_item_set(tmp_path / name)
        config = DataConfig(
            name="multi-fashion-mnist", root=str(tmp_path), train=45, validation=9, test=30
        )
        return find_source(config).open(torch.device("cpu"))


def test_statistics_are_those_of_a_double_copy():
    feed = make_feed()
    copy = feed.parts["train"].inputs.double() / 255
    torch.testing.assert_close(feed.inputs.mean, copy.mean((0, 2, 3)).float(), rtol=0, atol=0)
    torch.testing.assert_close(feed.inputs.std, copy.std((0, 2, 3)).float(), rtol=1e-6, atol=0)


def test_a_channel_without_contrast_is_not_divided_by_zero():
    feed = make_feed(channels=1)
    feed.parts["train"].inputs.fill_(7)
    assert feed.inputs.normalise(feed.parts["train"].inputs).isfinite().all()
