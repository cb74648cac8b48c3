from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recon_search.errors import ArtefactError, SplitError
from recon_search.graph.branch import branch
from recon_search.graph.layers import backbone_digest
from recon_search.graph.split import Split, load_counts
from tests import toys


def grouped() -> Split:
    return Split(("a", "b", "c"), {"conv": (("c", "a"), ("b",)), "bn": (("c",), ("b",), ("a",))})


def test_groups_are_brought_into_task_order() -> None:
    split = grouped()
    assert split.layers == {"conv": (("a", "c"), ("b",)), "bn": (("a",), ("b",), ("c",))}
    same = Split(
        ("a", "b", "c"),
        {"bn": (("a",), ("c",), ("b",)), "conv": (("b",), ("a", "c"))},
        chosen={"rule": "by hand"},
    )
    assert split == same
    assert hash(split) == hash(same)
    assert split.digest == same.digest
    assert split != Split.private(["conv", "bn"], ["a", "b", "c"])


def test_private_gives_each_task_its_own() -> None:
    split = Split.private(["conv"], ["a", "b"], chosen={"k": 1})
    assert split.layers == {"conv": (("a",), ("b",))}
    assert split.chosen == {"k": 1}
    assert Split.private([], ["a"]).layers == {}


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ((("a", "b"),), "needs at least two groups of tasks, 'conv' has a b"),
        ((("a",),), "must hold every task"),
        ((("a",), ("b", "a")), r"must hold every task of \['a', 'b'\] once, got a \| b a"),
        ((("a", "b"), ()), r"got a b \| \(empty\)"),
        ((("a",), ("x",)), "must hold every task"),
    ],
)
def test_groups_that_are_no_partition_are_refused(
    groups: tuple[tuple[str, ...], ...], message: str
) -> None:
    with pytest.raises(SplitError, match=message):
        Split(("a", "b"), {"conv": groups})


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([], "at least one task"),
        (["a", "a"], "each named once"),
        (["", "c"], "printable text"),
        (["a\n", "c"], r"printable text.*got 'a\\n'"),
        (["\ud800", "c"], "printable text"),
        ([1, "c"], "must be a list of names, got"),
        (None, "must be a list of names, got None"),
    ],
)
def test_names_that_no_file_could_hold_are_refused(tasks: Any, message: str) -> None:
    with pytest.raises(SplitError, match=message):
        Split.private([], tasks)
    with pytest.raises(SplitError, match=message):
        Split(tasks, {})


PQ = Split.private(["conv"], ["p", "q"])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Split.private("conv1", ["p", "q"]),
        lambda: Split.private(["conv1"], "pq"),
        lambda: Split.private([], "pq"),
        lambda: Split("pq", {}),
        lambda: Split(("p", "q"), {"conv1": "pq"}),
        lambda: Split(("p", "q"), {"conv1": ["p", "q"]}),
        lambda: Split(("p", "q"), {"conv1": [["p"], "q"]}),
        lambda: Split(("pq", "r"), {"conv1": ["pq", "r"]}),
        lambda: Split(("p", "q"), {"conv1": None}),
        lambda: Split(("p", "q"), {"conv1": [["p"], 3]}),
        lambda: Split(("p", "q"), ["conv1"]),
        lambda: Split(("p", "q"), "conv1"),
        lambda: Split(("p", "q"), {1: [["p"], ["q"]]}),
        lambda: Split.private([1], ["p", "q"]),
        lambda: PQ.for_tasks("xy"),
        lambda: PQ.for_tasks("pq", {"p": "p", "q": "q"}),
        lambda: branch(toys.Residual(), PQ, "pq"),
    ],
)
def test_a_text_is_no_list_of_names(make: Callable[[], object]) -> None:
    with pytest.raises(
        SplitError, match=r"must be (a list|given with).*(Put|Give|Write) "
    ) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"tasks": "pq"},
        {"layers": {"conv": "pq"}},
        {"layers": {"conv": ["p", "q"]}},
        {"layers": ["conv"]},
        {"layers": "conv"},
    ],
)
def test_a_text_in_a_file_is_no_list_of_names(change: dict[str, Any], tmp_path: Path) -> None:
    PQ.save(tmp_path / "split.json")
    value = json.loads((tmp_path / "split.json").read_text())
    del value["digest"]  # as a person does who changes the file
    (tmp_path / "split.json").write_text(json.dumps(value | change))
    with pytest.raises(SplitError, match=r"must be (a list|given with)"):
        Split.load(tmp_path / "split.json")


