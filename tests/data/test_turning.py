"""Images that a camera stored turned, and labels of their pixels: they lie on each other."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from recon_search.data import images
from recon_search.data.registry import READERS
from recon_search.data.task_data import TaskData
from recon_search.data.turning import Turn, turn_label, turn_of
from recon_search.errors import DataError
from recon_search.recipe import DataConfig, TaskConfig
from recon_search.tasks.depth import Depth
from recon_search.tasks.normals import Normals
from recon_search.tasks.segments import Segments
from tests.data.files import write_csv

ORIENTATIONS = range(1, 9)
ORIENTATION = 0x0112
PARTS = ["train"] * 4 + ["validation"] * 2 + ["test"] * 2


def exif(orientation):
    found = Image.Exif()
    found[ORIENTATION] = orientation
    return found


def stored(index, size=(5, 7)):
    """Levels (H, W) as a camera stores them."""
    return np.random.default_rng(index).integers(0, 4, size, dtype=np.uint8)


def upright(array, orientation):
    picture = Image.fromarray(array)
    picture.getexif()[ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(picture))


def write(root, data, *, mask_exif=None, drawn="stored", size=(5, 7), kind="png"):
    """Pictures of which sample i has the orientation i + 1, whose masks are their own levels."""
    (root / "masks").mkdir(parents=True)
    rows = []
    for index, part in enumerate(PARTS):
        levels = stored(index, size)
        folder = root / part / "image" if data == "arrays" else root / "images"
        masks = root / part / "mask" if data == "arrays" else root / "masks"
        for each in (folder, masks):
            each.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(levels)
        image.save(folder / f"{index}.png", exif=exif(index + 1))
        mask = levels if drawn == "stored" else upright(levels, index + 1)
        if kind == "npy":
            np.save(masks / f"{index}.npy", mask)
        else:
            own = {} if mask_exif is None else {"exif": exif(mask_exif or index + 1)}
            Image.fromarray(mask).save(masks / f"{index}.png", **own)
        name = f"{index}.{kind}"
        rows.append({"file": f"images/{index}.png", "part": part, "mask": f"masks/{name}"})
    write_csv(root / "labels.csv", rows)


def read(root, data):
    own = {"file": "labels.csv", "image": "file", "split": "part"} if data == "table" else {}
    config = DataConfig(name=data, root=str(root), channels=1, **own)
    return READERS[data](config, {"mask": TaskConfig(kind="segments", n_classes=4)})


@pytest.mark.parametrize("data", ["table", "arrays"])
@pytest.mark.parametrize(
    "written",
    [
        {},
        {"kind": "npy"},
        {"mask_exif": 0},  # the image's own
        {"mask_exif": 1, "drawn": "upright"},
        {"size": (6, 6)},
    ],
    ids=str,
)
def test_a_mask_lies_on_its_image(tmp_path, data, written):
    """The mask of every picture is the picture."""
    write(tmp_path, data, **written)
    found = read(tmp_path, data)
    seen = 0
    for part in ("train", "validation", "test"):
        for index in range(len(found.parts[part])):
            image, targets = found.parts[part][index]
            wanted = torch.from_numpy(np.asarray(image).copy()) if data == "table" else image[0]
            assert torch.equal(targets["mask"], wanted.long()), (part, index)
            seen += 1
    assert seen == 8


def test_a_mask_that_was_drawn_on_the_upright_image_is_known_by_its_size(tmp_path):
    write(tmp_path, "table", drawn="upright")
    found = read(tmp_path, "table")
    for part in ("validation", "test"):  # these lie on their side
        for index in range(2):
            image, targets = found.parts[part][index]
            assert np.array_equal(np.asarray(image), targets["mask"])


@pytest.mark.parametrize("data", ["table", "arrays"])
def test_a_mask_of_neither_size_is_refused_in_one_line(tmp_path, data):
    write(tmp_path, data)
    folder = tmp_path / "validation/mask" if data == "arrays" else tmp_path / "masks"
    Image.fromarray(stored(0, (5, 6))).save(folder / "5.png")
    source = images.Images(read(tmp_path, data), DataConfig(name=data, image_size=(4, 4)))
    with pytest.raises(DataError, match=r"\(7, 5\), or .* is stored, \(5, 7\)") as error:
        list(source.open(torch.device("cpu")).steps("validation", 2))
    assert "\n" not in str(error.value)
    assert "5.png" in str(error.value)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_labels_turn_as_pillow_turns_pictures(orientation):
    levels = stored(0)
    target = torch.from_numpy(levels).long()
    for task, own in ((Segments("a", 4), target), (Depth("a"), target.float()[None])):
        found = turn_label(task, own, Turn(orientation, (5, 7)))
        assert torch.equal(found.reshape(found.shape[-2:]).byte(), torch.from_numpy(
            upright(levels, orientation).copy()
        ))  # fmt: skip
        assert turn_label(task, own, None) is own
        assert turn_label(task, own, Turn(orientation, (7, 6))) is own


@pytest.mark.parametrize(
    ("orientation", "sides"), [(1, (1, 1)), (2, (-1, 1)), (3, (-1, -1)), (4, (1, -1))]
)
def test_normals_turn_with_their_image(orientation, sides):
    normals = torch.randn(3, 5, 7)
    found = turn_label(Normals("a"), normals, Turn(orientation, (5, 7)))
    for axis, sign in enumerate((*sides, 1)):
        wanted = upright(normals[axis].numpy(), orientation)
        assert np.array_equal(found[axis].numpy(), sign * wanted)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_normals_of_an_image_on_its_side_are_refused(orientation):
    with pytest.raises(DataError, match=r"say that it lies on its side\. Store both") as error:
        turn_label(Normals("a"), torch.ones(3, 5, 7), Turn(orientation, (5, 7)))
    assert "\n" not in str(error.value)


class Given:
    """Pictures as a camera stored them, given from Python with masks of the same layout."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        levels = stored(index)
        picture = Image.fromarray(levels)
        picture.getexif()[ORIENTATION] = index + 1
        picture.info["exif"] = picture.getexif().tobytes()
        return picture, {"mask": torch.from_numpy(levels).long()}


def test_pictures_given_from_python_are_turned_with_their_masks():
    data = TaskData([Segments("mask", 4)], dict.fromkeys(("train", "validation", "test"), Given()))
    source = images.Images(data, DataConfig(name="table", channels=1, image_size=(6, 6)))
    assert turn_of(Given()[4][0]) is None
    for index in range(8):
        image, targets = source.reader.open("train", index)
        assert np.array_equal(np.asarray(image), targets["mask"]), index
