"""Borders and saliency obey the contract of tasks."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from recon_search.errors import LabelError, RecipeError
from recon_search.tasks.edge_metrics import EDGES, largest_around
from recon_search.tasks.edges import Edges
from recon_search.tasks.metrics import IGNORED
from tests.tasks.pixel_contract import SIDES, PixelContract

EVERY = tuple(EDGES)


class TestEdges(PixelContract):
    TASKS = (
        Edges("borders", metrics=EVERY),
        Edges("near", metrics=["boundary-f", "max-f"], tolerance=0, ignore_index=255),
        Edges("fixed", positive_weight=0.95, ignore_index=255),
        Edges("salient", metrics=["f1"], threshold=127, weight=5, ignore_index=[254, 255]),
    )

    def draw(self, task, n, generator):
        targets = (torch.rand(n, *SIDES, generator=generator) < 0.2).long()
        outputs = 2 * torch.randn(n, 1, *SIDES, generator=generator) + targets[:, None] - 1
        missing = torch.rand(n, *SIDES, generator=generator) < 0.3
        missing |= torch.rand(n, 1, 1, generator=generator) < 0.2
        return outputs, targets.masked_fill(missing, IGNORED)

    def unlabelled(self, task, targets):
        return torch.full_like(targets, IGNORED)

    def perfect(self, task, targets):
        return (40.0 * (2 * targets.clamp(min=0) - 1))[:, None]

    def known(self, target):
        return target != IGNORED

    def store(self, task, target):
        if not task.ignore_index:
            target = target.where(target != IGNORED, 0)  # all is known in such files
        value = 200 if task.threshold else 1
        stored = np.where(target == 1, value, 0)
        return np.where(target == IGNORED, (*task.ignore_index, 0)[0], stored).astype(np.uint8)

    def as_stored(self, task, picture):
        return (200 * picture.round()).numpy()

    def test_what_files_hold_is_read_whatever_holds_it(self):
        for task in self.TASKS[1:]:
            _, targets = self.sample(task, 3, 0)
            for target in targets:
                stored = self.store(task, target)
                for picture in (stored, torch.from_numpy(stored), stored.astype(np.float32)):
                    found = task.target(picture)
                    assert found.dtype == torch.int64
                    assert torch.equal(found, target)

    def reference(self, task, outputs, targets):
        losses, n = 0.0, 0
        shares, reals, images = [], [], []
        for output, target in zip(outputs[:, 0].double().numpy(), targets.numpy(), strict=True):
            known = target != IGNORED
            z, y = output[known], target[known] == 1
            if not y.size:
                continue
            p = 1 / (1 + np.exp(-z))
            beta = 1 - y.mean() if task.positive_weight == "balanced" else task.positive_weight
            losses -= (beta * np.log(p[y])).sum() + ((1 - beta) * np.log(1 - p[~y])).sum()
            n += y.size
            shares.append(p)
            reals.append(y)
            images.append((p, y))
        p, y = np.concatenate(shares), np.concatenate(reals)

        def f1(threshold):
            said = p >= threshold
            total = said.sum() + y.sum()
            return 2 * (said & y).sum() / total if total else 0.0

        found = {
            "best-f1": max(f1(step / 100) for step in range(1, 100)),
            "f1": f1(0.5),
            "accuracy": ((p >= 0.5) == y).mean(),
            "boundary-f": max(f1(step / 100) for step in range(1, 100)),  # tolerating no pixel
            **salient(images),
        }
        return {**{name: 100 * found[name] for name in task.metrics}, "loss": losses / n}


def salient(images):
    """Jaccard index and F of what is salient, threshold by threshold, image by image."""
    jaccards, fs = [], []
    for threshold in np.linspace(0.2, 0.9, 15).round(2):
        rows = []
        for p, y in images:
            said = p > threshold
            hit, either = (said & y).sum(), (said | y).sum()
            shares = [hit / max(n, 1) for n in (either, said.sum(), y.sum())]
            rows.append(shares if either else [1, 1, 1])
        jaccard, precision, recall = np.mean(rows, 0)
        jaccards.append(jaccard)
        fs.append(2 * precision * recall / (precision + recall) if precision + recall else 0)
    return {"best-jaccard": max(jaccards), "max-f": max(fs)}


def metered(task, *batches):
    meter = task.meter()
    for output, target in batches:
        meter.update(output, target)
    return meter.compute()


def test_the_best_threshold_is_one_for_the_whole_part():
    """At 0.5 one of two borders is found, at 0.3 both, with a false one."""
    shares = torch.tensor([[[[0.9, 0.35, 0.32, 0.1]]]])
    target = torch.tensor([[[1, 1, 0, 0]]])
    task = Edges("a", metrics=EVERY)
    found = metered(task, (shares.logit(), target))
    assert found["f1"] == pytest.approx(100 * 2 / 3)
    assert found["accuracy"] == 75
    assert found["best-f1"] == 100  # from 0.33 to 0.35
    other = torch.tensor([[[[0.345]]]]).logit(), torch.tensor([[[0]]])
    assert metered(task, (shares.logit(), target), other)["best-f1"] == pytest.approx(100)
    third = torch.tensor([[[[0.355]]]]).logit(), torch.tensor([[[0]]])
    assert metered(task, (shares.logit(), target), third)["best-f1"] == pytest.approx(80)


def test_borders_weigh_as_much_as_all_else_in_each_image():
    """HED's beta, image by image; where there is no border there is nothing to balance."""
    target = torch.tensor([[[1, 0, 0, 0]], [[1, 1, 0, IGNORED]], [[0, 0, 0, 0]]])
    output = torch.zeros(3, 1, 1, 4)
    task = Edges("a")
    expected = [2 * 3 / 16, 2 * 2 / 9, 0]
    for index, share in enumerate(expected):
        one = slice(index, index + 1)
        assert task.loss(output[one], target[one]) == pytest.approx(share * math.log(2))
    pooled = (4 * expected[0] + 3 * expected[1]) / 11
    assert task.loss(output, target) == pytest.approx(pooled * math.log(2))


