"""Tasks from their specs: what is refused, and kinds of one's own."""

from dataclasses import dataclass

import pytest

from recon_search.errors import ArtefactError, RecipeError
from recon_search.tasks.classes import Classes
from recon_search.tasks.registry import KINDS, create_task


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "clases", "name": "a"}, r"got 'clases'. Did you mean 'classes'"),
        ({"name": "a", "n_classes": 2}, r"must be one of classes.*, got None"),
        ({"kind": 3, "name": "a"}, r"must be one of classes.*, got 3"),
        ({"kind": "classes", "name": "a"}, r"cannot be made of \{'name': 'a'\}.*n_classes"),
        ({"kind": "classes", "name": "a", "n_classes": 2, "side": 3}, r"unexpected.*'side'"),
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
        ({"kind": "builtins:dict", "name": "x"}, ArtefactError, r"must make a recon_search\.Task"),
    ],
)
def test_a_kind_of_ones_own_that_is_none_is_one_line(spec, error, message):
    with pytest.raises(error, match=message) as caught:
        create_task(spec)
    assert "\n" not in str(caught.value)
