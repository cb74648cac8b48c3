"""Columns of a table that hold files of labels of pixels: read as written, or refused by row."""

import json
import tomllib

import numpy as np
import pytest
import torch
from PIL import Image

from recon_search.data import images
from recon_search.data.registry import READERS
from recon_search.data.source import PARTS
from recon_search.errors import DataError, RecipeError
from recon_search.recipe import DataConfig, TaskConfig, parse_recipe
from recon_search.stages.data import Looked, examine
from recon_search.views.maps import GAP
from recon_search.views.sheet import contact_sheet
from tests.command import call
from tests.data.files import write_csv, write_image

TASKS = {
    "road": TaskConfig(kind="segments", target="mask"),
    "species": TaskConfig(kind="classes"),
    "depth": TaskConfig(kind="depth", scale=0.5),
}
PART = ["train"] * 4 + ["validation"] * 2 + ["test"] * 2


def mask_of(index):
    return np.random.default_rng(index).integers(0, 3, (8, 9), dtype=np.uint8)


def write(root, **changed):
    """Images of two sizes, masks as PNG with a palette, depths as NPY; some cells empty."""
    rows = []
    for index, part in enumerate(PART):
        name = f"{index:02}"
        write_image(root / f"images/{name}.png", index)
        (root / "masks").mkdir(exist_ok=True)
        picture = Image.frombytes("P", (9, 8), mask_of(index).tobytes())
        picture.putpalette([200, 3, 5] * 256)
        picture.save(root / f"masks/{name}.png")
        np.save(root / f"masks/{name}.npy", np.full((8, 9), index, np.uint16))
        rows.append(
            {
                "file": f"images/{name}.png",
                "part": part,
                "species": ["oak", "fir"][index % 2],
                "mask": "" if index == 1 else f"masks/{name}.png",
                "depth": "?" if index == 2 else f"masks/{name}.npy",
            }
        )
    for index, row in changed.items():
        rows[int(index[1:])] |= row
    write_csv(root / "labels.csv", rows)
    return rows


def read(root, tasks=None, **settings):
    given = {"name": "table", "root": str(root), "file": "labels.csv", "image": "file"}
    config = DataConfig(**(given | {"split": "part", "missing": ["?"]} | settings))
    return READERS["table"](config, TASKS if tasks is None else tasks)


def test_a_cell_is_the_file_of_a_label(tmp_path):
    write(tmp_path)
    data = read(tmp_path)
    assert [task.name for task in data.tasks] == list(TASKS), "in the recipe's order"
    assert data.tasks[0].n_classes == 3
    assert data.image_size == (8, 9)
    index = 0
    for part in PARTS:
        for sample in range(len(data.parts[part])):
            _, targets = data.parts[part][sample]
            assert ("road" in targets, "depth" in targets) == (index != 1, index != 2)
            if index != 1:
                assert np.array_equal(targets["road"], mask_of(index))
            if index != 2:
                wanted = torch.full((8, 9), index / 2 if index else torch.nan)
                assert torch.equal(targets["depth"].nan_to_num(-1), wanted.nan_to_num(-1))
            assert targets["species"] == 1 - index % 2
            index += 1


def test_what_is_missing_is_blank_and_the_rest_is_trained_on(tmp_path):
    write(tmp_path)
    source = images.Images(read(tmp_path), DataConfig(name="table", image_size=(4, 4)))
    assert source.schema.complete == {"species"}
    feed = source.open(torch.device("cpu"))
    ((batch,),) = feed.steps("train", 4)
    road, _, depth = source.schema.tasks
    assert [int(road.n_labels(own[None])) for own in batch.targets["road"]] == [16, 0, 16, 16]
    assert [int(depth.n_labels(own[None])) for own in batch.targets["depth"]] == [0, 16, 0, 16]


@pytest.mark.parametrize(("limit", "is_kept"), [(16 * (3 + 8 + 4) * 8, True), (1900, False)])
def test_labels_of_pixels_count_where_memory_is_short(tmp_path, monkeypatch, limit, is_kept):
    """Eight samples of 16 pixels: 3 bytes each of an image, 8 of a class, 4 of a depth."""
    write(tmp_path)
    monkeypatch.setattr(images, "SMALL", limit)
    source = images.Images(read(tmp_path), DataConfig(name="table", image_size=(4, 4)))
    said = []
    next(iter(source.open(torch.device("cpu"), said.append).steps("train", 4)))
    assert bool(said) == is_kept


def test_a_changed_mask_is_other_data(tmp_path):
    write(tmp_path)
    before = read(tmp_path).fingerprint
    assert read(tmp_path).fingerprint == before
    np.save(tmp_path / "masks/03.npy", np.full((8, 9), 7, np.uint16))
    assert read(tmp_path).fingerprint != before


