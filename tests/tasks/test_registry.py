"""Tasks from their specs: what is refused, and kinds of one's own."""

import sys
from dataclasses import dataclass

import pytest

from recon_search.errors import ArtefactError, RecipeError
from recon_search.tasks.binary import Binary
from recon_search.tasks.classes import Classes
from recon_search.tasks.depth import Depth
from recon_search.tasks.edges import Edges
from recon_search.tasks.labels import Labels
from recon_search.tasks.normals import Normals
from recon_search.tasks.registry import (
    KINDS,
    OF_CELLS,
    OF_PIXELS,
    create_task,
    fit_pixels,
    fit_task,
)
from recon_search.tasks.segments import Segments
from recon_search.tasks.task import CellTask, PixelTask, class_names, units
from recon_search.tasks.values import Values


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "clases", "name": "a"}, r"got 'clases'. Did you mean 'classes'"),
        ({"name": "a", "n_classes": 2}, r"must be one of classes.*, got None"),
        ({"kind": 3, "name": "a"}, r"must be one of classes.*, got 3"),
        ({"kind": "classes", "name": "a"}, r"cannot be made of \{'name': 'a'\}.*n_classes"),
        ({"kind": "classes", "name": "a", "n_classes": 2, "side": 3}, r"unexpected.*'side'"),
        ({"kind": "classes", "name": "a", "nclasses": 2}, r"'nclasses'\. Did you mean 'n_classes'"),
        ({"kind": "labels", "name": "a"}, r"missing.*'n_classes'"),
        ({"kind": "values", "name": "a", "units": "kg"}, r"'units'\. Did you mean 'unit'"),
        ({"kind": "binray", "name": "a"}, r"got 'binray'. Did you mean 'binary'"),
    ],
)
def test_a_spec_of_nothing_known_is_one_line(spec, message):
    with pytest.raises(ArtefactError, match=message) as caught:
        create_task(spec)
    assert "\n" not in str(caught.value)


def test_a_spec_is_left_as_it_is():
    spec = {"kind": "classes", "name": "a", "n_classes": 2}
    create_task(spec)
    assert spec == {"kind": "classes", "name": "a", "n_classes": 2}


@dataclass(frozen=True)
class Own(Classes):
    """A kind of one's own, which names itself by its import path."""

    def spec(self):
        return {**super().spec(), "kind": f"{__name__}:Own"}


def test_a_kind_of_ones_own_is_named_by_its_import_path():
    known = set(KINDS)
    task = Own("a", 4, weight=0.5)
    assert create_task(task.spec()) == task
    assert set(KINDS) == known, "nothing is registered on the way"


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        (
            {"kind": f"{__name__}:Oen", "name": "x"},
            RecipeError,
            "Did you mean 'Own'",
        ),
        ({"kind": "not_there:Own", "name": "x"}, RecipeError, "not_there is not"),
        ({"kind": f"{__name__}:Own", "nme": "x"}, RecipeError, "cannot be called with"),
        ({"kind": "builtins:dict", "name": "x"}, ArtefactError, "must be a class with loss"),
        ({"kind": "subprocess:Popen", "args": ["true"]}, ArtefactError, "Nothing else is called"),
    ],
)
def test_a_kind_of_ones_own_that_is_none_is_one_line(spec, error, message):
    with pytest.raises(error, match=message) as caught:
        create_task(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "cells", "made"),
    [
        ("classes", ["a", "b"], Classes("x", 2, class_names=("a", "b"))),
        ("binary", ["no", "yes"], Binary("x", class_names=("no", "yes"))),
        ("labels", ["a|b"], Labels("x", 2, class_names=("a", "b"))),
        ("values", ["1", "3"], Values("x", 1, 2, 1)),
        (f"{__name__}:Own", ["a", "b"], Own("x", 2, class_names=("a", "b"))),
    ],
)
def test_a_task_is_made_of_the_cells_of_the_training_part(kind, cells, made):
    options = {"kind": kind}
    found = fit_task("x", iter(cells), options)
    assert found == made
    assert isinstance(found, CellTask)
    assert options == {"kind": kind}, "left as it is"


