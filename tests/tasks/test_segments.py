"""One class a pixel obeys the contract of tasks."""

import math

import numpy as np
import pytest
import torch

from recon_search.errors import LabelError, RecipeError
from recon_search.tasks.metrics import IGNORED
from recon_search.tasks.registry import fit_pixels
from recon_search.tasks.segments import Segments
from tests.tasks.pixel_contract import SIDES, PixelContract


class TestSegments(PixelContract):
    TASKS = (
        Segments("what", 3),
        Segments("two", 2, metrics=["pixel-accuracy"], ignore_index=255, weight=0.5),
        Segments("a, b: [c]", 4, class_names=list("wxyz"), class_weights=[1, 0.5, 2, 3]),
        Segments("many", 300, metrics=["miou"], ignore_index=[-1, 999]),
    )

    def draw(self, task, n, generator):
        outputs = torch.randn(n, task.n_classes, *SIDES, generator=generator)
        # The last class is rare, so that it is often absent.
        share = torch.rand(n, *SIDES, generator=generator) ** 2
        targets = (share * task.n_classes).long()
        missing = torch.rand(n, *SIDES, generator=generator) < 0.3
        missing |= torch.rand(n, 1, 1, generator=generator) < 0.2
        return outputs, targets.masked_fill(missing, IGNORED)

    def unlabelled(self, task, targets):
        return torch.full_like(targets, IGNORED)

    def perfect(self, task, targets):
        one_hot = torch.nn.functional.one_hot(targets.clamp(min=0), task.n_classes)
        return 40.0 * one_hot.movedim(-1, 1)

    def known(self, target):
        return target != IGNORED

    def store(self, task, target):
        stored = target.numpy().astype(np.int16)
        return np.where(stored == IGNORED, task.ignore_index[-1], stored)

    def as_stored(self, task, picture):
        assert picture.dtype == (torch.uint8 if task.n_classes <= 256 else torch.int16)
        return picture.numpy()

    def options(self, task):
        options = super().options(task)
        weights = options.pop("class_weights", None)
        assert weights is None or len(weights) == task.n_classes
        if names := options.pop("class_names", None):
            options["classes"] = names
            del options["n_classes"]
        return options

    def test_a_task_is_made_of_its_options(self):
        for task in self.TASKS:
            if not task.class_weights:  # these are scaled by the pixels of the training part
                assert fit_pixels(task.name, iter(()), self.options(task)) == task

    def reference(self, task, outputs, targets):
        scores = np.moveaxis(outputs.double().numpy(), 1, -1)
        known = targets.numpy() != IGNORED
        real, scores = targets.numpy()[known], scores[known]
        said = scores.argmax(1)
        ious = []
        for index in range(task.n_classes):
            union = ((real == index) | (said == index)).sum()
            if union:
                ious.append(((real == index) & (said == index)).sum() / union)
        found = {"miou": 100 * np.mean(ious), "pixel-accuracy": 100 * (real == said).mean()}
        own = scores[np.arange(len(real)), real]
        losses = np.log(np.exp(scores - own[:, None]).sum(1))
        weights = np.array(task.class_weights or [1.0] * task.n_classes)[real]
        expected = {name: found[name] for name in task.metrics}
        return {**expected, "loss": (weights * losses).mean()}


def scores_of(classes, n):
    """Outputs that say these classes (B, H, W)."""
    return torch.nn.functional.one_hot(torch.tensor(classes), n).movedim(-1, 1).float()


def metered(task, *batches):
    meter = task.meter()
    for output, target in batches:
        meter.update(output, target)
    return meter.compute()


def test_a_class_that_neither_occurs_nor_is_predicted_has_no_iou():
    """Of class 0: 2 of 3; of 1: 1 of 2; of 2, which is only predicted: 0; of 3: none."""
    target = torch.tensor([[[0, 0, 1, 1, IGNORED]]])
    said = scores_of([[[0, 0, 1, 0, 3]]], 4)
    found = metered(Segments("a", 4), (said, target))
    assert found["miou"] == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)
    assert found["pixel-accuracy"] == 75
    found = metered(Segments("a", 4), (scores_of([[[0, 0, 1, 2, 3]]], 4), target))
    assert found["miou"] == pytest.approx(100 * (1 + 1 / 2 + 0) / 3)


def test_miou_is_of_the_part_and_not_a_mean_over_images():
    """Class 1 is right in a large image and wrong in a small one."""
    task = Segments("a", 2)
    large = scores_of([[[1, 1, 1, 0]]], 2), torch.tensor([[[1, 1, 1, 0]]])
    small = scores_of([[[0]]], 2), torch.tensor([[[1]]])
    assert metered(task, large)["miou"] == 100
    assert metered(task, small)["miou"] == 0
    assert metered(task, large, small)["miou"] == pytest.approx(100 * (3 / 4 + 1 / 2) / 2)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.array([[0, 3]]), "from 0 to 2, found 3 in 1 pixels"),
        (np.array([[-2, -2]]), "from 0 to 2, found -2 in 2 pixels"),
        (np.array([[255, 0]], dtype=np.uint8), "found 255 in 1 pixels.*`ignore_index`"),
        (np.array([[0.5, 1]]), "whole numbers, found 0.5 in 1 pixels"),
        (np.array([[np.nan, 1]]), "whole numbers, found nan in 1 pixels"),
        (np.zeros((2, 2, 3)), r"one number a pixel, \(H, W\), found the shape \(2, 2, 3\)"),
    ],
)
def test_a_mask_that_is_of_no_use_is_one_line(picture, message):
    for read in (
        Segments("a", 3).target,
        lambda given: fit_pixels(
            "a", [given], {"kind": "segments", "n_classes": 3, "class_weights": "balanced"}
        ),
    ):
        with pytest.raises(LabelError, match=message) as caught:
            read(picture)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1), (1, 2, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64, np.float32])