def test_round_trip_through_a_readable_file(tmp_path: Path) -> None:
    split = Split(
        grouped().tasks,
        grouped().layers,
        backbone={"name": "resnet18", "digest": "0123"},
        chosen={"rule": "projection", "k": 2},
        provenance={"seed": 0},
    )
    split.save(tmp_path / "split.json")
    text = (tmp_path / "split.json").read_text()
    assert '\n    "conv": [["a", "c"], ["b"]],\n' in text
    assert json.loads(text)["format"] == "recon-search/split/1"
    loaded = Split.load(tmp_path / "split.json")
    assert loaded == split
    assert loaded.backbone == split.backbone
    assert loaded.chosen == split.chosen
    assert loaded.provenance == split.provenance
    assert list(loaded.layers) == list(split.layers)
    empty = Split.private([], ["a", "b"])
    empty.save(tmp_path / "empty.json")
    assert Split.load(tmp_path / "empty.json") == empty


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text('{"format": "recon-search/split/2"}')
    with pytest.raises(ArtefactError, match="must have format 'recon-search/split/1'"):
        Split.load(path)
    path.write_text('{"format": "recon-search/split/1", "tasks": ["a"]}')
    with pytest.raises(ArtefactError, match="must have tasks and layers"):
        Split.load(path)


def test_a_file_changed_by_hand_is_read_once_its_digest_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    PQ.save(path)
    text = path.read_text().replace('"conv"', '"other"')
    path.write_text(text)
    with pytest.raises(ArtefactError, match=r'If you .* delete the line "digest"'):
        Split.load(path)
    path.write_text("".join(line for line in text.splitlines(True) if '"digest": "' not in line))
    assert list(Split.load(path).layers) == ["other" if n == "conv" else n for n in PQ.layers]


def test_an_unknown_key_of_a_file_is_refused(tmp_path: Path) -> None:
    PQ.save(tmp_path / "split.json")
    text = (tmp_path / "split.json").read_text()
    (tmp_path / "split.json").write_text(text.replace('"digest"', '"digesu"'))
    with pytest.raises(ArtefactError, match='"digest" or none like it, found "digesu"'):
        Split.load(tmp_path / "split.json")


def test_reuse_on_other_tasks() -> None:
    split = Split.private(["conv"], ["a", "b"]).for_tasks(["x", "y", "z"])
    assert split == Split.private(["conv"], ["x", "y", "z"])


def test_reuse_of_groups_needs_a_mapping() -> None:
    with pytest.raises(SplitError, match=r"needs a mapping.*layer 'conv' has the groups a c \| b"):
        grouped().for_tasks(["x", "y"])
    carried = grouped().for_tasks(["x", "y", "z"], {"x": "b", "y": "a", "z": "c"})
    assert carried.layers == {"conv": (("x",), ("y", "z")), "bn": (("x",), ("y",), ("z",))}
    both_in_one = grouped().for_tasks(["x", "y"], {"x": "a", "y": "c"})
    assert both_in_one.layers == {"bn": (("x",), ("y",))}
    with pytest.raises(SplitError, match=r"'y' goes to None"):
        grouped().for_tasks(["x", "y"], {"x": "a"})
    assert list(grouped().for_tasks(["x", "y"], grouped="share").layers) == ["bn"]
    assert list(grouped().for_tasks(["x", "y"], grouped="private").layers) == ["conv", "bn"]


def test_reuse_on_some_of_the_same_tasks_maps_each_to_itself() -> None:
    assert grouped().for_tasks(["c", "b"]) == Split.private(["conv", "bn"], ["c", "b"])
    assert grouped().for_tasks(["c", "b", "a"]).layers["conv"] == (("c", "a"), ("b",))


def test_check_names_the_missing_layer_and_its_neighbours() -> None:
    toy = toys.Residual()
    Split.private(["body"], ["a", "b"], backbone={"digest": backbone_digest(toy)}).check(toy)
    with pytest.raises(SplitError, match=r"Residual does not have 'bodi'. Did you mean 'body'"):
        Split.private(["bodi"], ["a", "b"]).check(toy)
    with pytest.raises(SplitError, match="made for toy with digest 0, this Residual has"):
        Split.private([], ["a", "b"], backbone={"name": "toy", "digest": "0"}).check(toy)


def test_published_counts_are_read_most_first(tmp_path: Path) -> None:
    path = tmp_path / "counts.json"
    path.write_text('{"conv1": 3, "bn1": 9, "fc": 3}')
    assert list(load_counts(path).items()) == [("bn1", 9), ("conv1", 3), ("fc", 3)]
    path.write_text('["conv1"]')
    with pytest.raises(ArtefactError, match="JSON object of layer to number"):
        load_counts(path)
