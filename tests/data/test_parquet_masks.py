"""Labels of pixels in the cells of Parquet files: files or lists, of images of any layout."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from recon_search.data import images
from recon_search.data.registry import READERS
from recon_search.data.source import PARTS
from recon_search.errors import DataError, RecipeError
from recon_search.recipe import DataConfig, TaskConfig
from tests.data.files import encoded

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

TASKS = {
    "segmentation": TaskConfig(kind="segments"),
    "depth": TaskConfig(kind="depth"),
    "normal": TaskConfig(kind="normals"),
}
SIDES = (6, 7)


def arrays_of(index):
    """A sample as the mirrors of NYUv2 hold it: channels first, fractions."""
    draw = np.random.default_rng(index)
    normal = draw.normal(size=(3, *SIDES))
    return {
        "image": draw.random((3, *SIDES)).astype(np.float32),
        "segmentation": draw.integers(-1, 4, SIDES),
        "depth": draw.random((1, *SIDES)).astype(np.float32) + 0.5,
        "normal": (normal / np.linalg.norm(normal, axis=0)).astype(np.float32),
    }


def as_lists(name, array):
    return array.tolist()


def as_files(name, array):
    """The content of files: images and masks as PNG, the rest as NPY."""
    file = io.BytesIO()
    if name in ("image", "segmentation"):
        levels = np.moveaxis(array * 255, 0, 2) if name == "image" else array % 256
        Image.fromarray(levels.astype(np.uint8)).save(file, format="PNG")
    else:
        np.save(file, array)
    return {"bytes": file.getvalue(), "path": None} if name == "segmentation" else file.getvalue()


def write(root, stored=as_lists, rows=None, metadata=None, n=(8, 3)):
    """Write a file of train and one of val; `rows` change some."""
    first = 0
    for part, count in zip(("train", "val"), n, strict=True):
        found = []
        for index in range(first, first + count):
            row = {name: stored(name, array) for name, array in arrays_of(index).items()}
            found.append(row | ((rows or {}).get(index) or {}))
        first += count
        table = pyarrow.Table.from_pylist(found)
        if metadata is not None:
            table = table.replace_schema_metadata({"huggingface": json.dumps(metadata)})
        parquet.write_table(table, root / f"{part}-00000-of-00001.parquet")


def read(root, tasks=None, **settings):
    config = DataConfig(name="parquet", root=str(root), ratio=(0.5, 0.25, 0.25), **settings)
    return READERS["parquet"](config, TASKS if tasks is None else tasks)


def samples(data):
    """All, by their place in the files."""
    found = {}
    for part in PARTS:
        for index in range(len(data.parts[part])):
            found[data.name(part, index)] = data.parts[part][index]
    order = sorted(found, key=lambda key: (key.startswith("val"), int(key.split()[-1])))
    return [found[key] for key in order]


def features():
    """What `datasets` says of arrays."""
    found = {
        name: {"shape": list(array.shape), "dtype": str(array.dtype), "_type": "Array3D"}
        for name, array in arrays_of(0).items()
    }
    return {"info": {"features": found}}


def as_flat(name, array):
    return array.ravel().tolist()


@pytest.mark.parametrize("layout", ["nested", "flat", "files", "tensors"])
def test_every_label_is_what_was_written(tmp_path, layout):
    stored = {"flat": as_flat, "files": as_files}.get(layout, as_lists)
    write(tmp_path, stored, metadata=features() if layout == "flat" else None)
    if layout == "tensors":
        write_tensors(tmp_path)
    tasks = TASKS | {"segmentation": TaskConfig(kind="segments", ignore_index=[-1, 255])}
    data = read(tmp_path, tasks)
    assert data.tasks[0].n_classes == 4
    assert data.image_size == SIDES
    for index, (image, targets) in enumerate(samples(data)):
        known = arrays_of(index)
        if layout != "files":
            assert torch.equal(image, torch.from_numpy(known["image"]))
        mask = torch.from_numpy(known["segmentation"])
        assert torch.equal(targets["segmentation"], mask.where(mask >= 0, -100))
        assert torch.equal(targets["depth"], torch.from_numpy(known["depth"][0]))
        torch.testing.assert_close(targets["normal"], torch.from_numpy(known["normal"]))


def write_tensors(root):
    """Write as arrow's own tensors, flat lists whose type says their shape."""
    first = 0
    for part, count in (("train", 8), ("val", 3)):
        given = [arrays_of(index) for index in range(first, first + count)]
        first += count
        columns = {}
        for name, array in given[0].items():
            kind = pyarrow.fixed_shape_tensor(pyarrow.from_numpy_dtype(array.dtype), array.shape)
            flat = np.stack([own[name] for own in given]).reshape(count, -1)
            storage = pyarrow.FixedSizeListArray.from_arrays(flat.ravel(), flat.shape[1])
            columns[name] = pyarrow.ExtensionArray.from_storage(kind, storage)
        parquet.write_table(pyarrow.table(columns), root / f"{part}-00000-of-00001.parquet")


