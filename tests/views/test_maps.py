"""Labels of pixels and predictions are painted alike."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from recon_search.recipe import parse_recipe
from recon_search.stages.data import Looked
from recon_search.tasks.depth import Depth
from recon_search.tasks.edges import Edges
from recon_search.tasks.metrics import IGNORED
from recon_search.tasks.normals import Normals
from recon_search.tasks.segments import Segments
from recon_search.views.grid import prediction_grid
from recon_search.views.maps import GAP, paint, palette
from recon_search.views.plots import save_figure
from recon_search.views.sheet import contact_sheet

KINDS = (Segments("a", 11), Depth("b"), Normals("c"), Edges("d"))


@pytest.mark.parametrize("n", [2, 11, 150])
def test_every_class_has_a_colour_of_its_own(n):
    found = palette(n)
    assert (found.shape, found.dtype) == ((n, 3), np.uint8)
    assert len({tuple(colour) for colour in found.tolist()}) == n
    assert (palette(n + 5)[:n] == found).all()


@pytest.mark.parametrize("task", KINDS)
def test_what_is_decoded_can_be_painted(task):
    outputs = torch.randn(2, task.n_outputs, 4, 5)
    for picture in task.decode(outputs):
        found = paint(task, picture)
        assert (found.shape, found.dtype) == ((4, 5, 3), np.uint8)
        assert len(np.unique(found)) > 1


@pytest.mark.parametrize("task", KINDS)
def test_what_is_unknown_is_black(task):
    assert (paint(task, task.blank((4, 5))) == 0).all()
    if task.name != "a":  # of numbers, also what was not seen
        size = (3, 4, 5) if task.name == "c" else (4, 5)
        assert (paint(task, torch.full(size, math.nan)) == 0).all()


def test_colours_say_what_there_is():
    found = paint(KINDS[0], torch.tensor([[0, 3, IGNORED]]))
    assert found[0, :2].tolist() == palette(11)[[0, 3]].tolist()
    assert found[0, 2].tolist() == [0, 0, 0]
    near, far, none = paint(KINDS[1], torch.tensor([[1.0, 9.0, math.nan]]))[0].astype(int)
    assert near.sum() > far.sum() > none.sum() == 0
    up = torch.tensor([0.0, 1.0, 0.0])[:, None, None]
    assert paint(KINDS[2], up)[0, 0].tolist() == [127, 255, 127]
    assert paint(KINDS[3], torch.tensor([[1, 0]]))[0].tolist() == [[255] * 3, [0] * 3]


def test_a_single_distance_is_painted():
    assert paint(KINDS[1], torch.full((2, 2), 3.0)).shape == (2, 2, 3)


def test_a_contact_sheet_shows_labels_of_pixels_beside_their_images():
    raw = {
        "data": {"name": "scenes", "train": 9, "validation": 2, "test": 2, "canvas": 32},
        "backbone": {"name": "resnet18"},
        "train": {"epochs": 1, "batch_size": 4, "lr": 0.1},
        "probe": {"epochs": 1},
    }
    figure = contact_sheet(Looked(parse_recipe(raw)))
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(shown) == 5
    assert {picture.shape for picture in shown} == {(32, 5 * 32 + 4 * GAP, 3)}
    for axes in (each for each in figure.axes if each.images):
        names = {each.get_text(): each.xy[0] + 0.5 for each in axes.texts}
        assert names == {
            name: place * (32 + GAP)
            for place, name in enumerate(["image", "what", "depth", "normals", "edges"])
        }


def test_a_dollar_in_the_name_of_a_task_is_one(tmp_path):
    picture = Image.new("RGB", (8, 8))
    save_figure(prediction_grid([(picture, ["price $: 3", "a $b$ c"])]), tmp_path / "g.svg")
    text = (tmp_path / "g.svg").read_text()
    for line in ("price $: 3", "a $b$ c"):
        assert f"<!-- {line} -->" in text
