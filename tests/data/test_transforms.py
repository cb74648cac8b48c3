"""Images are brought to a size as timm does it, and predicted on as they were trained on."""

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from recon_search.data.augmentation import Augmentation
from recon_search.data.images import Images
from recon_search.data.transforms import (
    SCALES,
    Preparation,
    Pretraining,
    decode,
    prepare,
    to_tensor,
)
from recon_search.errors import DataError, RecipeError
from recon_search.recipe.data import AugmentConfig
from tests.data.samples import data_config, numbers, of_files, of_tensors, open_feed


def picture(height, width, seed=0):
    return Image.fromarray(numbers(height, width, 3, seed=seed).numpy())


def ready(preparation, image):
    return preparation.fit(preparation.decode(image))


@pytest.mark.parametrize("side", [(40, 61), (61, 40), (50, 50), (7, 90)])
@pytest.mark.parametrize("crop", [1.0, 0.875, 0.7])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_cropping_is_timms(side, crop, interpolation):
    transform = timm.data.create_transform(
        (3, 24, 24), crop_pct=crop, interpolation=interpolation, use_prefetcher=True
    )
    preparation = Preparation((24, 24), 3, crop=crop, interpolation=interpolation)
    image = picture(*side)
    expected = torch.from_numpy(np.asarray(transform(image)))
    assert torch.equal(ready(preparation, image), expected)


@pytest.mark.parametrize("size", [(24, 24), (20, 31), (31, 20)])
@pytest.mark.parametrize("kind", ["image", "tensor", "numbers"])
@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_every_image_comes_in_its_size(size, kind, resize):
    dtype = torch.float32 if kind == "numbers" else torch.uint8
    preparation = Preparation(size, 3, resize=resize, dtype=dtype)
    for side in ((10, 70), (70, 10), (33, 33), size, (size[0], 90)):
        image = numbers(3, *side).to(dtype)
        given = Image.fromarray(image.permute(1, 2, 0).numpy()) if kind == "image" else image
        found = ready(preparation, given)
        assert found.shape == (3, *size)
        assert found.dtype == dtype
        if side == size:
            assert torch.equal(found, image), "what has the size is not touched"


def test_cropping_keeps_the_middle_and_stretching_the_whole():
    """Left, middle and right third are of different levels."""
    image = torch.tensor([0, 100, 200], dtype=torch.uint8).repeat_interleave(30).expand(3, 30, 90)
    crop, stretch = (
        ready(Preparation((30, 30), 3, resize=resize), image) for resize in ("crop", "stretch")
    )
    assert (crop == 100).all()
    assert [int(stretch[0, 15, column]) for column in (3, 15, 26)] == [0, 100, 200]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_mode_have_the_wanted_channels(mode, channels):
    if mode == "I;16":
        image = Image.fromarray(np.full((5, 6), 204 << 8, dtype=np.uint16))
    else:
        image = Image.new("RGB", (6, 5), (204, 204, 204)).convert(mode)
    found = ready(Preparation((5, 6), channels), image)
    assert found.shape == (channels, 5, 6)
    if mode != "1":
        assert (found.float() - 204).abs().max() <= 1


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_pixels_are_those_that_torchvision_reads(mode):
    image = picture(7, 5).convert(mode)
    found = to_tensor(image)
    assert torch.equal(found, functional.pil_to_tensor(image))
    found += 1
    assert torch.equal(to_tensor(image), functional.pil_to_tensor(image)), "it is a copy"


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff", "webp"])
def test_photographs_are_upright(tmp_path, suffix):
    """A camera that was held on its side says so."""
    path = tmp_path / f"photo.{suffix}"
    image = Image.new("RGB", (6, 4), (200, 0, 0))
    image.paste((0, 0, 200), (0, 0, 3, 4))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, exif=exif)
    with Image.open(path) as saved:
        found = decode(saved, 3)
    expected = np.rot90(np.asarray(image), -1)
    assert found.size == (4, 6)
    assert np.array_equal(np.asarray(found) > 100, expected > 100)


