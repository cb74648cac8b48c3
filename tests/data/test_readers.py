"""What readers read obeys the contract of feeds, kept or streamed."""

import json

import pytest
import torch

from recon_search.data.registry import find_source
from recon_search.recipe import DataConfig, TaskConfig
from tests.data.contract import FeedContract
from tests.data.files import encoded, photo_rows, write_image, write_photos

TASKS = {
    "species": TaskConfig(kind="classes"),
    "age": TaskConfig(kind="values"),
    "healthy": TaskConfig(kind="binary", weight=0.5),
}
SIZE = (8, 9)


def open_feed(tasks, **settings):
    return find_source(DataConfig(**settings), tasks).open(torch.device("cpu"))


class TestTable(FeedContract):
    """With missing labels."""

    CACHE = "auto"

    @pytest.fixture
    def feed(self, tmp_path):
        rows = photo_rows(80)
        write_photos(tmp_path, rows)
        settings = {"file": "labels.csv", "image": "file", "ratio": (0.6, 0.2, 0.2)}
        return open_feed(TASKS, name="table", root=str(tmp_path), cache=self.CACHE, **settings)


class TestStreamedTable(TestTable):
    CACHE = "none"


class TestFolders(FeedContract):
    @pytest.fixture
    def feed(self, tmp_path):
        for place, part in enumerate(("train", "test")):
            for index in range(70 if part == "train" else 20):
                write_image(tmp_path / part / "ab"[index % 2] / f"{index}.png", 100 * place + index)
        return open_feed({}, name="image-folder", root=str(tmp_path))


class TestParquet(FeedContract):
    @pytest.fixture
    def feed(self, tmp_path):
        pyarrow = pytest.importorskip("pyarrow")
        import pyarrow.parquet as parquet

        rows = [{"image": {"bytes": encoded(index)}, "label": index % 3} for index in range(80)]
        told = json.dumps(
            {"info": {"features": {"label": {"names": list("abc"), "_type": "ClassLabel"}}}}
        )
        table = pyarrow.Table.from_pylist(rows).replace_schema_metadata({"huggingface": told})
        parquet.write_table(table, tmp_path / "all.parquet")
        tasks = {"label": TaskConfig(kind="classes")}
        return open_feed(tasks, name="parquet", root=str(tmp_path), ratio=(0.6, 0.2, 0.2))


def test_a_schema_is_known_and_tasks_with_every_label_are_complete(tmp_path):
    write_photos(tmp_path)
    config = DataConfig(
        name="table", root=str(tmp_path), file="labels.csv", image="file", split="part"
    )
    schema = find_source(config, TASKS).schema
    assert schema.shape == (3, *SIZE)
    assert schema.complete == {"healthy"}
    assert [task.weight for task in schema.tasks] == [1.0, 1.0, 0.5]
    assert schema.fingerprint