class Blind:
    """A kind of one's own that trains, but reads no cells; it names no unit and no classes."""

    name, weight, reads, n_outputs, metrics = "x", 1.0, "vector", 2, {"score": 1}
    loss = n_labels = meter = spec = lambda *_: None

    @classmethod
    def fit(cls, name, cells, *, size=1):
        return cls()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("clases", {}, "Task 'x': The kind of a task must be one of .*'clases'.*mean 'classes'"),
        (None, {}, "Task 'x': The kind of a task must be one of .*None"),
        (f"{__name__}:Oen", {}, "The kind of task 'x' must exist.*Did you mean 'Own'"),
        (f"{__name__}:pytest", {}, "The kind of task 'x' must be a class or a function"),
        ("builtins:dict", {}, r"The kind of task 'x' must have a classmethod fit\(name, cells"),
        (f"{__name__}:Blind", {}, "must read cells.*without target, predict or units"),
        (
            f"{__name__}:Blind",
            {"sise": 2},
            "what .*Blind.fit takes, got sise: .*'sise'",
        ),
        (f"{__name__}:Own", {"wieght": 2}, "Task 'x' has no option `wieght`.*mean 'weight'"),
    ],
)
def test_a_kind_that_reads_no_cells_is_one_line(kind, options, message):
    with pytest.raises(RecipeError, match=message) as caught:
        fit_task("x", ["a", "b"], {"kind": kind, **options})
    assert "\n" not in str(caught.value)


def test_what_a_kind_of_ones_own_does_not_say_is_empty():
    tasks = [Blind(), Classes("a", 2, metrics=["f1"]), Values("b", unit="m", metrics=["r2", "mae"])]
    expected = {"x": {"score": ""}, "a": {"f1": "%"}, "b": {"r2": "", "mae": "m"}}
    assert units(tasks) == expected
    assert [class_names(task) for task in tasks] == [(), ("0", "1"), ()]


@dataclass(frozen=True)
class OwnDepth(Depth):
    """A kind of one's own, of pixels."""

    def spec(self):
        return {**super().spec(), "kind": f"{__name__}:OwnDepth"}


def test_a_kind_of_ones_own_may_be_made_of_pictures():
    options = {"kind": f"{__name__}:OwnDepth", "unit": "m"}
    found = fit_pixels("x", iter(()), options)
    assert found == OwnDepth("x", unit="m") == create_task(found.spec())
    assert isinstance(found, PixelTask)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        *[(kind, f"must read pictures .*segments, .*got '{kind}'") for kind in OF_CELLS],
        ("segmnets", "must be one of .*got 'segmnets'. Did you mean 'segments'"),
        (None, "must be one of .*got None"),
        (f"{__name__}:Own", r"'x' must read pictures, .*:Own made a Own without .*decode"),
        (f"{__name__}:Blind", r"'x' must read pictures, .*made a Blind without target"),
        (f"{__name__}:Oen", "The kind of task 'x' must exist.*Did you mean 'Own'"),
    ],
)
def test_a_kind_that_reads_no_pictures_is_one_line(kind, message):
    options = {"classes": ["a", "b"]} if str(kind).endswith("Own") else {}
    with pytest.raises(RecipeError, match=message) as caught:
        fit_pixels("x", ["a", "b"], {"kind": kind, **options})
    assert "\n" not in str(caught.value)


def test_a_kind_reads_cells_or_pictures():
    assert OF_CELLS.keys() | OF_PIXELS.keys() == KINDS.keys()
    assert not OF_CELLS.keys() & OF_PIXELS.keys()
    assert {kind.reads for kind in OF_PIXELS.values()} == {"pyramid"}
    assert {kind.reads for kind in OF_CELLS.values()} == {"vector"}


@pytest.mark.parametrize(
    ("task", "spec"),
    [
        (Classes("a", 2), {"kind": "classes", "name": "a", "n_classes": 2}),
        (Binary("a"), {"kind": "binary", "name": "a"}),
        (Labels("a", 2), {"kind": "labels", "name": "a", "n_classes": 2}),
        (Values("a"), {"kind": "values", "name": "a", "n_values": 1}),
        (Segments("a", 2), {"kind": "segments", "name": "a", "n_classes": 2}),
        (Depth("a"), {"kind": "depth", "name": "a"}),
        (Normals("a"), {"kind": "normals", "name": "a"}),
        (Edges("a"), {"kind": "edges", "name": "a"}),
    ],
)
def test_a_setting_at_its_default_is_not_in_the_spec(task, spec):
    """So that a later version's settings change the identity of no training."""
    assert {key: task.spec()[key] for key in spec} == spec
    assert task.spec().keys() - spec.keys() <= {"mean", "std"}


def test_nothing_of_pythons_own_is_imported_for_a_spec():
    """Some of it does things when it is imported."""
    with pytest.raises(ArtefactError, match="must be a class with loss"):
        create_task({"kind": "antigravity:Task", "name": "a"})
    assert "antigravity" not in sys.modules
