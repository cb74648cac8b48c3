"""Ways of training and judging in which papers differ, by hand and against other computations."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from recon_search.errors import RecipeError
from recon_search.tasks.binary import Binary
from recon_search.tasks.depth import Depth
from recon_search.tasks.edges import Edges
from recon_search.tasks.metrics import IGNORED
from recon_search.tasks.normals import Normals
from recon_search.tasks.scoring import delta_m
from recon_search.tasks.segments import Segments
from tests.tasks.contract import LAW


def metered(task, outputs, targets, cuts=()):
    """Metrics of what comes in batches."""
    meter = task.meter()
    for output, target in zip(
        torch.tensor_split(outputs, cuts), torch.tensor_split(targets, cuts), strict=True
    ):
        meter.update(output, target)
    return meter.compute()


def test_errors_of_each_image_weigh_alike_with_test_batches_of_one():
    """An image of three valid pixels and an error of 1, one of one pixel and 4, one of none."""
    outputs = torch.tensor([[2.0, 2, 2], [5, 9, 9], [7, 7, 7]]).reshape(3, 1, 1, 3)
    targets = torch.tensor([[1.0, 1, 1], [1, 0, 0], [0, 0, 0]]).reshape(3, 1, 3)
    assert metered(Depth("a"), outputs, targets)["abs-error"] == 7 / 4
    assert metered(Depth("a", test_batch=1), outputs, targets)["abs-error"] == (1 + 4) / 2
    assert metered(Depth("a", test_batch=2), outputs, targets)["abs-error"] == 7 / 4
    assert metered(Depth("a", test_batch=9), outputs, targets)["abs-error"] == 7 / 4


@LAW
@given(seed=st.integers(0, 10**6), size=st.integers(1, 4), cut=st.lists(st.integers(1, 6)))
def test_test_batches_are_the_same_however_samples_come(seed, size, cut):
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(7, 3, 2, 2, generator=generator)
    targets = torch.nn.functional.normalize(torch.randn(7, 3, 2, 2, generator=generator), dim=1)
    targets[2 : 3 + seed % 2] = 0  # without a label, and yet in their places
    task = Normals("a", test_batch=size)
    found = metered(task, outputs, targets, sorted(set(cut)))
    parts = [
        metered(Normals("a"), own, real)
        for own, real in zip(outputs.split(size), targets.split(size), strict=True)
    ]
    for name in task.metrics:
        assert found[name] == pytest.approx(np.nanmean([part[name] for part in parts]))


@pytest.mark.parametrize("kind", [Depth, Normals])
@pytest.mark.parametrize("size", [-1, 1.5, True])
def test_a_test_batch_that_is_none_is_one_line(kind, size):
    with pytest.raises(
        RecipeError, match="`test_batch` must be a whole number of images"
    ) as caught:
        kind("a", test_batch=size)
    assert "\n" not in str(caught.value)


def test_directions_that_are_opposite_are_180_degrees_apart_and_equal_ones_0():
    targets = torch.tensor([0.0, 0, 1]).reshape(1, 3, 1, 1).expand(1, 3, 1, 2).clone()
    outputs = targets * torch.tensor([5.0, -0.1])
    found = metered(Normals("a"), outputs, targets)
    assert found["mean-angle"] == pytest.approx(90)
    assert found["within-11.25"] == 50


def test_l1_of_normals_is_of_directions_and_of_components():
    """Of (1, 0, 0) told (0, 2, 0): 1, 1 and 0 of three components; the second is not valid."""
    targets = torch.tensor([[1.0, 0], [0, 0], [0, 0]]).reshape(1, 3, 1, 2)
    outputs = torch.tensor([[0.0, 3], [2, 3], [0, 3]]).reshape(1, 3, 1, 2)
    assert float(Normals("a", criterion="l1").loss(outputs, targets)) == pytest.approx(2 / 3)
    with pytest.raises(RecipeError, match="`criterion` must be among cosine, l1"):
        Normals("a", criterion="l2")


def test_an_absent_class_has_no_part_in_miou():
    """Three of four pixels are right: IoU of 2/3 and 1/2, and none of what is not there."""
    outputs = torch.nn.functional.one_hot(torch.tensor([[[0, 0, 1, 0]]]), 5)
    outputs = outputs.movedim(-1, 1).float()
    targets = torch.tensor([[[0, 0, 1, 1]]])
    assert metered(Segments("a", 5), outputs, targets)["miou"] == pytest.approx(
        100 * (2 / 3 + 1 / 2) / 2
    )


def test_saliency_is_judged_at_the_best_threshold_of_all_images():
    """At 0.5 and above both images have an IoU of 1/2 and 1; below, 1/3 and 1."""
    shares = torch.tensor([[0.95, 0.3, 0.1, 0.1], [0.6, 0.1, 0.1, 0.99]]).reshape(2, 1, 1, 4)
    targets = torch.tensor([[1, 0, 1, 0], [1, 0, 0, IGNORED]]).reshape(2, 1, 4)
    task = Edges("a", metrics=("best-jaccard", "accuracy"))
    found = metered(task, shares.logit(), targets)
    assert found["best-jaccard"] == pytest.approx(100 * (1 / 2 + 1) / 2)
    assert found["accuracy"] == pytest.approx(100 * 6 / 7)
    nothing = metered(task, shares.logit(), torch.full_like(targets, IGNORED))
    assert math.isnan(nothing["best-jaccard"])


@LAW
@given(seed=st.integers(0, 10**6), cut=st.integers(1, 3))
def test_saliency_is_that_of_another_computation(seed, cut):
    generator = np.random.default_rng(seed)
    share = generator.random((4, 30))
    real = generator.random((4, 30)) < generator.random((4, 1))
    every = []
    for threshold in np.linspace(0.2, 0.9, 15):
        said = share > threshold
        every.append(
            np.mean(
                [(a & b).sum() / max((a | b).sum(), 1e-9) for a, b in zip(said, real, strict=True)]
            )
        )
    outputs = torch.from_numpy(share).logit().reshape(4, 1, 5, 6)
    targets = torch.from_numpy(real).long().reshape(4, 5, 6)
    found = metered(Edges("a", metrics=("best-jaccard",)), outputs, targets, [cut])
    assert found["best-jaccard"] == pytest.approx(100 * max(every))


@LAW
@given(seed=st.integers(0, 10**6))
def test_the_area_under_the_curve_is_that_of_scikit_learn(seed):
    generator = np.random.default_rng(seed)
    scores = generator.integers(-5, 5, 40) / 2  # with ties
    real = generator.integers(0, 2, 40)
    real[:2] = 0, 1
    found = metered(
        Binary("a", metrics=("auroc",)), torch.tensor(scores)[:, None], torch.tensor(real), [13]
    )
    assert found["auroc"] == pytest.approx(100 * roc_auc_score(real, scores))


BASE = {
    "seg": {"miou": 38.30, "acc": 63.76},
    "depth": {"abs": 0.6754, "rel": 0.2780},
    "normal": {"mean": 25.01, "median": 19.21, "11": 30.14, "22": 57.20, "30": 69.15},
}
EQUAL = {
    "seg": {"miou": 39.29, "acc": 65.33},
    "depth": {"abs": 0.5493, "rel": 0.2263},
    "normal": {"mean": 28.15, "median": 23.96, "11": 22.09, "22": 47.50, "30": 61.08},
}
UP = {
    "seg": {"miou": 1, "acc": 1},
    "depth": {"abs": -1, "rel": -1},
    "normal": {"mean": -1, "median": -1, "11": 1, "22": 1, "30": 1},
}


def test_averages_differ_in_sign_on_a_row_that_is_published():
    """Equal weights on NYUv2: a gain by tasks, and the drop of 5.59 % that papers report."""
    assert delta_m(EQUAL, BASE, UP) == pytest.approx(0.88, abs=0.005)
    assert delta_m(EQUAL, BASE, UP, "flat") == pytest.approx(-5.59, abs=0.005)
