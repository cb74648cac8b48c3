"""What a finished model says of every pixel: files held against its outputs, in either size."""

import csv
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import recon_search as rs
from recon_search.data.array_files import read_array
from recon_search.data.gallery import Picture
from recon_search.model.network import build_model
from recon_search.recipe import BackboneConfig, HeadConfig
from recon_search.tasks.classes import Classes
from recon_search.tasks.depth import Depth
from recon_search.tasks.edges import Edges
from recon_search.tasks.normals import Normals
from recon_search.tasks.segments import Segments
from recon_search.views.map_files import map_files
from tests.command import call

TASKS = (
    Segments("road / sky", 5),
    Classes("weather", 3, class_names=("sun", "rain", "snow")),
    Depth("depth", unit="m", criterion="silog"),
    Normals("normals"),
    Edges("edges"),
)
DENSE = {"road / sky": ".png", "depth": ".npy", "normals": ".npy", "edges": ".npy"}
INPUT = {"shape": [3, 32, 40], "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
CPU = ["--device", "cpu"]


def save_model(folder, tasks=TASKS, **inputs):
    torch.manual_seed(0)
    backbone = BackboneConfig(name="resnet18", args={"channels": [4, 4, 8, 8]})
    model = build_model(backbone, HeadConfig(), tasks, shape=INPUT["shape"])
    model.save(folder, input=INPUT | inputs)


def write_images(folder, sizes):
    """Write images of noise; returns their pixels by path."""
    found = {}
    for index, (height, width) in enumerate(sizes):
        path = folder / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        found[path] = np.random.default_rng(index).integers(
            0, 256, (height, width, 3), dtype=np.uint8
        )
        Image.fromarray(found[path]).save(path)
    return dict(sorted(found.items()))


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A folder with a mixed model of random weights, and images of its size."""
    folder = tmp_path_factory.mktemp("given")
    save_model(folder / "model")
    return folder, write_images(folder / "images", [(32, 40)] * 3)


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def decoded(folder, images):
    """By hand: outputs of the network, as what they mean."""
    pixels = torch.from_numpy(np.stack(list(images))).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(INPUT[key])[:, None, None] for key in ("mean", "std"))
    with torch.no_grad():
        found = rs.load(folder)((pixels / 255 - mean) / std)
    return {
        "road / sky": found["road / sky"].argmax(1).numpy(),
        "depth": found["depth"][:, 0].exp().numpy(),
        "normals": F.normalize(found["normals"]).numpy(),
        "edges": found["edges"][:, 0].sigmoid().numpy(),
    }


@pytest.mark.parametrize("out", ["said.csv", "below/said.csv"])
def test_files_hold_what_outputs_mean_and_the_table_says_where_they_are(given, out):
    folder, images = given
    done = call("predict", "model", "images", "--out", out, *CPU, "--batch-size", 2, cwd=folder)
    assert (done.code, done.error) == (0, "")
    wanted = decoded(folder / "model", images.values())
    rows = rows_of(folder / out)
    assert list(rows[0]) == [
        "file", "road / sky", "weather", "weather probability", "depth", "normals", "edges"
    ]  # fmt: skip
    for index, (row, path) in enumerate(zip(rows, images, strict=True)):
        assert row["weather"] in ("sun", "rain", "snow")
        for task, ending in DENSE.items():
            file = (folder / out).parent / row[task]
            assert file.suffix == ending
            assert file.parent.name == path.parent.name, "folders of images are kept"
            found = read_array(file)
            assert found.dtype == (np.uint8 if ending == ".png" else np.float32)
            np.testing.assert_allclose(found, wanted[task][index], atol=1e-5)
    assert {row["depth"] for row in rows} == {
        f"said/depth/{name}.npy" for name in ("a/0", "b/1", "a/2")
    }
    assert "12 maps of 32 x 40, the network's size" in done.output


def test_maps_go_where_they_are_wanted_and_are_painted_on_demand(given, tmp_path):
    folder, _ = given
    arguments = ["--maps", tmp_path / "else", "--paint", "--grid", "g.png", "--json"]
    done = call("predict", "model", "images", *arguments, *CPU, cwd=folder)
    assert done.code == 0, done.error
    assert json.loads(done.output)["maps"] == str(tmp_path / "else")
    row = rows_of(folder / "predictions.csv")[0]
    assert row["depth"] == str(tmp_path / "else/depth/a/0.npy")
    for task in ("depth", "normals", "edges"):
        with Image.open(tmp_path / "else" / task / "a/0.png") as picture:
            assert (picture.mode, picture.size) == ("RGB", (40, 32))
    with Image.open(row["road / sky"]) as picture:
        assert picture.mode == "P"
        classes = np.unique(np.asarray(picture))
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) == len(
            classes
        )
    with Image.open(folder / "g.png") as picture:
        assert picture.width > picture.height, "maps stand beside their image"


@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_maps_are_brought_back_to_images_of_any_size(tmp_path, resize):
    save_model(tmp_path / "model", resize=resize)
    sizes = [(64, 80), (16, 60), (70, 21)]
    images = write_images(tmp_path / "images", sizes)
    arguments = ["--map-size", "image", "--grid", "g.png"]
    done = call("predict", "model", "images", *arguments, *CPU, cwd=tmp_path)
    assert done.code == 0, done.error
    assert ("unknown outside the middle" in done.output) == (resize == "crop")
    for row, pixels in zip(rows_of(tmp_path / "predictions.csv"), images.values(), strict=True):
        height, width = pixels.shape[:2]
        found = {task: read_array(tmp_path / row[task]) for task in DENSE}
        assert found["normals"].shape == (3, height, width)
        unknown = {"road / sky": found["road / sky"] == 255} | {
            task: np.isnan(found[task]) for task in ("depth", "edges")
        }
        expected = np.ones((height, width), bool)
        scale = max(32 / height, 40 / width) if resize == "crop" else None
        if scale is None:
            expected[:] = False
        else:
            gone = [(height - 32 / scale) / 2, (width - 40 / scale) / 2]
            top, left = (round(each) for each in gone)
            expected[top : height - top, left : width - left] = False
        for own in unknown.values():
            assert (own != expected).mean() < 0.08, "but for a pixel at the border"
        assert (found["road / sky"][~unknown["road / sky"]] < 5).all()
        length = np.linalg.norm(found["normals"], axis=0)
        np.testing.assert_allclose(length[~np.isnan(length)], 1, atol=1e-5)


def test_python_gives_the_maps_themselves(given):
    folder, images = given
    wanted = decoded(folder / "model", images.values())
    found = rs.predict(folder / "model", [folder / "images"], batch_size=2)
    for task in DENSE:
        np.testing.assert_allclose(torch.stack(found[task]).numpy(), wanted[task], atol=1e-5)
    whole = rs.predict(folder / "model", [folder / "images"], map_size="image")
    assert torch.equal(torch.stack(whole["edges"]), torch.stack(found["edges"]))


@pytest.mark.parametrize(
    "arguments", [["--maps", "x"], ["--map-size", "image"], ["--paint"]], ids=" ".join
)
def test_what_is_for_pixels_is_refused_where_no_task_has_any(tmp_path, arguments):
    save_model(tmp_path / "model", [TASKS[1]])
    write_images(tmp_path / "images", [(32, 40)])
    done = call("predict", "model", "images", *arguments, *CPU, cwd=tmp_path)
    assert (done.code, done.output) == (2, "")
    assert "are for tasks of pixels, of which the model has none" in done.error
    assert not (tmp_path / "predictions.csv").exists()


def test_a_task_of_pixels_may_be_called_like_a_column(tmp_path):
    tasks = [Classes("a", 2), Depth("a probability"), Edges("file")]
    save_model(tmp_path / "model", tasks)
    write_images(tmp_path / "images", [(32, 40)])
    done = call("predict", "model", "images", "--grid", "g.png", *CPU, cwd=tmp_path)
    assert done.code == 0, done.error
    (row,) = rows_of(tmp_path / "predictions.csv")
    for task in ("a probability", "file"):
        assert row[task].endswith(".npy")
        assert (tmp_path / row[task]).is_file()


@pytest.mark.parametrize(
    ("n", "values"),
    [(3, [0, 2, -1]), (255, [254, 0, -1]), (256, [255, 7, -1]), (300, [299, 256, -1])],
)
def test_png_files_hold_every_class_and_what_is_unknown(tmp_path, n, values):
    picture = Picture("i.png", tmp_path / "i.png")
    found = torch.tensor([values], dtype=torch.int16)
    with map_files(tmp_path / "maps", [picture]) as files:
        (path,) = files.write(Segments("a", n), [picture], [found])
        assert not path.exists()
    read = read_array(path).astype(int).tolist()
    assert read == [[*values[:2], 255 if n < 256 else 65535]]
    task = Segments("a", n, ignore_index=read[0][2])
    assert task.target(read_array(path)).tolist() == [[*values[:2], -100]]


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../x", "ümlaut ?"])
def test_no_name_of_a_task_leaves_the_folder(tmp_path, name):
    pictures = [Picture(p, tmp_path / p) for p in ("a/1.png", "a/1.jpg", "b/2.png")]
    with map_files(tmp_path / "maps", pictures) as files:
        paths = files.write(Depth(name), pictures, [torch.ones(2, 2)] * 3)
    assert all(path.is_file() for path in paths)
    assert len(set(paths)) == 3
    assert all(path.resolve().parents[2] == tmp_path / "maps" for path in paths)


@pytest.mark.parametrize("has_some", [True, False])
def test_an_image_that_cannot_be_read_leaves_no_maps(tmp_path, has_some):
    save_model(tmp_path / "model")
    if has_some:
        write_images(tmp_path / "images", [(32, 40)] * 3)
    (tmp_path / "images").mkdir(exist_ok=True)
    (tmp_path / "images/z.png").write_bytes(b"no image")
    before = sorted(tmp_path.iterdir())
    done = call("predict", "model", "images", "--batch-size", 1, *CPU, cwd=tmp_path)
    assert done.code == 2
    assert "z.png must be an image" in done.error
    assert sorted(tmp_path.iterdir()) == before
    if has_some:
        done = call("predict", "model", "images", "--skip-unreadable", *CPU, cwd=tmp_path)
        assert done.code == 0
        assert len(list((tmp_path / "predictions/edges").rglob("*.npy"))) == 3


def test_a_file_in_the_place_of_the_folder_is_left_alone(given):
    folder, _ = given
    (folder / "taken").write_text("mine")
    done = call("predict", "model", "images", "--out", "taken.csv", *CPU, cwd=folder)
    assert (done.code, done.output) == (2, "")
    assert "--maps must be a folder, got the file taken. Name another." in done.error
    assert (folder / "taken").read_text() == "mine"
