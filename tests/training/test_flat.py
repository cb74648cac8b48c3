"""Records of epochs as a table."""

import csv
import json

import pytest

from recon_search.training.checkpoint import write_history
from recon_search.training.flat import flatten, write_table


def record(epoch, **more):
    return {
        "epoch": epoch,
        "train": {"a, b": 0.5 / epoch, 'say "c"': float("nan")},
        "validation": {"a, b": {"accuracy": 10.0 * epoch}},
        **more,
    }


def test_every_number_of_every_epoch_is_in_the_table_and_in_the_records(tmp_path):
    history = [record(1), record(2, test={"a, b": {"accuracy": 3.0}}), record(3)]
    write_history(tmp_path, history)
    with (tmp_path / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    for row, own in zip(rows, history, strict=True):
        flat = flatten(own)
        assert {name: cell for name, cell in row.items() if cell} == {
            name: str(value) for name, value in flat.items()
        }
    assert rows[0]["test/a, b/accuracy"] == ""
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.csv", "metrics.jsonl"]


@pytest.mark.parametrize("history", [[], [{}], [record(1)]])
def test_what_stood_there_is_replaced_whole(tmp_path, history):
    path = tmp_path / "metrics.csv"
    path.write_text("old\n" * 100)
    write_table(path, history)
    assert "old" not in path.read_text()
    assert len(path.read_text().splitlines()) == 1 + len(history)