def test_tables_without_masks_keep_their_fingerprint(tmp_path):
    write(tmp_path)
    tasks = {"species": TASKS["species"]}
    before = read(tmp_path, tasks).fingerprint
    np.save(tmp_path / "masks/03.npy", np.zeros(3))
    assert read(tmp_path, tasks).fingerprint == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r3": {"mask": "masks/0.png"}}, r"row 5: task 'road': a label must exist, .*0.png. Did"),
        ({"r3": {"mask": "../0.png"}}, r"labels.csv row 5: task 'road': a label must lie in"),
        ({"r6": {"depth": "no.npy"}}, r"labels.csv row 8: task 'depth': a label must exist"),
        ({"r3": {"mask": "labels.csv"}}, r"row 5 \(images/03.png\): .*labels.csv must hold an ar"),
        ({"r0": {"mask": "masks/00.npy"}, "r3": {"mask": "images/03.png"}},
         r"labels.csv row 5 \(images/03.png\): Task 'road' must be given one number a pixel"),
        ({f"r{i}": {"depth": ""} for i in (6, 7)}, r"labels of task 'depth' in every part.*test"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_file_and_row(tmp_path, change, message):
    write(tmp_path, **change)
    with pytest.raises(DataError, match=message) as raised:
        read(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((9, 8)), r"row 7 \(images/05.png\): .*05.npy must have the size of its image"),
        (np.zeros((8, 9, 3)), r"row 7 \(images/05.png\): .*05.npy: Task 'depth' must be given one"),
        (b"no array", r"row 7 \(images/05.png\): .*05.npy must hold an array"),
    ],
)
def test_a_file_that_is_read_later_is_named_by_row_too(tmp_path, array, message):
    write(tmp_path)
    if isinstance(array, bytes):
        (tmp_path / "masks/05.npy").write_bytes(array)
    else:
        np.save(tmp_path / "masks/05.npy", array)
    source = images.Images(read(tmp_path), DataConfig(name="table", image_size=(4, 4)))
    with pytest.raises(DataError, match=message) as raised:
        list(source.open(torch.device("cpu")).steps("validation", 4))
    assert "\n" not in str(raised.value)


def test_several_columns_are_no_mask(tmp_path):
    write(tmp_path)
    tasks = {"road": TaskConfig(kind="segments", target=["mask", "depth"])}
    with pytest.raises(RecipeError, match=r"`tasks.road.target` must be one column, of files"):
        read(tmp_path, tasks)


RECIPE = """
[data]
name = "table"
root = "."
file = "labels.csv"
image = "file"
split = "part"
missing = ["?"]
image_size = [6, 6]
[tasks.road]
kind = "segments"
target = "mask"
classes = ["a", "b", "c", "d"]
[tasks.species]
kind = "classes"
[tasks.depth]
kind = "depth"
[backbone]
name = "resnet18"
[train]
epochs = 1
batch_size = 4
lr = 0.1
[probe]
epochs = 1
"""


def test_the_data_are_counted_and_drawn(tmp_path):
    write(tmp_path)
    write_image(tmp_path / "images/04.png", 4, size=(12, 10))  # of another size, and so its labels
    Image.fromarray(np.zeros((10, 12), np.uint8)).save(tmp_path / "masks/04.png")
    np.save(tmp_path / "masks/04.npy", np.ones((10, 12)))
    (tmp_path / "my.toml").write_text(RECIPE)
    done = call("data", "my.toml", "--json", "--out", "sheet.png", cwd=tmp_path)
    assert (done.code, done.error) == (0, "")
    assert (tmp_path / "sheet.png").is_file()

    road, species, depth = json.loads(done.output)["tasks"]
    assert road["labelled"] == {"train": 3, "validation": 2, "test": 2}
    assert depth["labelled"] == {"train": 2, "validation": 2, "test": 2}, "zero is no depth"
    assert species["labelled"] == {"train": 4, "validation": 2, "test": 2}
    assert road["classes"]["a"] == {"train": 3, "validation": 2, "test": 2}
    assert road["classes"]["b"] == {"train": 3, "validation": 1, "test": 2}
    assert road["classes"]["d"] == {"train": 0, "validation": 0, "test": 0}


def test_a_sheet_has_every_label_of_pixels(tmp_path):

    write(tmp_path)
    raw = tomllib.loads(RECIPE)
    raw["data"]["root"] = str(tmp_path)
    looked = Looked(parse_recipe(raw))
    assert len(examine(looked).unreadable) == 0
    figure = contact_sheet(looked)
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert {picture.shape for picture in shown} == {(6, 18 + 2 * GAP, 3)}