SETTINGS = [
    {},
    {"resize": "stretch"},
    {"crop": 0.8, "interpolation": "bicubic"},
    {"channels": 1, "statistics": "data"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("pretraining", [None, Pretraining((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))])
def test_a_model_directory_says_all_that_makes_an_image_ready(tmp_path, settings, pretraining):
    data = of_files(tmp_path)
    feed = open_feed(data, image_size=[12, 9], pretraining=pretraining, **settings)
    (batch,) = next(iter(feed.steps("test", 8)))
    inputs = feed.inputs
    config = {
        "shape": feed.schema.shape,
        "mean": inputs.mean.tolist(),
        "std": inputs.std.tolist(),
        "scale": SCALES[inputs.scale],
        **inputs.fitting,
    }
    found = torch.stack([prepare(data.parts["test"][row][0], config) for row in range(8)])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, inputs.normalise(batch.inputs), rtol=1e-6, atol=1e-6)


def test_numbers_are_made_ready_without_scaling():
    data = of_tensors(dtype=torch.float32)
    feed = open_feed(data)
    image = data.parts["train"][0][0]
    config = {"shape": [3, 6, 8], "mean": feed.inputs.mean.tolist(), "scale": "(x - mean) / std"}
    config["std"] = feed.inputs.std.tolist()
    assert feed.inputs.scale == 1
    assert torch.equal(prepare(image, config), feed.inputs.normalise(image[None])[0])
    with pytest.raises(DataError, match="must be a tensor of float32"):
        prepare(image.byte(), config)


def test_fractions_are_normalised_as_weights_want_it_without_scaling():
    known = Pretraining((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    assert open_feed(of_tensors(), pretraining=known).inputs.scale == 255
    data = of_tensors(dtype=torch.float32)
    with pytest.raises(DataError, match=r"from 0 to 1 .* the first of training are from .* to 2"):
        open_feed(data, pretraining=known)
    for image, _ in (sample for samples in data.parts.values() for sample in samples):
        image.div_(255)
    feed = open_feed(data, pretraining=known)
    ((batch,),) = feed.steps("test", 100)
    mean, std = (torch.tensor(each)[:, None, None] for each in (known.mean, known.std))
    torch.testing.assert_close(feed.inputs.normalise(batch.inputs), (batch.inputs - mean) / std)


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_of_weights_go_first_and_are_averaged_over_other_channels(tmp_path, channels):
    known = Pretraining((0.4, 0.5, 0.6), (0.2, 0.3, 0.4), "bicubic")
    settings = {"image_size": [8, 8], "channels": channels, "pretraining": known}
    inputs = open_feed(of_files(tmp_path), **settings).inputs
    mean, std = ([0.5], [0.3]) if channels == 1 else (known.mean, known.std)
    torch.testing.assert_close(inputs.mean, torch.tensor(mean))
    torch.testing.assert_close(inputs.std, torch.tensor(std))
    assert inputs.fitting["interpolation"] == "bicubic"
    del settings["pretraining"]
    own = open_feed(of_files(tmp_path), interpolation="nearest", **settings).inputs
    assert not torch.equal(own.mean, inputs.mean)
    assert own.fitting["interpolation"] == "nearest"


def augmented(image, key=(0, 0, 0), size=(20, 24), **config):
    preparation = Preparation(size, len(image), dtype=image.dtype)
    return Augmentation(AugmentConfig(**config), preparation)(image, {}, key)[0]


def test_a_flip_of_probability_one_mirrors():
    image = numbers(3, 20, 24)
    assert torch.equal(augmented(image, flip=1.0), image.flip(-1))


def test_flips_happen_as_often_as_they_should():
    image = numbers(1, 20, 24)
    found = [augmented(image, (0, 0, row), flip=0.25) for row in range(800)]
    assert abs(sum(torch.equal(each, image.flip(-1)) for each in found) / 800 - 0.25) < 0.05


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_erasing_changes_one_rectangle_of_a_permitted_size(dtype):
    image = torch.full((3, 20, 24), 77).to(dtype)
    for row in range(20):
        changed = (augmented(image, (0, 0, row), random_erasing=1.0) != image).any(0)
        rows, columns = changed.any(1), changed.any(0)
        area = int(rows.sum() * columns.sum()) / changed.numel()
        assert 0 < area < 0.4
        assert changed[rows][:, columns].float().mean() > 0.9, "and nothing else"
    assert (image == 77).all(), "what is given stays as it is"


def test_a_random_crop_is_part_of_the_image():
    """Rows and columns of a gradient grow in a crop, too, over the wanted share of it."""
    image = torch.arange(120, dtype=torch.uint8)[None, None, :].expand(1, 120, 120)
    for row in range(10):
        found = augmented(image, (0, 0, row), size=(16, 16), scale=(0.25, 0.25), ratio=(1.0, 1.0))
        levels = found[0, 0].float()
        assert (levels.diff() >= 0).all()
        assert 45 < levels[-1] - levels[0] < 60  # of 120, less half a pixel at each end


@pytest.mark.parametrize("channels", [1, 3])
def test_everything_at_once_keeps_shape_and_type(channels):
    config = {"flip": 0.5, "scale": (0.2, 1.0), "color_jitter": [0.3, 0.3, 0.3, 0.1]}
    config |= {"auto_augment": "rand-m9-mstd0.5", "random_erasing": 0.5}
    image = numbers(channels, 33, 35)
    found = [augmented(image, (0, 0, row), **config) for row in range(6)]
    assert {(each.shape, each.dtype, type(each)) for each in found} == {
        ((channels, 20, 24), torch.uint8, torch.Tensor)
    }
    assert len({each.numpy().tobytes() for each in found}) == 6


@pytest.mark.parametrize("policy", ["nothing", "", "rand-q3", "v9"])
def test_a_policy_that_timm_does_not_know_is_refused_before_anything_is_read(policy):
    with pytest.raises(RecipeError, match=r"`data.augment.auto_augment` must be a policy of timm"):
        Images(of_tensors(), data_config(augment={"auto_augment": policy}))


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ({"scale": [0.5, 0.2]}, "`data.augment.scale` must be two positive numbers in order"),
        ({"scale": [0.5, 1.5]}, "at most 1, got"),
        ({"ratio": [0, 1]}, "`data.augment.ratio` must be two positive numbers"),
        ({"color_jitter": [0.1, 0.2]}, "`data.augment.color_jitter` must be one number, or three"),
        ({"color_jitter": -0.1}, "none below 0, got -0.1"),
        ({"color_jitter": [0.1, 0.1, 0.1, 0.6]}, "and hue, at most 0.5"),
        ({"flip": 1.5}, "`data.augment.flip`"),
        ({"flips": 0.5}, "`data.augment.flips` is no key of a recipe. Did you mean 'flip'"),
    ],
)
def test_augmentation_that_makes_no_sense_is_refused(augment, message):
    with pytest.raises(RecipeError, match=message):
        data_config(augment=augment)


def test_pixels_of_targets_move_with_their_image():
    """A seam for masks: what lies on the image is flipped and cropped with it."""
    mask = tv_tensors.Mask(numbers(20, 24))
    image = mask.as_subclass(torch.Tensor)[None]
    for config in ({"flip": 1.0}, {"scale": (0.3, 0.5)}):
        preparation = Preparation((20, 24), 1, interpolation="nearest")
        change = Augmentation(AugmentConfig(**config), preparation)
        found, targets = change(image, {"mask": mask, "class": torch.tensor(3)}, (0, 0, 1))
        assert torch.equal(found[0], targets["mask"].as_subclass(torch.Tensor))
        assert int(targets["class"]) == 3
