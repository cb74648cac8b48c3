"""What a finished model says of images, held against its outputs and against `evaluate`."""

import csv
import json
import os
import shutil

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image

import recon_search as rs
from recon_search.data.gallery import find_pictures
from recon_search.errors import DataError, ReconSearchError
from recon_search.model.network import build_model
from recon_search.recipe import BackboneConfig, HeadConfig
from recon_search.stages.predict import Predictor
from recon_search.tasks.binary import Binary
from recon_search.tasks.classes import Classes
from recon_search.tasks.labels import Labels
from recon_search.tasks.values import Values
from tests.command import call

TASKS = (
    Classes("kind of $ tree", 3, class_names=("oak", "beech", "fir")),
    Binary("healthy", class_names=("no", "yes")),
    Labels("seen", 2, class_names=("bird", "nest"), none="nothing"),
    Values("age", mean=40.0, std=3.0, unit="years"),
    Values("place", 2, mean=(1.0, 2.0), std=(3.0, 4.0)),
)
BACKBONE = BackboneConfig(name="resnet18", args={"channels": [4, 4, 8, 8]})
INPUT = {"shape": [3, 12, 14], "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}


def write_images(folder, n=7, size=(14, 12)):
    """Write PNG files of noise, some in a folder below; returns their paths and pixels."""
    generator = np.random.default_rng(0)
    found = {}
    for index in range(n):
        path = folder / ("b" if index % 2 else "a") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        found[path] = pixels
    return dict(sorted(found.items()))


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A folder with a model of random weights, and images of its size."""
    folder = tmp_path_factory.mktemp("given")
    model = build_model(BACKBONE, HeadConfig(), TASKS, shape=INPUT["shape"])
    model.save(folder / "model", input=INPUT)
    (folder / "broken.png").write_bytes(b"no image")
    return folder, write_images(folder / "images")


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_column_is_what_the_outputs_mean_in_the_users_terms(given):
    folder, images = given
    done = call("predict", "model", "images", "--device", "cpu", cwd=folder)
    assert (done.code, done.error) == (0, "")
    assert done.output == "Written: predictions.csv, 7 images\n"
    rows = rows_of(folder / "predictions.csv")
    pixels = torch.from_numpy(np.stack(list(images.values()))).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(INPUT[key])[:, None, None] for key in ("mean", "std"))
    with torch.no_grad():
        outputs = rs.load(folder / "model")((pixels / 255 - mean) / std)
    found = {name: output.double().numpy() for name, output in outputs.items()}
    for index, (row, path) in enumerate(zip(rows, images, strict=True)):
        assert row["file"] == str(path.relative_to(folder))
        shares = np.exp(found["kind of $ tree"][index])
        shares /= shares.sum()
        assert row["kind of $ tree"] == ("oak", "beech", "fir")[shares.argmax()]
        assert float(row["kind of $ tree probability"]) == pytest.approx(shares.max(), rel=1e-5)
        yes = 1 / (1 + np.exp(-found["healthy"][index, 0]))
        assert row["healthy"] == ("yes" if yes > 0.5 else "no")
        assert float(row["healthy probability"]) == pytest.approx(yes, rel=1e-5)
        chances = 1 / (1 + np.exp(-found["seen"][index]))
        named = [n for n, p in zip(("bird", "nest"), chances, strict=True) if p > 0.5]
        assert row["seen"] == ("|".join(named) or "nothing")
        assert float(row["seen probability nest"]) == pytest.approx(chances[1], rel=1e-5)
        assert float(row["age"]) == pytest.approx(40 + 3 * found["age"][index, 0], rel=1e-5)
        assert float(row["place 2"]) == pytest.approx(2 + 4 * found["place"][index, 1], rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_batches_change_neither_order_nor_numbers(given, batch_size):
    folder, _ = given
    whole = rs.predict(folder / "model", [folder / "images"])
    cut = rs.predict(folder / "model", [folder / "images"], batch_size=batch_size)
    assert cut.keys() == whole.keys()
    assert cut["file"] == whole["file"]
    assert cut["age"] == pytest.approx(whole["age"], abs=1e-4)
    assert cut["kind of $ tree"] == whole["kind of $ tree"]


def test_every_ending_holds_the_same_rows(given):
    folder, _ = given
    for name in ("p.csv", "p.jsonl", "p.parquet"):
        done = call(
            "predict", "model", "images", "--out", name, "--batch-size", 3, "--probabilities",
            "--device", "cpu", cwd=folder,
        )  # fmt: skip
        assert done.code == 0, done.error
    lines = [json.loads(line) for line in (folder / "p.jsonl").read_text().splitlines()]
    assert lines == pyarrow.parquet.read_table(folder / "p.parquet").to_pylist()
    assert [{k: str(v) for k, v in line.items()} for line in lines] == rows_of(folder / "p.csv")
    numbers = [value for line in lines for value in line.values() if isinstance(value, float)]
    assert len(numbers) > len(lines)
    assert all(value == float(f"{value:.6g}") for value in numbers)
    for name in ("oak", "beech", "fir"):
        assert all(0 < line[f"kind of $ tree probability {name}"] < 1 for line in lines)


def test_images_are_named_by_file_folder_pattern_and_table(tmp_path, monkeypatch):
    images = [str(path) for path in write_images(tmp_path / "all", 5)]
    (tmp_path / "all/notes.txt").write_text("no image")
    (tmp_path / "list.csv").write_text("what,file\nx,all/b/1.png\ny,all/a/0.png\n")
    monkeypatch.chdir(tmp_path)

    def names(*given, **options):
        return [picture.name for picture in find_pictures(given, **options)]

    relative = [str(path)[len(str(tmp_path)) + 1 :] for path in images]
    assert names("all") == names("all/**/*.png") == relative
    assert names("all/a/*.png") == relative[:3]
    assert names("all/b/3.png", "all") == ["all/b/3.png", *(n for n in relative if "3" not in n)]
    assert names("list.csv") == ["all/b/1.png", "all/a/0.png"]
    assert find_pictures(["list.csv"])[0].path.is_file()
    (tmp_path / "other.csv").write_text("path\n1.png\n")
    (picture,) = find_pictures(["other.csv"], column="path", root=tmp_path / "all/b")
    assert (picture.name, picture.path) == ("1.png", tmp_path / "all/b/1.png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.png"], "found nothing at nowhere.png"),
        (["nowhere/*.png"], "'nowhere/*.png' names none"),
        (["empty"], "'empty' names none"),
        (["images", "broken.png"], "broken.png must be an image"),
        (["images", "cut.png"], "cut.png must be a whole image, it does not decode"),
        (["gone.csv"], "gone.png must be readable"),
        (["list.csv"], "must have the column 'file' that `--column` names, found path"),
        (["list.csv", "--column", "path"], "list.csv row 3: column 'path' must hold a path"),
        (["images", "--out", "p.txt"], "--out must end in .csv, .jsonl, .parquet, got 'p.txt'"),
        (["images", "--grid", "g.jpg"], "--grid must end in .png or .svg, got 'g.jpg'"),
        (["broken.png", "--skip-unreadable"], "none of 1 is one"),
    ],
)
def test_what_is_no_image_is_one_line_and_nothing_is_written(given, arguments, message):
    folder, images = given
    (folder / "empty").mkdir(exist_ok=True)
    (folder / "cut.png").write_bytes(next(iter(images)).read_bytes()[:200])
    (folder / "list.csv").write_text("path,x\na.png,1\n,2\n")
    (folder / "gone.csv").write_text("file\ngone.png\n")
    out = ["--out", "never.csv"] if "--out" not in arguments else []
    done = call("predict", "model", *arguments, *out, "--device", "cpu", cwd=folder)
    assert (done.code, done.output) == (2, "")
    assert message in done.error
    errors = [line for line in done.error.splitlines() if not line.startswith("skipped: ")]
    assert len(errors) == 1
    assert not any((folder / name).exists() for name in ("never.csv", "p.txt"))
    assert not list(folder.glob(".never*"))


def test_what_cannot_be_read_is_skipped_where_that_is_asked_for(given):
    folder, images = given
    arguments = ["images", "broken.png", "--skip-unreadable", "--out", "some.csv", "--json"]
    done = call("predict", "model", *arguments, "--device", "cpu", cwd=folder)
    assert done.code == 0
    assert done.error.startswith("skipped: broken.png must be an image")
    values = json.loads(done.output)
    assert values == {"out": "some.csv", "images": 7, "skipped": ["broken.png"], "grid": None}
    assert len(rows_of(folder / "some.csv")) == len(images)


def test_a_grid_shows_names_that_are_no_formulas(given):
    folder, _ = given
    done = call("predict", "model", "images", "--grid", "g.svg", "--device", "cpu", cwd=folder)
    assert (done.code, done.error) == (0, "")
    assert "Written: g.svg" in done.output
    text = (folder / "g.svg").read_text()
    assert text.count("<!-- kind of $ tree: ") == 7
    assert text.count("years -->") == 7


def test_tasks_may_be_called_like_columns(tmp_path):
    tasks = [Classes("file", 2), Classes("file probability", 2)]
    build_model(BACKBONE, HeadConfig(), tasks, shape=(3, 12, 14)).save(
        tmp_path / "model", input=INPUT
    )
    write_images(tmp_path / "images", 2)
    found = rs.predict(tmp_path / "model", [tmp_path / "images"])
    assert len(found) == 5
    assert {len(column) for column in found.values()} == {2}


def test_a_model_that_says_nothing_of_its_images_is_refused(tmp_path):
    build_model(BACKBONE, HeadConfig(), TASKS, shape=(3, 12, 14)).save(
        tmp_path / "model", input={"shape": [3, 12, 14]}
    )
    with pytest.raises(ReconSearchError, match="how its images are made ready"):
        Predictor.load(tmp_path / "model")
    with pytest.raises(DataError, match="found nothing at"):
        find_pictures([tmp_path / "nothing"])


RECIPE = """
[data]
name = "table"
root = "photos"
file = "labels.csv"
image = "file"
split = "part"
image_size = [12, 12]
resize = "{resize}"
[tasks.species]
kind = "classes"
[tasks.age]
kind = "values"
[backbone]
name = "resnet18"
args = {{ channels = [4, 4, 8, 8] }}
[train]
epochs = 1
batch_size = 8
lr = 0.05
[probe]
epochs = 1
"""


@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_predictions_are_as_good_as_evaluate_says(tmp_path, resize):
    """On photographs of many sizes, which each command makes ready by itself."""
    folder = tmp_path / "photos"
    rows = []
    for index in range(40):
        (path,) = write_images(folder / str(index), 1, (13 + index % 7, 12 + index % 5))
        part = ("train", "validation", "test", "test")[index % 4]
        name = str(path.relative_to(folder))
        rows.append([name, part, ("oak", "fir")[index % 3 == 0], 20 + index])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "part", "species", "age"], *rows])
    (tmp_path / "my.toml").write_text(RECIPE.format(resize=resize))
    arguments = ["--workers", 1, "--device", "cpu", "--out", "out"]
    done = call("train", "my.toml", *arguments, cwd=tmp_path)
    assert done.code == 0, done.error
    done = call("evaluate", "out/model", "my.toml", "--device", "cpu", "--json", cwd=tmp_path)
    measured = json.loads(done.output)["metrics"]
    done = call("predict", "out/model", "photos/labels.csv", "--device", "cpu", cwd=tmp_path)
    assert done.code == 0, done.error
    said = {row["file"]: row for row in rows_of(tmp_path / "predictions.csv")}
    test = [row for row in rows if row[1] == "test"]
    right = [said[name]["species"] == species for name, _, species, _ in test]
    errors = [abs(float(said[name]["age"]) - age) for name, _, _, age in test]
    assert measured["species"]["accuracy"] == pytest.approx(100 * np.mean(right), abs=1e-4)
    assert measured["age"]["mae"] == pytest.approx(np.mean(errors), rel=1e-5)


def test_images_that_are_read_are_not_written_over(given, tmp_path):
    folder, _ = given
    shutil.copytree(folder / "model", tmp_path / "model")
    shutil.copytree(folder / "images", tmp_path / "images")
    first = min((tmp_path / "images").rglob("*.png"))
    (tmp_path / "list.csv").write_text(f"file\n{first}\n")
    (tmp_path / "link.csv").symlink_to("list.csv")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for option in (
        ("--out", "list.csv"),
        ("--out", "link.csv"),
        ("--grid", first.relative_to(tmp_path)),
    ):
        done = call("predict", "model", "list.csv", *option, "--device", "cpu", cwd=tmp_path)
        assert done.code == 2
        assert f"{option[0]} must be another file than those that are read" in done.error
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_image_whose_name_is_no_text_is_told_before_anything_is_computed(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / os.fsdecode(b"caf\xe9.png"))
    with pytest.raises(DataError, match=r"must be text in UTF-8.*caf\\udce9\.png'\. Rename it"):
        find_pictures([tmp_path])
