"""Images in the cells of Parquet files, whole or as pixels, with or without names of classes."""

import json
import shutil

import numpy as np
import pytest

from recon_search.data.registry import READERS
from recon_search.data.source import PARTS
from recon_search.errors import DataError
from recon_search.recipe import DataConfig, TaskConfig
from recon_search.tasks.classes import IGNORED
from tests.data.files import encoded, picture

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

TASKS = {"label": TaskConfig(kind="classes"), "size": TaskConfig(kind="values")}


def read(folder, tasks=None, **settings):
    config = DataConfig(name="parquet", root=str(folder), **settings)
    return READERS["parquet"](config, TASKS if tasks is None else tasks)


def rows_of(n, first=0, image=lambda seed: {"bytes": encoded(seed), "path": f"{seed}.png"}):
    """Rows with an image, a class and a number; some have no label."""
    return [
        {
            "image": image(seed),
            "label": -1 if seed % 5 == 4 else seed % 2,
            "size": None if seed % 7 == 6 else float(seed),
        }
        for seed in range(first, first + n)
    ]


def write(path, rows, names=(), types=None):
    """Write rows as `datasets` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist(rows, schema=types)
    if names:
        features = {
            "label": {"names": list(names), "_type": "ClassLabel"},
            "image": {"_type": "Image"},
        }
        told = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": told})
    parquet.write_table(table, path, row_group_size=3)


def write_mirror(root, folder="data", names=("cat", "dog"), validation="validation", **options):
    """Two files of train, one of validation, one of test."""
    write(root / folder / "train-00000-of-00002.parquet", rows_of(7, **options), names)
    write(root / folder / "train-00001-of-00002.parquet", rows_of(7, 7, **options), names)
    write(root / folder / f"{validation}-00000-of-00001.parquet", rows_of(4, 14, **options), names)
    write(root / folder / "test-00000-of-00001.parquet", rows_of(5, 18, **options), names)


def labels(data, part, task="label"):
    return data.parts[part].labels[task].tolist()


@pytest.mark.parametrize("folder", ["data", "."])
@pytest.mark.parametrize("validation", ["validation", "val"])
def test_a_mirror_is_read_by_the_names_of_its_files(tmp_path, folder, validation):
    write_mirror(tmp_path, folder, validation=validation)
    data = read(tmp_path)
    assert [len(data.parts[part]) for part in PARTS] == [14, 4, 5]
    assert data.tasks[0].class_names == ("cat", "dog")
    assert labels(data, "train")[:6] == [0, 1, 0, 1, IGNORED, 1]
    assert labels(data, "test", "size")[0] == [18.0]
    assert data.image_size == (8, 9)
    for index, seed in ((0, 0), (6, 6), (7, 7), (13, 13)):
        image, _ = data.parts["train"][index]
        assert np.array_equal(np.asarray(image), np.asarray(picture(seed)))
    assert data.name("train", 8) == "train-00001-of-00002.parquet row 2"


def test_classes_keep_the_order_of_their_names_also_those_without_a_sample(tmp_path):
    write_mirror(tmp_path, names=("dog", "cat", "cow"))
    assert read(tmp_path).tasks[0].class_names == ("dog", "cat", "cow")
    tasks = {"label": TaskConfig(kind="classes", classes=["cow", "cat", "dog"])}
    data = read(tmp_path, tasks)
    assert data.tasks[0].class_names == ("cow", "cat", "dog")
    assert labels(data, "train")[:2] == [2, 1]


def test_without_names_classes_are_what_cells_hold(tmp_path):
    write_mirror(tmp_path, names=())
    assert read(tmp_path).tasks[0].class_names == ("-1", "0", "1")
    data = read(tmp_path, missing=["-1"])
    assert data.tasks[0].class_names == ("0", "1")
    assert labels(data, "train")[4] == IGNORED


def pixels(mode):
    return lambda seed: np.asarray(picture(seed, mode=mode)).tolist()


@pytest.mark.parametrize(
    "image",
    [encoded, pixels("RGB"), pixels("L"), lambda seed: {"bytes": encoded(seed)}],
    ids=["bytes", "colour", "grey", "struct"],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_may_be_bytes_or_nested_lists(tmp_path, image, channels):
    write_mirror(tmp_path, image=image)
    data = read(tmp_path, channels=channels)
    assert data.image_size == (8, 9)
    found, _ = data.parts["validation"][1]
    assert found.mode == {1: "L", 3: "RGB"}[channels]
    if channels == 3 and image is not encoded:
        mode = "L" if np.asarray(image(15)).ndim == 2 else "RGB"
        expected = picture(15, mode=mode).convert("RGB")
        assert np.array_equal(np.asarray(found), np.asarray(expected))


@pytest.mark.parametrize("kind", ["uint8", "int64"])
@pytest.mark.parametrize("listed", ["list_", "large_list", "fixed"])
def test_nested_lists_may_be_of_any_kind(tmp_path, kind, listed):
    def nest(inner, size):
        return pyarrow.list_(inner, size) if listed == "fixed" else getattr(pyarrow, listed)(inner)

    image = nest(nest(nest(getattr(pyarrow, kind)(), 3), 9), 8)
    types = pyarrow.schema(
        [("image", image), ("label", pyarrow.int64()), ("size", pyarrow.float64())]
    )
    write(tmp_path / "all.parquet", rows_of(20, image=pixels("RGB")), types=types)
    data = read(tmp_path)
    for part in PARTS:
        index = int(data.name(part, 0).split()[-1]) - 1
        assert np.array_equal(np.asarray(data.parts[part][0][0]), np.asarray(picture(index)))


class TestOneFile:
    def test_it_is_cut_by_ratio(self, tmp_path):
        write(tmp_path / "all.parquet", rows_of(40), ("cat", "dog"))
        data = read(tmp_path, file="all.parquet", ratio=(0.5, 0.25, 0.25))
        assert [len(data.parts[part]) for part in PARTS] == [20, 10, 10]

    def test_it_is_cut_by_a_column_or_by_groups(self, tmp_path):
        rows = [
            {**row, "part": ["train", "train", "val", "test"][index % 4], "site": index // 5}
            for index, row in enumerate(rows_of(40))
        ]
        write(tmp_path / "all.parquet", rows, ("cat", "dog"))
        data = read(tmp_path, split="part")
        assert [len(data.parts[part]) for part in PARTS] == [20, 10, 10]
        data = read(tmp_path, group="site", ratio=(0.5, 0.25, 0.25))
        assert [len(data.parts[part]) for part in PARTS] == [20, 10, 10]
        sites = {
            (int(data.name(part, index).split()[-1]) - 1) // 5: part
            for part in PARTS
            for index in range(len(data.parts[part]))
        }
        assert sorted(sites) == list(range(8))

    def test_a_pattern_names_several(self, tmp_path):
        write_mirror(tmp_path)
        write(tmp_path / "data/other.parquet", rows_of(4))
        assert len(read(tmp_path, file="data/t*.parquet").parts["test"]) == 5


def test_another_column_may_hold_the_images(tmp_path):
    rows = [{"photo" if k == "image" else k: v for k, v in row.items()} for row in rows_of(20)]
    write(tmp_path / "all.parquet", rows)
    with pytest.raises(DataError, match=r"must have the column 'image' .*found photo, label, size"):
        read(tmp_path)
    assert len(read(tmp_path, image="photo").parts["train"]) == 14


BAD_CELLS = {
    "no image": ({"bytes": b"no image", "path": None}, r"row 3.*it is none that Pillow knows"),
    "a path alone": (
        {"bytes": None, "path": "x.png"},
        r"row 3: a cell must hold the bytes of an im",
    ),
    "nothing": (None, r"row 3: a cell must hold the bytes of an image or its pixels, found none"),
}


@pytest.mark.parametrize("case", BAD_CELLS)
def test_a_cell_that_holds_no_image_is_named(tmp_path, case):
    cell, message = BAD_CELLS[case]
    write_mirror(tmp_path)
    rows = rows_of(7)
    rows[2]["image"] = cell
    types = pyarrow.Table.from_pylist(rows_of(1)).schema
    write(tmp_path / "data/train-00000-of-00002.parquet", rows, ("cat", "dog"), types)
    with pytest.raises(DataError, match=rf"train-00000-of-00002\.parquet {message}") as error:
        read(tmp_path)
    assert len(str(error.value).splitlines()) == 1


BAD_PIXELS = {
    "ragged": ([[1, 2], [3]], "lists of lengths from 1 to 2"),
    "ragged in depth": ([[[1, 2, 3]], [[1, 2]]], "lists of lengths from 2 to 3"),
    "too large": ([[1, 256]], "int64 from 1 to 256"),
    "negative": ([[-1, 2]], "int64 from -1 to 2"),
    "not finite": ([[0.5, float("nan")]], "finite numbers"),
    "texts": ([["a", "b"]], "found object"),
    "fractions of five channels": ([[[0.5] * 5] * 4] * 2, r"an image, .* the shape \(2, 4, 5\)"),
    "empty": ([], "an empty list"),
    "five channels": ([[[1, 2, 3, 4, 5]] * 2] * 2, r"found uint8 \(2, 2, 5\)"),
    "one dimension": ([1, 2, 3], r"found uint8 \(3,\)"),
}


@pytest.mark.parametrize("case", BAD_PIXELS)
def test_lists_that_are_no_pixels_are_named(tmp_path, case):
    cell, message = BAD_PIXELS[case]
    write(tmp_path / "all.parquet", rows_of(20, image=lambda seed: cell))
    with pytest.raises(DataError, match=rf"all\.parquet row \d+.*({message})"):
        read(tmp_path).parts["train"][0]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (5, r"test-00000-of-00001\.parquet row 2: Task 'label' .*\(cat, dog\), found '5'"),
        ("cow", r"test-00000-of-00001\.parquet row 2: Task 'label' .*found 'cow'"),
    ],
)
def test_a_label_of_no_use_is_named_by_file_and_row(tmp_path, label, message):
    write_mirror(tmp_path)
    rows = [{**row, "label": type(label)(row["label"] % 2)} for row in rows_of(5)]
    if isinstance(label, str):
        rows = [{**row, "label": ["cat", "dog"][int(row["label"])]} for row in rows]
    rows[1]["label"] = label
    write(tmp_path / "data/test-00000-of-00001.parquet", rows, ("cat", "dog"))
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_files_that_are_not_there_not_named_or_damaged_are_said(tmp_path):
    with pytest.raises(DataError, match=r"must hold Parquet files, found none there nor in the"):
        read(tmp_path)
    with pytest.raises(
        DataError, match=r"`data\.file` must name Parquet files, found none at .*x-"
    ):
        read(tmp_path, file="x-*.parquet")
    write_mirror(tmp_path)
    write(tmp_path / "data/extra.parquet", rows_of(3))
    with pytest.raises(DataError, match=r"^extra\.parquet must be named after a part like te"):
        read(tmp_path)
    path = tmp_path / "data/extra.parquet"
    path.rename(tmp_path / "data/train-2.parquet")
    (tmp_path / "data/train-2.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"^train-2\.parquet must be a whole Parquet file"):
        read(tmp_path)


def test_a_column_that_holds_no_images_is_refused(tmp_path):
    write(tmp_path / "all.parquet", [{**row, "image": "x.png"} for row in rows_of(20)])
    with pytest.raises(DataError, match=r"Column 'image' must hold images as bytes.* found string"):
        read(tmp_path)


def test_without_pyarrow_one_line_says_what_to_install(tmp_path, monkeypatch):
    write_mirror(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r"need pyarrow, .*pip install 'recon-search\[parquet\]'"):
        read(tmp_path)


def test_the_fingerprint_is_that_of_the_files_wherever_they_lie(tmp_path):
    write_mirror(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first = read(tmp_path / "a").fingerprint
    assert first
    assert read(tmp_path / "b").fingerprint == first
    write(tmp_path / "b/data/test-00000-of-00001.parquet", rows_of(5, 30), ("cat", "dog"))
    assert read(tmp_path / "b").fingerprint != first
