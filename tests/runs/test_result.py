"""What a training has given, on disk and back."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from recon_search.errors import ArtefactError
from recon_search.runs.result import Result

METRICS = {"a": {"accuracy": 50.0, "loss": 1.5}, "b, split": {"accuracy": 25.0, "loss": 2.5}}


@pytest.fixture
def result(tmp_path):
    names = tuple(METRICS)
    return Result(names, "pcgrad", 3, 100, 2000, METRICS, 1.25, tmp_path, {"a": {"accuracy": 1.0}})


@pytest.mark.parametrize("is_tested", [False, True])
def test_a_result_is_read_as_it_was_written(result, tmp_path, is_tested):
    result = result if is_tested else replace(result, test=None)
    assert Result.load(tmp_path) is None, "it is not done before it is saved"
    result.save()
    assert Result.load(tmp_path) == result


def test_a_folder_may_be_moved(result, tmp_path):
    result.save()
    moved = tmp_path.with_name("moved")
    tmp_path.rename(moved)
    assert Result.load(moved) == replace(result, directory=moved)
    assert str(tmp_path) not in (moved / "result.json").read_text()


def test_a_result_of_an_earlier_version_is_read(result, tmp_path):
    """It had no `test` before somebody asked."""
    values = {**result.as_json(), "label": "joint, unsplit"}
    del values["test"]
    (tmp_path / "result.json").write_text(json.dumps(values))
    assert Result.load(tmp_path) == replace(result, test=None)


@pytest.mark.parametrize(
    "change", [None, "{", [], {"tasks": 3}, {"seconds": "x"}, {"validation": None}, "missing"]
)
def test_a_damaged_result_says_what_to_do(result, tmp_path, change):
    values = result.as_json()
    if isinstance(change, dict):
        values |= change
    elif change == "missing":
        del values["n_parameters"]
    text = change if change == "{" else json.dumps(values)
    if isinstance(change, list):
        text = "[]"
    if change is None:
        text = "null"
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ArtefactError, match=r"result.*(Write it again|train anew)") as caught:
        Result.load(Path(tmp_path))
    assert "\n" not in str(caught.value)
