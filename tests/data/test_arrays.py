"""Folders of arrays, as the copies of NYUv2 and CityScapes are laid out, are read or refused."""

import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from recon_search.data.registry import find_source
from recon_search.data.source import PARTS
from recon_search.errors import DataError, LabelError, ReconSearchError
from recon_search.recipe import parse_recipe
from recon_search.tasks.metrics import IGNORED
from tests.data.contract import FeedContract

H, W, N_CLASSES = 6, 8, 13

NYU = {
    "label": {"kind": "segments", "n_classes": N_CLASSES},
    "depth": {"kind": "depth", "unit": "m"},
    "normal": {"kind": "normals"},
}
"""Tasks that are called as their folders."""


def make_arrays(generator):
    """One sample of NYUv2, with -1, a zero depth and a zero normal."""
    label = generator.integers(0, N_CLASSES, (H, W)).astype(np.float32)
    depth = generator.uniform(0.5, 9, (H, W, 1)).astype(np.float32)
    normal = generator.normal(size=(H, W, 3))
    normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    label[0, 0], depth[0, 1], normal[0, 2] = -1, 0, 0
    return {
        "image": generator.random((H, W, 3)).astype(np.float32),
        "label": label,
        "depth": depth,
        "normal": normal.astype(np.float32),
    }


def write_tree(root, sizes, seed=0):
    """Write a tree; returns what was written, by part, number and folder."""
    written = {}
    for index, (part, n) in enumerate(sizes.items()):
        generator = np.random.default_rng([seed, index])
        for number in range(n):
            written[part, number] = make_arrays(generator)
            for folder, array in written[part, number].items():
                (root / part / folder).mkdir(parents=True, exist_ok=True)
                np.save(root / part / folder / f"{number}.npy", array)
    return written


def source(root, tasks=NYU, **settings):
    recipe = parse_recipe(
        {
            "data": {"name": "arrays", "root": str(root), **settings},
            "tasks": tasks,
            "backbone": {"name": "resnet18"},
            "train": {"epochs": 1, "batch_size": 4, "lr": 0.1},
            "probe": {"epochs": 1},
        }
    )
    return find_source(recipe.data, recipe.tasks)


def batches(root, part, tasks=NYU, **settings):
    feed = source(root, tasks, **settings).open(torch.device("cpu"))
    return [batch for step in feed.steps(part, 100) for batch in step]


SIZES = {"train": 6, "val": 3, "test": 2}


@pytest.fixture
def tree(tmp_path):
    write_tree(tmp_path, SIZES)
    return tmp_path


class TestArrays(FeedContract):
    @pytest.fixture(params=["memory", "none"])
    def feed(self, request, tmp_path):
        write_tree(tmp_path, {"train": 45, "val": 21, "test": 20})
        return source(tmp_path, cache=request.param).open(torch.device("cpu"))


def test_every_array_is_what_was_written(tmp_path):
    written = write_tree(tmp_path, SIZES)
    for part, folder in (("train", "train"), ("validation", "val"), ("test", "test")):
        (batch,) = batches(tmp_path, part)
        own = [arrays for (where, _), arrays in written.items() if where == folder]
        expected = np.stack([arrays["image"] for arrays in own])
        np.testing.assert_array_equal(batch.inputs.numpy(), np.moveaxis(expected, 3, 1))
        assert batch.inputs.dtype == torch.float32
        label = np.stack([arrays["label"] for arrays in own])
        np.testing.assert_array_equal(batch.targets["label"], np.where(label < 0, IGNORED, label))
        depth = np.stack([arrays["depth"][..., 0] for arrays in own])
        np.testing.assert_array_equal(batch.targets["depth"], np.where(depth == 0, np.nan, depth))
        normal = np.moveaxis(np.stack([arrays["normal"] for arrays in own]), 3, 1)
        np.testing.assert_allclose(batch.targets["normal"], normal, atol=1e-6)


def test_samples_are_in_the_order_of_their_numbers(tmp_path):
    written = write_tree(tmp_path, {"train": 12, "val": 2, "test": 2})
    (batch,) = batches(tmp_path, "train")
    for number in range(12):
        image = np.moveaxis(written["train", number]["image"], 2, 0)
        np.testing.assert_array_equal(batch.inputs[number], image)