def test_without_a_border_no_share_of_them_is_found():
    target = torch.zeros(1, 2, 2, dtype=torch.long)
    found = metered(Edges("a", metrics=EVERY), (torch.full((1, 1, 2, 2), -9.0), target))
    assert (found["f1"], found["best-f1"], found["accuracy"]) == (0, 0, 100)


@pytest.mark.parametrize("tolerance", [0.0, 0.05, 0.1, 0.13, 1.0])
@pytest.mark.parametrize("sides", [(15, 20), (1, 9), (9, 1)])
def test_borders_are_found_within_the_tolerance_as_distances_say(sides, tolerance):
    """By a distance transform at each threshold, over images with pixels that are not known."""
    limit = tolerance * math.hypot(*sides)
    generator = np.random.default_rng(0)
    batches, counts = [], np.zeros((99, 4))
    for share in (0.05, 0.1, 0.0):
        p = (0.98 * generator.random((2, *sides)) ** 3 + 0.01).round(3) + 0.0005
        target = (generator.random((2, *sides)) < share).astype(int)
        target[generator.random((2, *sides)) < 0.2] = IGNORED
        batches.append((torch.from_numpy(p).logit()[:, None], torch.from_numpy(target)))
        for image, real in zip(p, target, strict=True):
            for step in range(99):
                said, yes = (image >= (step + 1) / 100) & (real != IGNORED), real == 1
                near = [near_to(yes, limit)[said].sum(), near_to(said, limit)[yes].sum()]
                counts[step] += [*near, said.sum(), yes.sum()]
    near, found, n_said, n_yes = counts.T
    precision, recall = near / np.maximum(n_said, 1), found / np.maximum(n_yes, 1)
    wanted = max(2 * precision * recall / np.maximum(precision + recall, 1e-9))
    task = Edges("a", metrics=["boundary-f", "best-f1"], tolerance=tolerance)
    values = metered(task, *batches)
    assert values["boundary-f"] == pytest.approx(100 * wanted)
    assert values["boundary-f"] >= values["best-f1"] - 1e-9
    if limit < 1:
        assert values["boundary-f"] == pytest.approx(values["best-f1"])


def near_to(pixels, limit):
    """Where one of some pixels is at most so far away."""
    if not pixels.any():
        return np.zeros_like(pixels)
    return ndimage.distance_transform_edt(~pixels) <= limit


