"""Labels of pixels move with their images; the laws of each way."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from recon_search.data.dense_transforms import (
    DepthMap,
    InverseDepthMap,
    Mask,
    NormalMap,
    lay,
    lift,
)
from recon_search.data.task_data import TaskData
from recon_search.errors import DataError, RecipeError
from recon_search.tasks.classes import Classes
from recon_search.tasks.depth import Depth
from recon_search.tasks.edges import Edges
from recon_search.tasks.metrics import IGNORED
from recon_search.tasks.normals import Normals
from recon_search.tasks.segments import Segments
from tests.data.samples import Listed, open_feed
from tests.tasks.contract import LAW, SEEDS

H, W = 8, 12
TASKS = (
    Segments("what", 500),
    Depth("depth"),
    Normals("normals"),
    Edges("edges"),
    Classes("place", 3),
)


def draw(seed, height=H, width=W):
    """An image whose pixels are all different, and labels that tell which pixel is which."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.arange(height * width).reshape(height, width)
    image = torch.stack([places, places + 100, places]).to(torch.uint8)
    normals = torch.nn.functional.normalize(
        torch.randn(3, height, width, generator=generator), dim=0
    )
    depth = places.float() + 1
    what = places.clone()
    what[0, 0], depth[0, 1], normals[:, 0, 2] = IGNORED, math.nan, 0
    edges = (places % 3 == 0).long()
    targets = {"what": what, "depth": depth, "normals": normals, "edges": edges}
    return image, {**targets, "place": torch.tensor(seed % 3)}


def same(first, second):
    return torch.equal(first.isnan(), second.isnan()) and torch.equal(
        first.nan_to_num(), second.nan_to_num()
    )


def test_labels_of_pixels_are_laid_on_their_image_and_others_are_not():
    _, targets = draw(0)
    laid = lay(TASKS, targets, (H, W))
    kinds = {name: type(own) for name, own in laid.items()}
    assert kinds == {
        "what": Mask,
        "depth": DepthMap,
        "normals": NormalMap,
        "edges": Mask,
        "place": torch.Tensor,
    }
    for name, own in lift(laid).items():
        assert type(own) is torch.Tensor
        assert same(own, targets[name])


@LAW
@given(seed=SEEDS)
def test_a_flip_and_another_are_nothing(seed):
    _, targets = draw(seed % 100)
    del targets["place"]
    for own in lay(TASKS[:4], targets, (H, W)).values():
        once = functional.horizontal_flip(own)
        assert type(once) is type(own)
        assert not same(once.as_subclass(torch.Tensor), own.as_subclass(torch.Tensor))
        assert same(functional.horizontal_flip(once).as_subclass(torch.Tensor), own)


def test_a_flip_turns_directions_and_leaves_the_given_ones():
    normals = torch.zeros(3, 1, 2)
    normals[:, 0, 0] = torch.tensor([0.6, 0.0, 0.8])
    flipped = functional.horizontal_flip(NormalMap(normals))
    torch.testing.assert_close(
        flipped[:, 0, 1].as_subclass(torch.Tensor), torch.tensor([-0.6, 0.0, 0.8])
    )
    assert (flipped[:, 0, 0] == 0).all(), "what is unknown stays so"
    assert normals[0, 0, 0] == 0.6