def test_without_a_test_folder_val_is_for_testing_as_papers_have_it(tmp_path):
    written = write_tree(tmp_path, {"train": 20, "val": 4})
    found = source(tmp_path)
    assert [len(found.data.parts[part]) for part in PARTS] == [17, 3, 4]
    (test,) = batches(tmp_path, "test")
    for number in range(4):
        image = np.moveaxis(written["val", number]["image"], 2, 0)
        np.testing.assert_array_equal(test.inputs[number], image)
    trains, validations = (batches(tmp_path, part)[0].inputs for part in PARTS[:2])
    together = {row.numpy().tobytes() for row in torch.cat([trains, validations])}
    assert len(together) == 20, "disjoint, and all of them"


def test_a_cut_is_a_function_of_the_seed(tmp_path):
    write_tree(tmp_path, {"train": 20, "val": 4})

    def cut(**settings):
        return batches(tmp_path, "validation", **settings)[0].inputs

    assert torch.equal(cut(), cut())
    assert not torch.equal(cut(), cut(seed=1))
    assert len(cut(ratio=[0.5, 0.3, 0.2])) == 7 or len(cut(ratio=[0.5, 0.3, 0.2])) == 8


def test_folders_are_named_by_target_and_image(tree):
    for part in SIZES:
        (tree / part / "label").rename(tree / part / "label_7")
        (tree / part / "image").rename(tree / part / "rgb")
    tasks = {"seg": {"kind": "segments", "n_classes": N_CLASSES, "target": "label_7"}}
    (batch,) = batches(tree, "train", tasks, image="rgb")
    assert set(batch.targets) == {"seg"}
    with pytest.raises(DataError, match=r"folder of images, found none called image or images"):
        source(tree, tasks)
    with pytest.raises(DataError, match=r"labels of task 'label', found none; there are .*label_7"):
        source(tree, NYU, image="rgb")


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint16])
def test_levels_are_levels_and_pictures_are_read(tmp_path, dtype):
    """Labels as 16-bit millimetres, as a palette, and directions as colours."""
    generator = np.random.default_rng(0)
    for part in SIZES:
        for folder in ("image", "depth", "label", "normal"):
            (tmp_path / part / folder).mkdir(parents=True)
        for number in range(2):
            name = f"a{number}"
            levels = generator.integers(0, 256, (H, W, 3))
            if dtype == np.uint8:
                Image.fromarray(levels.astype(dtype)).save(tmp_path / part / f"image/{name}.png")
            else:
                np.save(tmp_path / part / f"image/{name}.npy", levels.astype(dtype))
            far = generator.integers(500, 9000, (H, W)).astype(np.uint16)
            Image.fromarray(far).save(tmp_path / part / f"depth/{name}.png")
            mask = Image.fromarray(generator.integers(0, 4, (H, W)).astype(np.uint8), "P")
            mask.putpalette([200, 10, 10, 0, 255, 3, 7, 8, 9, 1, 1, 1])
            mask.save(tmp_path / part / f"label/{name}.png")
            up = np.full((H, W, 3), [128, 255, 128], np.uint8)
            Image.fromarray(up).save(tmp_path / part / f"normal/{name}.png")
    tasks = {
        **NYU,
        "label": {"kind": "segments", "n_classes": 4},
        "depth": {"kind": "depth", "unit": "m", "scale": 0.001},
    }
    (batch,) = batches(tmp_path, "test", tasks)
    assert batch.inputs.dtype == torch.uint8
    np.testing.assert_array_equal(batch.inputs[1].numpy(), np.moveaxis(levels, 2, 0))
    np.testing.assert_allclose(batch.targets["depth"][1], far / 1000, rtol=1e-6)
    np.testing.assert_array_equal(batch.targets["label"][1], np.asarray(mask))
    assert batch.targets["normal"][:, 1].min() > 0.999


def test_classes_are_found_in_the_training_part(tree):
    (task,) = source(tree, {"label": {"kind": "segments"}}).schema.tasks
    assert task.n_classes == N_CLASSES


def test_a_fingerprint_is_of_what_files_hold_wherever_they_lie(tree, tmp_path):
    first = source(tree).schema.fingerprint
    shutil.copytree(tree, tmp_path / "copy")
    assert source(tmp_path / "copy").schema.fingerprint == first
    write_tree(tmp_path / "other", SIZES, seed=1)
    assert source(tmp_path / "other").schema.fingerprint != first