def test_a_mask_is_read_whatever_its_channels_and_type(shape, dtype):
    mask = np.arange(6).reshape(shape).astype(dtype)
    found = Segments("a", 6).target(mask)
    assert found.dtype == torch.int64
    assert found.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_values_to_be_ignored_are_no_label():
    mask = np.array([[-1, 0, 255, 7]])
    assert Segments("a", 8, ignore_index=[-1, 255]).target(mask).tolist() == [
        [IGNORED, 0, IGNORED, 7]
    ]
    assert Segments("a", 8, ignore_index=[-1, 255, 7]).target(mask).tolist()[0][3] == IGNORED


MASKS = [np.array([[0, 1], [1, -1]]), np.array([[1, 3]])]


@pytest.mark.parametrize(
    ("options", "made"),
    [
        ({}, Segments("a", 4)),
        ({"n_classes": 5}, Segments("a", 5)),
        ({"classes": ["w", "x", "y", "z"]}, Segments("a", 4, class_names=("w", "x", "y", "z"))),
        ({"ignore_index": [-1, 3]}, Segments("a", 2, ignore_index=(-1, 3))),
        ({"class_weights": "balanced"}, Segments("a", 4, class_weights=(1, 1 / 3, 1, 1))),
        ({"n_classes": 4, "class_weights": [1, 1, 1, 1]}, Segments("a", 4, class_weights=[1] * 4)),
    ],
)
def test_classes_are_those_of_the_masks_unless_they_are_named(options, made):
    found = fit_pixels("a", iter(MASKS), {"kind": "segments", **options})
    weights = np.array(found.class_weights)
    if weights.size:  # one on average over pixels
        assert (weights * [1, 3, 0, 1]).sum() == pytest.approx(5)
        made_weights = np.array(made.class_weights)
        np.testing.assert_allclose(weights / weights[0], made_weights / made_weights[0])
    else:
        assert found == made


def test_masks_are_not_looked_at_where_classes_are_named():
    def pictures():
        raise AssertionError
        yield

    fit_pixels("a", pictures(), {"kind": "segments", "n_classes": 3})


def test_a_lonely_255_is_asked_about():
    mask = np.array([[0, 1], [2, 255]])
    with pytest.raises(LabelError, match="told what 255 means, found it in 1 pixels") as caught:
        fit_pixels("a", [mask], {"kind": "segments"})
    assert "\n" not in str(caught.value)
    assert fit_pixels("a", [mask], {"kind": "segments", "ignore_index": 255}).n_classes == 3
    assert fit_pixels("a", [mask], {"kind": "segments", "n_classes": 256}).n_classes == 256
    assert fit_pixels("a", [mask, mask - 1], {"kind": "segments"}).n_classes == 256


@pytest.mark.parametrize("masks", [[], [np.array([[-1, -1]])], [np.zeros((2, 2))]])
def test_masks_of_less_than_two_classes_are_one_line(masks):
    with pytest.raises(LabelError, match="must have at least two classes in the masks"):
        fit_pixels("a", masks, {"kind": "segments"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_classes": 1}, "`n_classes` must be a whole number of at least 2, got 1"),
        ({"n_classes": "3"}, "`n_classes` must be a whole number of at least 2, got '3'"),
        ({"n_classes": 3, "classes": ["x"]}, "`class_names` must be 3 names"),
        ({"n_classes": 3, "class_weights": [1, 0, 1]}, "`class_weights` must be 3 finite"),
        ({"n_classes": 3, "ignore_index": 0.5}, "`ignore_index` must be a whole number"),
        ({"n_classes": 3, "ignore_index": [1, 1]}, "`ignore_index` must be .* different ones"),
        ({"n_classes": 3, "ignore_index": True}, "`ignore_index` must be a whole number"),
    ],
)
def test_an_argument_that_is_of_no_use_is_one_line(arguments, message):
    with pytest.raises(RecipeError, match=message) as caught:
        fit_pixels("a", MASKS[:1], {"kind": "segments", **arguments})
    assert "\n" not in str(caught.value)


def test_weights_of_classes_weigh_pixels():
    task = Segments("a", 2, class_weights=[3, 1])
    output, target = torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]])
    assert task.loss(output, target) == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize("value", [2**64 - 1, 2**63])
def test_a_number_that_would_become_another_one_is_one_line(value):
    """As int64 the largest is -1, which stands for no label."""
    with pytest.raises(LabelError, match=r"64 bits hold with a sign, found (1.8|9.2)") as caught:
        Segments("a", 3).target(np.full((2, 2), value, np.uint64))
    assert "\n" not in str(caught.value)
