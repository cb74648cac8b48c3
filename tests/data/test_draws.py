"""Draws are torch's and torchvision's own, and leave the generator as these do."""

import pytest
import torch
from torchvision import transforms

from recon_search.data.draws import Draws

SIZES = [(375, 500), (64, 64), (1, 9), (400, 20), (7, 333)]
RANGES = [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.25, 0.25), (1.0, 1.0)), ((0.9, 1.0), (2.0, 3.0))]


def assert_alike(theirs, own):
    """Both draw the same from equal states of the generator, and leave it in equal states."""
    for seed in range(200):
        found = []
        for draw in (theirs, own):
            torch.manual_seed(seed)
            found.append((draw(), torch.get_rng_state().numpy().tobytes()))
        assert found[0] == found[1]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("scale", "ratio"), RANGES)
def test_boxes_are_those_of_torchvision(size, scale, ratio):
    """Of narrow images too, where none of ten draws fits."""
    draws, image = Draws(), torch.empty(1, *size)
    assert_alike(
        lambda: transforms.RandomResizedCrop.get_params(image, list(scale), list(ratio)),
        lambda: draws.box(size, scale, ratio),
    )


@pytest.mark.parametrize("share", [0.0, 1 / 3, 0.3, 0.5, 1.0])
def test_chances_are_those_of_torch(share):
    draws = Draws()
    assert_alike(lambda: bool(torch.rand(()) < share), lambda: draws.chance(share))


@pytest.mark.parametrize("n", [1, 2, 7, 100, 2**20 + 3])
def test_whole_numbers_are_those_of_torch(n):
    draws = Draws()
    assert_alike(lambda: int(torch.randint(n, ())), lambda: draws.below(n))