def save(array):
    return lambda path: np.save(path, array)


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("label/1.npy", save(np.full((H, W), 13)), "0 to 12, found 13 in 48 pixels"),
        ("label/1.npy", save(np.full((H, W), 0.5)), "whole numbers, found 0.5"),
        ("label/1.npy", save(np.zeros((H, W + 1))), r"size of its image, \(6, 8\), found \(6, 9\)"),
        ("depth/1.npy", save(np.zeros((H, W, 2))), r"one number a pixel.*\(6, 8, 2\)"),
        ("normal/1.npy", save(np.zeros((H, W))), r"three numbers a pixel.*\(6, 8\)"),
        ("image/1.npy", save(np.zeros((H, W, 4))), r"an image, .*found the shape \(6, 8, 4\)"),
        ("image/1.npy", save(np.full((H, W, 3), 300)), "levels from 0 to 255.*300"),
        ("image/1.npy", save(np.full((H, W, 3), np.nan)), "finite numbers"),
        ("image/1.npy", save(np.full((H, W, 3), "x")), "numbers, found <U1"),
        ("depth/1.npy", lambda path: path.write_bytes(b"not an array"), "must hold an array"),
        ("depth/1.npy", lambda path: path.write_bytes(path.read_bytes()[:150]), "does not load"),
        ("depth/1.npy", lambda path: path.write_bytes(b""), "does not load"),
        (
            "depth/1.npy",
            lambda path: np.save(path, np.array([[object()]]), allow_pickle=True),
            "does not load .*never unpickled",
        ),
    ],
)
def test_a_file_that_is_of_no_use_is_named_in_one_line(tree, file, damage, message):
    path = tree / "test" / file
    damage(path)
    with pytest.raises(DataError, match=message) as caught:
        batches(tree, "test")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mask_of_another_class_is_named_where_classes_are_found(tree):
    path = tree / "train/label/3.npy"
    np.save(path, np.full((H, W), -7))
    with pytest.raises(LabelError, match=re.escape(f"{path}: Task 'label' must be given")):
        source(tree, {"label": {"kind": "segments"}})


@pytest.mark.parametrize("gone", ["image/1.npy", "label/1.npy", "normal/0.npy"])
@pytest.mark.parametrize("part", ["train", "val"])
def test_a_missing_counterpart_is_named(tree, gone, part):
    path = tree / part / gone
    path.unlink()
    message = rf"{re.escape(str(path.parent))} must hold a counterpart of every file, found none of"
    with pytest.raises(DataError, match=message) as caught:
        source(tree)
    assert path.name in str(caught.value)


def test_two_files_of_one_sample_are_refused(tree):
    Image.new("RGB", (W, H)).save(tree / "train/image/0.png")
    with pytest.raises(DataError, match=r"one file a sample, found 0.npy and 0.png"):
        source(tree)


def test_folders_that_are_no_parts_are_refused(tree):
    (tree / "val").rename(tree / "validation")
    assert [len(part) for part in source(tree).data.parts.values()] == [6, 3, 2]
    (tree / "valid").mkdir()
    with pytest.raises(DataError, match=r"one folder for validation, found valid and validation"):
        source(tree)
    shutil.rmtree(tree / "train")
    (tree / "valid").rmdir()
    with pytest.raises(DataError, match="folders train and test, and perhaps val, found test"):
        source(tree)


@pytest.mark.parametrize(
    ("tasks", "settings", "message"),
    [
        ({}, {}, "data need the tasks in the recipe, found none"),
        ({"depth": {}}, {}, "`tasks.depth.kind` is needed"),
        ({"label": {"kind": "classes"}}, {}, r"must read pictures .*got 'classes'"),
        ({"label": {"kind": "segmnts"}}, {}, "Did you mean 'segments'"),
        ({"depth": {"kind": "depth", "units": "m"}}, {}, "no option `units`.*'unit'"),
        ({"depth": {"kind": "depth", "target": ["a", "b"]}}, {}, "must be one folder"),
        (NYU, {"ratio": [0.6, 0.2, 0.2]}, "`data.ratio` would cut nothing"),
        (NYU, {"root": "/not/there"}, "`data.root` must be a folder"),
        (NYU, {"canvas": 24}, "`data.canvas` is of no use to 'arrays' data"),
    ],
)
def test_a_recipe_that_does_not_fit_is_one_line(tree, tasks, settings, message):
    with pytest.raises(ReconSearchError, match=message) as caught:
        source(settings.pop("root", tree), tasks, **settings)
    assert "\n" not in str(caught.value)
