"""`own_batches`: each task's batches are of the samples that have a label of it."""

import pytest
import torch

from recon_search.data.registry import find_source
from recon_search.errors import DataError, RecipeError
from recon_search.recipe import DataConfig, TaskConfig, parse_recipe
from recon_search.stages.data import Looked, examine
from tests.data.files import photo_rows, write_image, write_photos

TASKS = {"species": TaskConfig(kind="classes", ignore=["beech"]), "age": TaskConfig(kind="values")}
TABLE = {"name": "table", "file": "labels.csv", "image": "file", "split": "part"}


def source(root, tasks, **settings):
    return find_source(DataConfig(root=str(root), own_batches=True, **settings), tasks)


def test_a_row_is_a_sample_of_each_task_that_it_has_a_label_of(tmp_path):
    rows = write_photos(tmp_path, photo_rows(60))
    tasks = {**TASKS, "species": TaskConfig(kind="classes")}
    found = source(tmp_path, tasks, **TABLE)
    labelled = {
        part: tuple(sum(bool(r[t]) for r in rows if r["part"] == part) for t in tasks)
        for part in ("train", "validation", "test")
    }
    feed = found.open(torch.device("cpu"))
    assert {part: feed.lengths(part) for part in labelled} == labelled
    assert sum(labelled["train"]) > sum(r["part"] == "train" for r in rows)
    assert found.schema.complete == set(tasks)
    first = found.data.lanes("train")[1].rows.start
    assert found.data.name("train", first).startswith("labels.csv row 2 ")
    names = [row["file"] for row in rows if row["part"] == "test" and row["age"]]
    start = found.data.lanes("test")[1].rows.start
    for place, name in enumerate(names):
        assert f"({name})" in found.data.name("test", start + place)


def test_a_cell_that_a_task_ignores_is_no_label(tmp_path):
    rows = photo_rows(60)
    for index, row in enumerate(rows):
        row["species"] = ["oak", "beech", "pine"][index % 3]
    write_photos(tmp_path, rows)
    n = sum(row["part"] == "train" and row["species"] != "beech" for row in rows)
    found = source(tmp_path, TASKS, **TABLE)
    assert found.open(torch.device("cpu")).lengths("train")[0] == n


def write_trees(root):
    """Two trees whose files have the same names and are other images."""
    for number, (tree, n) in enumerate((("cats", 5), ("dogs", 8))):
        for part in ("train", "val", "test"):
            for index in range(n):
                path = root / tree / part / "xy"[index % 2] / f"{index}.png"
                write_image(path, 1000 * number + 10 * index + len(part))


def test_trees_have_nothing_to_do_with_each_other(tmp_path):
    write_trees(tmp_path)
    tasks = {"cats": TaskConfig(), "dogs": TaskConfig()}
    feed = source(tmp_path, tasks, name="image-folder").open(torch.device("cpu"))
    assert [feed.lengths(part) for part in ("train", "validation", "test")] == [(5, 8)] * 3
    joined = DataConfig(root=str(tmp_path), name="image-folder")
    with pytest.raises(DataError, match="an image must stand in one part"):
        find_source(joined, tasks)


def test_what_tasks_share_is_told_by_the_images_and_not_by_the_samples(tmp_path):
    rows = [r for r in photo_rows(60) if r["species"]]
    write_photos(tmp_path, rows)
    raw = {
        "data": {**TABLE, "root": str(tmp_path), "own_batches": True},
        "tasks": {"species": {"kind": "classes"}, "age": {"kind": "values"}},
        "backbone": {"name": "resnet18"},
        "train": {"epochs": 1, "batch_size": 4, "lr": 0.1},
        "probe": {"epochs": 1},
    }
    found = examine(Looked(parse_recipe(raw)))
    train = [row for row in rows if row["part"] == "train"]
    (pair,) = found.overlaps
    assert (pair.both, pair.either) == (sum(bool(row["age"]) for row in train), len(train))
    assert found.repeated == 0
    assert [task.labelled["train"] for task in found.tasks] == [pair.either, pair.both]
    assert [task.samples["train"] for task in found.tasks] == [pair.either, pair.both]


def test_data_whose_tasks_share_images_by_nature_has_none():
    with pytest.raises(RecipeError, match=r"`data.own_batches` is for table and image-folder and"):
        parse_recipe(
            {
                "data": {"name": "arrays", "own_batches": True},
                "backbone": {"name": "resnet18"},
                "train": {"epochs": 1, "batch_size": 4, "lr": 0.1},
                "probe": {"epochs": 1},
            }
        )
