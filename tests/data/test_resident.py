"""Data held in tensors obeys the contract of feeds."""

import pytest
import torch

from recon_search.data.resident import Part, ResidentFeed
from recon_search.data.source import Schema
from recon_search.tasks.classes import IGNORED, Classes
from tests.data.contract import FeedContract


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


def test_statistics_are_those_of_a_double_copy():
    feed = make_feed()
    copy = feed.parts["train"].inputs.double() / 255
    torch.testing.assert_close(feed.inputs.mean, copy.mean((0, 2, 3)).float(), rtol=0, atol=0)
    torch.testing.assert_close(feed.inputs.std, copy.std((0, 2, 3)).float(), rtol=1e-6, atol=0)


def test_a_channel_without_contrast_is_not_divided_by_zero():
    feed = make_feed(channels=1)
    feed.parts["train"].inputs.fill_(7)
    assert feed.inputs.normalise(feed.parts["train"].inputs).isfinite().all()
