"""Which way pixels face obeys the contract of tasks."""

import math

import numpy as np
import pytest
import torch

from recon_search.tasks.normals import EVERY, Normals
from tests.tasks.contract import LAW, SEEDS, given, st
from tests.tasks.pixel_contract import SIDES, PixelContract


class TestNormals(PixelContract):
    TASKS = (
        Normals("faces"),
        Normals("one", metrics=["median-angle"], weight=2),
        Normals("a, b: [c]", metrics=["within-30", "mean-angle"]),
    )

    def draw(self, task, n, generator):
        outputs = torch.randn(n, 3, *SIDES, generator=generator)
        targets = torch.randn(n, 3, *SIDES, generator=generator) + outputs
        targets = torch.nn.functional.normalize(targets, dim=1)
        kind = torch.randint(8, (n, 1, *SIDES), generator=generator)
        kind[torch.rand(n, generator=generator) < 0.2] = 0
        targets = targets.masked_fill(kind == 0, 0.0)
        return outputs, targets.masked_fill(kind == 1, math.nan)

    def unlabelled(self, task, targets):
        found = torch.zeros_like(targets)
        found[:, 1, ::2] = math.nan
        return found

    def perfect(self, task, targets):
        right = targets.nan_to_num(0.0)
        return 7 * torch.where((right == 0).all(1, keepdim=True), torch.ones(3, 1, 1), right)

    def known(self, target):
        return target.isfinite().all(0) & (target != 0).any(0)

    def store(self, task, target):
        return np.ascontiguousarray(np.moveaxis(2.5 * target.numpy(), 0, 2))

    def assert_same(self, found, target):
        """What is not valid is zero."""
        torch.testing.assert_close(found, target.nan_to_num(0.0), rtol=1e-5, atol=1e-5)

    def reference(self, task, outputs, targets):
        known = np.stack([self.known(target).numpy() for target in targets])
        p, g = (np.moveaxis(each.numpy(), 1, 3)[known].astype(float) for each in (outputs, targets))
        p, g = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (p, g))
        cosine = (p * g).sum(1)
        angles = np.degrees(np.arccos(cosine.clip(-1, 1)))
        found = {"mean-angle": angles.mean(), "median-angle": np.median(angles)}
        for name in EVERY[2:]:
            found[name] = 100 * (angles < float(name.split("-")[1])).mean()
        return {**{name: found[name] for name in task.metrics}, "loss": (1 - cosine).mean()}

    def assert_close(self, found, expected):
        """The median is known to the bin of its histogram."""
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            if name == "median-angle":
                assert found[name] == pytest.approx(value, abs=0.0051, nan_ok=True)
            else:
                assert found[name] == self.near(value), name


def metered(output, target):
    meter = Normals("a").meter()
    meter.update(output, target)
    return meter.compute()


def row(vectors):
    """Directions of the pixels of an image of one row."""
    return torch.tensor(vectors).float().T[None, :, None]


UP, DOWN, RIGHT, NONE = [0, 0, 1], [0, 0, -1], [1, 0, 0], [0, 0, 0]


@pytest.mark.parametrize(
    ("said", "real", "angle"),
    [
        (UP, UP, 0),
        (UP, DOWN, 180),
        (UP, RIGHT, 90),
        (NONE, UP, 90),
        ([5e4, 5e4, 0], [1e-3, 0, 0], 45),
        ([0.1, 0.2, 0.3], [1, 2, 3], 0),
        ([-0.1, -0.2, -0.3], [1, 2, 3], 180),
    ],
)
def test_an_angle_is_that_of_directions_whatever_their_length(said, real, angle):
    found = metered(row([said]), row([real]))
    assert found["mean-angle"] == pytest.approx(angle, abs=1e-3)
    assert found["median-angle"] == pytest.approx(angle, abs=0.0051)
    assert found["loss"] == pytest.approx(1 - math.cos(math.radians(angle)), abs=1e-6)
    for limit in (11.25, 22.5, 30):
        assert found[f"within-{limit:g}"] == (100 if angle < limit else 0)


def test_pixels_without_a_direction_do_not_count():
    found = metered(row([UP, UP, DOWN, DOWN]), row([UP, RIGHT, NONE, [math.nan] * 3]))
    assert found["mean-angle"] == pytest.approx(45)
    assert found["median-angle"] == pytest.approx(45, abs=0.0051)
    assert found["within-30"] == 50


@LAW
@given(seed=SEEDS, n=st.integers(1, 60))
def test_a_median_is_right_to_half_a_bin(seed, n):
    """Of an even number of angles it is the mean of the two in the middle."""
    degrees = np.random.default_rng(seed).uniform(0, 180, n) ** np.linspace(0.5, 1, n)
    radians = torch.from_numpy(np.radians(degrees))
    said = torch.stack([radians.cos(), radians.sin(), 0 * radians])[None, :, None]
    real = torch.tensor([1.0, 0, 0]).reshape(1, 3, 1, 1).expand(1, 3, 1, n)
    assert metered(said, real)["median-angle"] == pytest.approx(np.median(degrees), abs=0.0051)


def test_a_limit_is_not_within():
    for limit in (11.25, 22.5, 30.0):
        for more, share in ((-0.01, 100), (0.01, 0)):
            angle = math.radians(limit + more)
            said = row([[math.cos(angle), math.sin(angle), 0]])
            assert metered(said, row([RIGHT]))[f"within-{limit:g}"] == share


def test_pictures_of_bytes_are_read_from_minus_one_to_one():
    """Black and grey are no direction."""
    picture = np.array([[[255, 128, 128], [0, 127, 128], [0, 0, 0], [127, 128, 127]]], np.uint8)
    found = Normals("a").target(picture)
    assert found.dtype == torch.float32
    assert found[:, 0, 0].tolist() == pytest.approx([1, 0, 0], abs=0.01)
    assert found[:, 0, 1].tolist() == pytest.approx([-1, 0, 0], abs=0.01)
    assert (found[:, 0, 2:] == 0).all()


def test_both_layouts_are_read():
    directions = np.random.default_rng(0).normal(size=(3, 4, 5))
    first = Normals("a").target(directions)
    assert torch.equal(first, Normals("a").target(np.moveaxis(directions, 0, 2)))
    np.testing.assert_allclose(first.norm(dim=0), 1, rtol=1e-5)


def test_units_are_degrees_and_shares():
    assert Normals("a").units == dict.fromkeys(EVERY[:2], "°") | dict.fromkeys(EVERY[2:], "%")
