"""Maps brought back to images, against torch's interpolation and against the way there."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from recon_search.data.restoring import UNSEEN, restore
from recon_search.data.transforms import Preparation

SIZES = [(12, 14), (37, 14), (24, 60), (5, 9), (101, 33)]


@pytest.mark.parametrize("size", SIZES)
def test_what_was_stretched_is_interpolated_as_torch_does(size):
    preparation = Preparation((13, 15), 3, "stretch")  # odd sides: no pixel lies between two
    numbers = torch.randn(3, 13, 15)
    wanted = F.interpolate(numbers[None], size, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(restore(numbers, preparation, size), wanted, atol=1e-5, rtol=0)
    classes = torch.randint(0, 200, (13, 15), dtype=torch.uint8)
    wanted = F.interpolate(classes[None, None].float(), size, mode="nearest-exact")[0, 0]
    found = restore(classes, preparation, size)
    assert found.dtype == torch.int16
    assert torch.equal(found.float(), wanted)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop", [1.0, 0.8, 0.5])
def test_what_was_cut_out_lies_where_it_was(size, crop):
    """The image's own coordinates, made ready and brought back, are theirs again."""
    preparation = Preparation((12, 14), 3, "crop", crop, dtype=torch.float32)
    height, width = size
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    image = torch.stack([y, x, y + x])
    found = restore(preparation.fit(preparation.decode(image)), preparation, size)
    scale = max(height / 12, width / 14) / crop
    seen = ~found.isnan()
    assert torch.equal(seen[0], seen[1])
    if crop == 1:
        assert seen[0].all(0).any() or seen[0].all(1).any(), "one side is seen whole"
        inner = seen[0] & (y > scale) & (y < height - scale) & (x > scale) & (x < width - scale)
    else:
        inner = seen[0]
    assert (found - image)[:, inner].abs().max() < 0.75 * max(1, scale)
    rows, columns = seen[0].any(1), seen[0].any(0)
    assert torch.equal(seen[0], rows[:, None] & columns), "what is seen is a rectangle"
    for own, side in ((rows, height), (columns, width)):
        before, after = (int(each.int().argmax()) for each in (own, own.flip(0)))
        assert before < side
        assert abs(before - after) <= scale + 1, "in the middle"


@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_an_image_of_the_networks_size_changes_nothing(resize):
    preparation = Preparation((12, 14), 3, resize, 0.5)
    numbers = torch.randn(12, 14)
    assert torch.equal(restore(numbers, preparation, (12, 14)), numbers)
    classes = torch.arange(168).reshape(12, 14)
    assert torch.equal(restore(classes, preparation, (12, 14)).long(), classes)


def test_what_was_cut_off_is_of_no_class():
    preparation = Preparation((4, 4), 3)
    found = restore(torch.full((4, 4), 200, dtype=torch.uint8), preparation, (4, 8))
    assert found.tolist() == [[UNSEEN] * 2 + [200] * 4 + [UNSEEN] * 2] * 4


def test_an_enlarged_picture_comes_back_as_it_was():
    """By the path of images: Pillow's resizing, and no interpolation that could blur."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    preparation = Preparation((24, 24), 3, interpolation="nearest")
    bigger = preparation.fit(Image.fromarray(pixels))
    found = restore(bigger, preparation, (6, 10)).permute(1, 2, 0).numpy()
    assert np.array_equal(found[:, 2:8], pixels[:, 2:8])
    assert (found[:, :2] == UNSEEN).all()
    assert (found[:, 8:] == UNSEEN).all()
