"""How far each pixel is obeys the contract of tasks."""

import math

import numpy as np
import pytest
import torch

from recon_search.errors import RecipeError
from recon_search.tasks.depth import Depth
from tests.tasks.contract import LAW, SEEDS, given, st
from tests.tasks.pixel_contract import SIDES, PixelContract

EVERY = ("abs-error", "rel-error", "rmse")
INVALID = (math.nan, 0.0, -1.0, math.inf, -math.inf)


class TestDepth(PixelContract):
    TASKS = (
        Depth("far", metrics=EVERY, unit="m"),
        Depth("plain", weight=3),
        Depth("log", metrics=EVERY, criterion="silog"),
        Depth("invariant", criterion="silog", invariance=1, metrics=["rmse"]),
        Depth("millimetres", scale=0.001, metrics=["rel-error"]),
    )

    def draw(self, task, n, generator):
        outputs = torch.randn(n, 1, *SIDES, generator=generator)
        if task.criterion == "l1":
            outputs = outputs + 2
        targets = (0.5 * torch.randn(n, *SIDES, generator=generator)).exp()
        kind = torch.randint(15, (n, *SIDES), generator=generator)
        kind[torch.rand(n, generator=generator) < 0.2] = 0
        for index, value in enumerate(INVALID):
            targets[kind == index] = value
        return outputs, targets

    def unlabelled(self, task, targets):
        filler = torch.tensor(INVALID).repeat(targets.numel() // 5 + 1)
        return filler[: targets.numel()].reshape(targets.shape)

    def perfect(self, task, targets):
        right = targets.nan_to_num(1, 1, 1).clamp(min=1e-3)[:, None]
        return right.log() if task.criterion == "silog" else right

    def known(self, target):
        return target.isfinite() & (target > 0)

    def store(self, task, target):
        return target.numpy() / np.float32(task.scale)

    def as_stored(self, task, picture):
        return picture.numpy() / task.scale

    def assert_same(self, found, target):
        """What is not valid is nan."""
        known = self.known(target)
        torch.testing.assert_close(found[known], target[known], rtol=1e-5, atol=1e-5)
        assert found[~known].isnan().all()

    def reference(self, task, outputs, targets):
        known, real, said = self.known(targets).numpy(), targets.numpy(), outputs.numpy()[:, 0]
        depth = (np.exp(said) if task.criterion == "silog" else said)[known].astype(np.float64)
        g = real[known].astype(np.float64)
        error = abs(depth - g)
        found = {
            "abs-error": error.mean(),
            "rel-error": (error / g).mean(),
            "rmse": np.sqrt((error**2).mean()),
        }
        loss = error.mean()
        if task.criterion == "silog":
            parts = []
            for own, true, log in zip(known, real, said, strict=True):
                if own.any():
                    d = log[own] - np.log(true[own])
                    mean = (d**2).mean() - task.invariance * d.mean() ** 2
                    parts.append((own.sum(), mean))
            loss = sum(n * each for n, each in parts) / sum(n for n, _ in parts)
        return {**{name: found[name] for name in task.metrics}, "loss": loss}


def metered(task, *batches):
    meter = task.meter()
    for output, target in batches:
        meter.update(output, target)
    return meter.compute()


def test_errors_are_those_of_valid_pixels_alone():
    """Of 2 m that are 1 m off, and of 4 m that are 3 m off."""
    output = torch.tensor([[[[3.0, 1.0, 50.0, 50.0]]]])
    target = torch.tensor([[[2.0, 4.0, 0.0, math.nan]]])
    task = Depth("a", metrics=EVERY)
    found = metered(task, (output, target))
    assert found["abs-error"] == 2
    assert found["rel-error"] == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert found["rmse"] == pytest.approx(math.sqrt((1 + 9) / 2))
    assert found["loss"] == 2
    assert task.n_labels(target) == 2


def test_an_image_with_few_valid_pixels_weighs_little():
    """A mean over batches would be 2.5: what it says depends on how images are batched."""
    task = Depth("a")
    many = torch.full((1, 1, 1, 3), 2.0), torch.ones(1, 1, 3)
    few = torch.full((1, 1, 1, 3), 5.0), torch.tensor([[[1.0, 0.0, 0.0]]])
    assert metered(task, many, few)["abs-error"] == pytest.approx((3 * 1 + 4) / 4)


@LAW
@given(seed=SEEDS, factor=st.floats(0.1, 10))
def test_a_fully_invariant_loss_does_not_change_with_the_scale_of_a_prediction(seed, factor):
    generator = torch.Generator().manual_seed(seed)
    output = torch.randn(3, 1, 4, 5, generator=generator)
    target = torch.rand(3, 4, 5, generator=generator) + 0.5
    invariant = Depth("a", criterion="silog", invariance=1)
    loss = invariant.loss(output + math.log(factor), target)
    assert loss == pytest.approx(float(invariant.loss(output, target)), rel=1e-3, abs=1e-5)


def test_stored_depths_are_brought_to_the_unit():
    stored = np.array([[1500, 0, 65535]], dtype=np.uint16)
    found = Depth("a", unit="m", scale=0.001).target(stored)
    assert found.dtype == torch.float32
    assert found[0, [0, 2]].tolist() == pytest.approx([1.5, 65.535])
    assert found[0, 1].isnan()


@pytest.mark.parametrize("shape", [(1, 2), (1, 2, 1), (1, 1, 2)])
def test_depths_are_read_whatever_their_channels(shape):
    assert Depth("a").target(np.array([1.0, 2.5]).reshape(shape)).tolist() == [[1, 2.5]]


def test_units_are_the_users_but_of_a_relative_error():
    assert Depth("a", unit="m", metrics=EVERY).units == {
        "abs-error": "m",
        "rel-error": "",
        "rmse": "m",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"criterion": "l2"}, "`criterion` must be among l1, silog, got 'l2'"),
        ({"invariance": 2}, r"`invariance` must be a finite number in \[0, 1\], got 2"),
        ({"scale": 0}, "`scale` must be a finite number above 0, got 0"),
        ({"unit": 3}, "`unit` must be a text, got 3"),
    ],
)
def test_an_argument_that_is_of_no_use_is_one_line(arguments, message):
    with pytest.raises(RecipeError, match=message) as caught:
        Depth("a", **arguments)
    assert "\n" not in str(caught.value)
