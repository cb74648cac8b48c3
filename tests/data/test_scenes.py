"""Rendered scenes: labels agree with each other and with geometry; same seed, same bytes."""

import numpy as np
import pytest
import torch

from recon_search.data.compose import Pool
from recon_search.data.registry import find_source
from recon_search.data.scenes import TASKS, TEXTURE, render
from recon_search.errors import DataError
from recon_search.recipe import DataConfig
from recon_search.tasks.registry import create_task
from tests.data.contract import FeedContract


def load(**settings):
    sizes = {"train": 45, "validation": 21, "test": 20}
    config = DataConfig(name="scenes", **{**sizes, "canvas": 32, **settings})
    return find_source(config).open(torch.device("cpu"))


@pytest.fixture(scope="module")
def scenes():
    return load()


class TestScenes(FeedContract):
    @pytest.fixture
    def feed(self, scenes):
        return scenes


@pytest.fixture(scope="module")
def large():
    return load(canvas=64, train=60).parts["train"]


def test_same_seed_same_bytes_other_seed_other_bytes(scenes):
    again, other = load(), load(seed=1)
    for part in ("train", "test"):
        first, same, new = (each.parts[part] for each in (scenes, again, other))
        assert torch.equal(first.inputs, same.inputs)
        assert not torch.equal(first.inputs, new.inputs)
        for name, target in first.targets.items():
            assert torch.equal(target.nan_to_num(), same.targets[name].nan_to_num())


def test_every_task_is_there_and_made_again_of_its_spec(scenes):
    assert scenes.schema.names == ("what", "depth", "normals", "edges")
    assert scenes.schema.complete == {"what", "edges"}
    for task in TASKS:
        assert create_task(task.spec()) == task
        target = scenes.parts["train"].targets[task.name]
        assert int(task.n_labels(target)) > 0
        outputs = torch.zeros(45, task.n_outputs, 32, 32)
        assert task.loss(outputs, target).isfinite()


def test_the_sky_is_neither_far_nor_does_it_face(large):
    sky = large.targets["depth"].isnan()
    assert 0.05 < sky.float().mean() < 0.4
    length = large.targets["normals"].norm(dim=1)
    assert (length[sky] == 0).all()
    assert length[~sky] == pytest.approx(1, abs=1e-5)
    assert (large.targets["what"][sky] == 0).all()


def test_every_surface_faces_the_camera(large):
    """Floors are seen from above; everything else has its z towards the camera."""
    normals = large.targets["normals"]
    known = ~large.targets["depth"].isnan()
    assert ((normals[:, 2] > 0) | (normals[:, 1] == 1))[known].all()


def test_how_far_a_surface_is_tells_which_way_it_faces(large):
    """Along a plane with the normal n, 1 / depth falls by n_x and n_y, times one factor.

    Neighbours of one normal are of one plane, but for two digits that are turned alike.
    """
    depth, normals = large.targets["depth"].double(), large.targets["normals"].double()
    same = torch.ones_like(depth[:, 1:-1, 1:-1], dtype=torch.bool)
    middle = normals[:, :, 1:-1, 1:-1]
    for rows, columns in ((0, 1), (2, 1), (1, 0), (1, 2)):
        end = {0: -2, 1: -1, 2: None}
        other = normals[:, :, rows : end[rows], columns : end[columns]]
        same &= (other == middle).all(1)
    inverse = 1 / depth
    right = (inverse[:, 1:-1, 2:] - inverse[:, 1:-1, :-2])[same]
    up = (inverse[:, :-2, 1:-1] - inverse[:, 2:, 1:-1])[same]
    n_x, n_y = middle[:, 0][same], middle[:, 1][same]
    known = ~right.isnan()
    right, up, n_x, n_y = right[known], up[known], n_x[known], n_y[known]
    assert len(right) > 10_000
    length = (right**2 + up**2).sqrt().clamp(min=1e-9) * (n_x**2 + n_y**2).sqrt().clamp(min=1e-9)
    tilted = (n_x.abs() + n_y.abs()) > 0.1
    assert ((right * n_x + up * n_y) / length)[tilted].max() < -0.999
    assert up[~tilted].abs().max() < 0.01


def test_a_border_is_on_the_side_of_what_stands_before(large):
    depth = large.targets["depth"].nan_to_num(1e9)
    edges = large.targets["edges"] == 1
    padded = torch.nn.functional.pad(depth, (1, 1, 1, 1), value=-1)
    farthest = torch.stack(
        [padded[:, 1:-1, :-2], padded[:, 1:-1, 2:], padded[:, :-2, 1:-1], padded[:, 2:, 1:-1]]
    ).amax(0)
    assert (farthest > depth)[edges].all()
    jump = farthest > depth + 1.5
    assert edges[jump & (large.targets["what"] > 0)].all(), "digits stand out"
    assert 0.02 < edges.float().mean() < 0.15


def test_a_class_changes_only_where_there_is_a_border(large):
    what, edges = large.targets["what"], large.targets["edges"] == 1
    across = what[:, :, 1:] != what[:, :, :-1]
    assert (edges[:, :, 1:] | edges[:, :, :-1])[across].all()
    assert across.any()


@pytest.mark.parametrize("digit", [0, 7])
def test_items_show_the_class_of_their_pool(digit):
    images = np.full((2, TEXTURE, TEXTURE), 255, np.uint8)
    part = render(Pool(images, np.array([digit, digit])), 20, 32, [3])
    assert set(part.targets["what"].unique().tolist()) == {0, digit + 1}


def test_nothing_stands_where_there_is_no_ink():
    images = np.zeros((2, TEXTURE, TEXTURE), np.uint8)
    part = render(Pool(images, np.array([1, 2])), 5, 32, [3])
    assert (part.targets["what"] == 0).all()


def test_every_digit_is_seen_and_most_of_it_is_in_view(large):
    shares = (
        torch.bincount(large.targets["what"].flatten(), minlength=11)
        / large.targets["what"].numel()
    )
    assert len(shares) == 11
    assert shares[1:].min() > 0.003
    assert 0.6 < shares[0] < 0.9


def test_a_canvas_on_which_digits_cannot_be_told_is_refused():
    with pytest.raises(DataError, match=r"`data.canvas` must be at least 32 for scenes, got 31"):
        load(canvas=31)