def test_what_is_null_has_no_label_and_the_rest_is_read_as_batches(tmp_path):
    write(tmp_path, rows={2: {"depth": None}, 9: {"normal": None}})
    source = images.Images(read(tmp_path), DataConfig(name="parquet", image_size=(4, 4)))
    feed = source.open(torch.device("cpu"))
    tasks = {task.name: task for task in source.schema.tasks}
    empty = dict.fromkeys(tasks, 0)
    for part in PARTS:
        for (batch,) in feed.steps(part, 3):
            assert batch.inputs.dtype == torch.float32
            for name, target in batch.targets.items():
                empty[name] += sum(int(tasks[name].n_labels(own[None])) == 0 for own in target)
    assert empty == {"segmentation": 0, "depth": 1, "normal": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": [[[1.0, 2.0]]]}, r"column 'depth' must have the size of its image, \(6, 7\)"),
        ({"segmentation": [[7] * 7] * 6}, r"column 'segmentation': .* from 0 to 3, found 7 in 42"),
        ({"normal": [[[1.0]]]}, r"column 'normal': .*three numbers a pixel"),
        ({"depth": [[[1.0], [1.0, 2.0]]]}, r"nested lists of one shape, found lists of lengths"),
    ],
)
def test_a_label_that_is_of_no_use_is_named_by_file_and_row(tmp_path, change, message):
    tasks = TASKS | {"segmentation": TaskConfig(kind="segments", n_classes=4)}
    write(tmp_path, rows={9: change})
    with pytest.raises(DataError, match=r"val-00000-of-00001.parquet row 2: .*" + message) as error:
        list(steps_of(read(tmp_path, tasks)))
    assert len(str(error.value).splitlines()) == 1


def steps_of(data):
    source = images.Images(data, DataConfig(name="parquet", image_size=(4, 4)), is_checked=False)
    for part in PARTS:
        yield from source.open(torch.device("cpu")).steps(part, 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no picture", r"column 'depth' must hold an array \(a picture\), it does not load"),
        (b"\x93NUMPY\x01\x00", r"column 'depth' must hold an array"),
        (None, r"column 'depth' must hold an array .*Python objects, which are never unpickled"),
    ],
)
def test_files_in_cells_that_do_not_load_are_named_and_nothing_is_unpickled(
    tmp_path, content, message
):
    if content is None:
        file = io.BytesIO()
        np.save(file, np.array([Unpickled()], dtype=object), allow_pickle=True)
        content = file.getvalue()
    write(tmp_path, as_files, rows={9: {"depth": content}})
    tasks = TASKS | {"segmentation": TaskConfig(kind="segments", ignore_index=255)}
    with pytest.raises(DataError, match=rf"val-.* row 2: {message}"):
        list(steps_of(read(tmp_path, tasks)))


class Unpickled:
    """Ends the test where it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("unpickled",)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"m": TaskConfig(kind="depth", target="label")}, "'label' must hold labels of pixels as"),
        ({"m": TaskConfig(kind="depth", target=["a", "b"])}, "must be one column, of arrays"),
        ({"m": TaskConfig(kind="depth")}, "must have the column 'm' that `tasks.m` names"),
    ],
)
def test_a_column_that_holds_none_is_refused(tmp_path, tasks, message):
    rows = [{"image": encoded(i), "label": i, "a": i, "b": i} for i in range(6)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "all.parquet")
    config = DataConfig(name="parquet", root=str(tmp_path))
    with pytest.raises((DataError, RecipeError), match=message) as error:
        READERS["parquet"](config, tasks)
    assert len(str(error.value).splitlines()) == 1