@LAW
@given(share=st.integers(1, 6), target=st.integers(2, 30))
def test_what_is_cut_out_looks_as_many_times_nearer(share, target):
    """By the part that is cut out, whatever the size to which it is brought."""
    depth = DepthMap(torch.full((24, 36), 6.0))
    size = [target, target * 3 // 2]
    cut = functional.resized_crop(depth, 0, 0, 24 // share, 36 // share, size, antialias=True)
    assert cut.shape == tuple(size)
    scale = math.sqrt(24 * 36 / ((24 // share) * (36 // share)))
    np.testing.assert_allclose(cut.numpy(), 6.0 / scale, rtol=1e-6)


@pytest.mark.parametrize(("way", "kind"), [("divide", DepthMap), ("multiply", InverseDepthMap)])
def test_inverse_depths_grow_as_depths_shrink(way, kind):
    task = Depth("depth", zoom=way)
    laid = lay([task], {"depth": torch.full((24, 36), 6.0)}, (24, 36))["depth"]
    assert type(laid) is kind
    cut = functional.resized_crop(laid, 0, 0, 16, 24, [24, 36], antialias=True)
    assert type(cut) is kind
    np.testing.assert_allclose(cut.numpy(), 6 / 1.5 if way == "divide" else 6 * 1.5, rtol=1e-6)


@pytest.mark.parametrize("zoom", [[1.0], [1.5], [1.0, 1.2, 1.5]])
def test_a_zoom_is_drawn_of_those_named(zoom):
    """By what it does to depths: 1.2 of 24 x 36 pixels are 20 x 30."""
    task = Depth("depth")
    data = Listed((torch.zeros(3, 24, 36), {"depth": torch.full((24, 36), 6.0)}) for _ in range(60))
    parts = dict.fromkeys(("train", "validation", "test"), data)
    feed = open_feed(TaskData([task], parts), augment={"zoom": zoom})
    ((batch,),) = feed.steps("train", 60, (0, 0))
    assert batch.targets["depth"].shape == (60, 24, 36)
    found = {round(6 / float(depth.mean()), 4) for depth in batch.targets["depth"]}
    assert found == set(zoom)
    ((plain,),) = feed.steps("test", 60)
    assert (plain.targets["depth"] == 6).all()


@pytest.mark.parametrize("size", [(16, 32), (7, 11)])
@pytest.mark.parametrize("way", ["divide", "multiply"])
def test_a_zoom_is_that_of_published_code(size, way):
    """Of sides that it does not divide, too: floor(side / s) pixels, the nearest, depth over s."""
    (height, width), s = size, 1.2
    down, right = int(height / s), int(width / s)
    generator = np.random.default_rng(height)
    depth = generator.uniform(1, 9, size).astype(np.float32)
    normal = generator.normal(size=(3, *size)).astype(np.float32)
    tasks = [Depth("depth", zoom=way), Normals("normals")]
    targets = {"depth": torch.from_numpy(depth), "normals": torch.from_numpy(normal)}
    parts = dict.fromkeys(
        ("train", "validation", "test"), Listed([(torch.zeros(3, *size), targets)] * 4)
    )
    feed = open_feed(TaskData(tasks, parts), augment={"zoom": [s], "flip": 0.5})
    ((batch,),) = feed.steps("train", 4, (0, 0))
    rows, columns = np.arange(height) * down // height, np.arange(width) * right // width
    for found, facing in zip(batch.targets["depth"], batch.targets["normals"], strict=True):
        assert any(
            np.allclose(found, cut / s if way == "divide" else cut * s, rtol=1e-6)
            and np.array_equal(facing, turned)
            for top in range(height - down + 1)
            for left in range(width - right + 1)
            for sign in (1, -1)
            for cut in [depth[top + rows][:, left + columns][:, ::sign]]
            if np.isclose(found[0, 0], cut[0, 0] / s if way == "divide" else cut[0, 0] * s)
            for plain in [normal[:, top + rows][:, :, left + columns][:, :, ::sign]]
            for turned in [plain * np.array([sign, 1, 1], np.float32)[:, None, None]]
        )


@pytest.mark.parametrize("augment", [{"zoom": [0.5]}, {"zoom": [1.2], "scale": [0.5, 1.0]}])
def test_a_zoom_that_is_of_no_use_is_one_line(augment):
    with pytest.raises(RecipeError, match=r"`data\.augment\.zoom") as caught:
        make_feed(augment=augment)
    assert "\n" not in str(caught.value)


def test_a_resize_alone_is_no_zoom():
    depth = DepthMap(torch.full((24, 36), 6.0))
    assert (functional.resize(depth, [12, 18]) == 6).all()


@pytest.mark.parametrize("size", [(16, 24), (4, 6), (5, 7)])
def test_no_label_is_interpolated(size):
    _, targets = draw(0)
    del targets["place"]
    for name, own in lay(TASKS[:4], targets, (H, W)).items():
        found = functional.resize(own, list(size)).as_subclass(torch.Tensor)
        plain = targets[name].reshape(-1, H * W).T.nan_to_num(-5).tolist()
        assert all(
            row in plain for row in found.reshape(-1, math.prod(size)).T.nan_to_num(-5).tolist()
        )


def make_feed(n=6, shape=(H, W), **settings):
    listed = Listed(draw(seed, *shape) for seed in range(n))
    parts = dict.fromkeys(("train", "validation", "test"), listed)
    return open_feed(TaskData(TASKS, parts), **settings)


def pixels_of(batch):
    """The place of every pixel, as its image says and as its label does."""
    return batch.inputs[:, 0].long(), batch.targets["what"]


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_image_and_labels_are_flipped_and_cut_together(cache):
    """Crops whose sides are those of the images bring no pixel between two others."""
    feed = make_feed(
        cache=cache,
        interpolation="nearest",
        augment={"flip": 0.5, "scale": [0.2, 0.9]},
    )
    seen = set()
    for epoch in range(4):
        for (batch,) in feed.steps("train", 3, (0, epoch)):
            said, labelled = pixels_of(batch)
            known = labelled != IGNORED
            # Torch rounds places of uint8 images and of masks alike, but for pixels at an edge.
            assert (said == labelled)[known].float().mean() > 0.9
            seen.update(map(tuple, labelled[:, 3, :2].tolist()))
            zoom = batch.targets["depth"] / (labelled + 1)
            for row in range(len(zoom)):
                own = zoom[row][known[row] & ~zoom[row].isnan()]
                assert own.max() - own.min() < 1e-4
                assert own.max() < 1
            norms = batch.targets["normals"].norm(dim=1)
            assert (((norms - 1).abs() < 1e-5) | (norms == 0)).all()
            assert (batch.targets["edges"] == (labelled % 3 == 0))[known].all()
    assert len(seen) > 10
    for (batch,) in feed.steps("test", 6):
        said, labelled = pixels_of(batch)
        assert (said == labelled)[labelled != IGNORED].all()


@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_labels_are_brought_to_the_size_of_the_images(resize):
    feed = make_feed(image_size=[4, 4], interpolation="nearest", resize=resize)
    (batch,) = next(iter(feed.steps("test", 6)))
    said, labelled = pixels_of(batch)
    assert said.shape == labelled.shape == (6, 4, 4)
    assert (said == labelled)[labelled != IGNORED].float().mean() > 0.9
    assert batch.targets["normals"].shape == (6, 3, 4, 4)
    assert batch.targets["place"].shape == (6,)


def test_a_flip_is_seen_in_directions():
    whole, flipped = make_feed(), make_feed(augment={"flip": 1.0})
    (first,) = next(iter(whole.steps("train", 6)))
    (second,) = next(iter(flipped.steps("train", 6, (0, 0))))
    order = [int(row) for row in second.targets["place"]]
    assert sorted(order) == sorted(int(row) for row in first.targets["place"])
    for own in second.targets["normals"]:
        back = own.flip(-1) * torch.tensor([-1, 1, 1])[:, None, None]
        assert any(torch.equal(back, other) for other in first.targets["normals"])


@pytest.mark.parametrize("shape", [(H, W + 1), (H,), (1, 1, H, W)])
def test_a_label_of_another_size_than_its_image_is_one_line(shape):
    _, targets = draw(0)
    with pytest.raises(DataError, match=r"'depth' must have the size \(8, 12\)") as caught:
        lay(TASKS, {**targets, "depth": torch.ones(shape)}, (H, W))
    assert "\n" not in str(caught.value)


def test_masks_are_torchvisions_own():
    assert Mask is tv_tensors.Mask


def test_an_image_may_lack_the_label_of_its_pixels():
    image, targets = draw(0)
    few = {"depth": targets["depth"], "what": None}
    parts = dict.fromkeys(("train", "validation", "test"), Listed([(image, few), draw(1)]))
    feed = open_feed(TaskData(TASKS, parts))
    (batch,) = next(iter(feed.steps("train", 2)))
    for task in TASKS:
        first, second = batch.targets[task.name]
        assert int(task.n_labels(second[None])) > 0
        assert (int(task.n_labels(first[None])) > 0) == (task.name == "depth")


@pytest.mark.parametrize(
    ("value", "found"),
    [(500, "0 to 500"), (-1, "-1 to 95"), (0.5, "torch.float32")],
)
def test_a_mask_of_no_use_that_is_given_is_one_line(value, found):
    image, targets = draw(0)
    what = targets["what"] + (0.0 if isinstance(value, float) else 0)
    what[3, 3] = value
    what[0, 1] = 0
    parts = dict.fromkeys(
        ("train", "validation", "test"), Listed([(image, {**targets, "what": what})])
    )
    message = rf"target of task 'what' must be of whole numbers from 0 to 499, got {found}"
    with pytest.raises(DataError, match=message) as caught:
        open_feed(TaskData(TASKS, parts))
    assert "\n" not in str(caught.value)