def test_a_border_that_is_a_pixel_off_is_found_and_one_that_is_two_is_not():
    target = torch.zeros(1, 60, 80, dtype=torch.long)  # a tolerance of 0.75 of its diagonal's 100
    target[:, :, 40] = 1
    for tolerance, off, wanted in ((0.0075, 0, 100), (0.0075, 1, 0), (0.01, 1, 100), (0.01, 2, 0)):
        output = torch.full((1, 1, 60, 80), -9.0)
        output[..., 40 + off] = 9
        task = Edges("a", metrics=["boundary-f"], tolerance=tolerance)
        assert metered(task, (output, target))["boundary-f"] == pytest.approx(wanted)


@pytest.mark.parametrize("radius", [0, 0.9, 1, 1.5, 2.24, 3, 40])
def test_the_largest_around_is_that_of_a_disk(radius):
    maps = torch.rand(2, 1, 7, 9, dtype=torch.double)
    rows, columns = np.mgrid[-8:9, -8:9]
    disk = rows**2 + columns**2 <= radius**2
    for found, own in zip(largest_around(maps, radius), maps, strict=True):
        wanted = ndimage.maximum_filter(own[0].numpy(), footprint=disk, mode="constant")
        assert np.array_equal(found[0], wanted)


def test_salient_images_count_alike_whatever_their_size_and_empty_ones_may_be_right():
    """A small image that is wholly right, a large one that is half right, and two of nothing."""
    task = Edges("a", metrics=["best-jaccard", "max-f", "best-f1"])
    small = torch.tensor([[[[9.0, -9.0]]]]), torch.tensor([[[1, 0]]])
    large = torch.full((1, 1, 10, 10), 9.0), torch.ones(1, 10, 10, dtype=torch.long)
    large[1][0, :5] = 0
    nothing = torch.full((1, 1, 2, 2), -9.0), torch.zeros(1, 2, 2, dtype=torch.long)
    unknown = nothing[0], torch.full((1, 2, 2), IGNORED)
    found = metered(task, small, large)
    assert found["best-jaccard"] == pytest.approx(100 * (1 + 0.5) / 2)
    assert found["max-f"] == pytest.approx(100 * 2 * 0.75 / 1.75)
    found = metered(task, small, large, nothing, unknown)
    assert found["best-jaccard"] == pytest.approx(100 * (1 + 0.5 + 1) / 3)
    both = torch.cat([nothing[0], nothing[0]]), torch.cat([nothing[1], unknown[1]])
    assert metered(task, small, large, both) == pytest.approx(found, abs=1e-9)


@pytest.mark.parametrize(
    ("picture", "options", "expected"),
    [
        (np.array([[True, False]]), {}, [1, 0]),
        (np.array([[255, 0]], np.uint8), {}, [1, 0]),
        (np.array([[255, 0, 1]], np.uint8), {"ignore_index": 255}, [IGNORED, 0, 1]),
        (np.array([[0.7, 0.5, 0.2]]), {"threshold": 0.5}, [1, 0, 0]),
        (np.array([[[200], [127]]], np.uint8), {"threshold": 127}, [1, 0]),
        (np.array([[-1, 1]]), {"ignore_index": -1}, [IGNORED, 1]),
    ],
)
def test_what_is_above_the_threshold_is_yes(picture, options, expected):
    assert Edges("a", **options).target(picture).tolist() == [expected]


@pytest.mark.parametrize("value", [-1, math.nan, -math.inf])
def test_what_is_below_zero_is_one_line(value):
    with pytest.raises(LabelError, match=r"numbers from 0 on, found .* in 1 pixels") as caught:
        Edges("a").target(np.array([[value, 1]]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"positive_weight": 1}, r"`positive_weight` must be a finite number in \(0, 1\), or"),
        ({"positive_weight": "blanced"}, "`positive_weight` must be .*got 'blanced'"),
        ({"tolerance": 1.5}, r"`tolerance` must be a finite number in \[0, 1\], got 1.5"),
        ({"threshold": -1}, "`threshold` must be a finite number from 0 on, got -1"),
        ({"ignore_index": "255"}, "`ignore_index` must be a whole number"),
    ],
)
def test_an_argument_that_is_of_no_use_is_one_line(arguments, message):
    with pytest.raises(RecipeError, match=message) as caught:
        Edges("a", **arguments)
    assert "\n" not in str(caught.value)
