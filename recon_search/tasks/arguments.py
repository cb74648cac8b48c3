"""What kinds of tasks are given: checked once, and written down as a spec."""

from __future__ import annotations

import dataclasses
import inspect
import math
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Self, TypeGuard, TypeVar

from recon_search.errors import ArtefactError, LabelError, RecipeError, nearest
from recon_search.tasks import cells

T = TypeVar("T")


def refusal(task: object, key: str, rule: str, found: object, step: str) -> RecipeError:
    """Return the error for a task's argument that breaks a rule."""
    return RecipeError(f"Task '{task}': `{key}` must be {rule}, got {cells.show(found)}. {step}")


def settle(task: Any, known: Mapping[str, int]) -> None:
    """Check name, weight and metrics, which every kind has, and ignored cells, and settle them.

    Args:
        task: a frozen dataclass that is being made.
        known: its metrics with their directions.
    """
    is_text = isinstance(task.name, str) and bool(task.name.strip())
    if not is_text or any(unicodedata.category(letter) == "Cc" for letter in task.name):
        rule = "a text that is not empty, in one line"
        raise refusal(cells.show(task.name)[1:-1], "name", rule, task.name, "Name the task.")
    number(task.name, "weight", task.weight, lambda value: value > 0, "above 0")
    chosen = [task.metrics] if isinstance(task.metrics, str) else task.metrics
    named = [*chosen] if isinstance(chosen, Iterable) else []
    if not named or len(set(map(str, named))) < len(named):
        step = f"Choose from {', '.join(known)}."
        raise refusal(task.name, "metrics", "a list of different metrics", task.metrics, step)
    for name in named:
        among(task.name, "metrics", name, known)
    put(task, "metrics", {name: known[name] for name in named})
    if hasattr(task, "ignore"):
        put(task, "ignore", ignored(task.ignore))


def among(task: str, key: str, value: object, known: Collection[str]) -> None:
    """Check that an argument is one of several texts."""
    if not isinstance(value, str) or value not in known:
        step = f"{nearest(str(value), known)} Choose from these.".strip()
        raise refusal(task, key, f"among {', '.join(known)}", value, step)


def put(task: Any, key: str, value: object) -> None:
    """Set a field of a frozen dataclass that is being made."""
    object.__setattr__(task, key, value)


def ignored(given: object) -> tuple[str, ...]:
    """Return the texts of cells that are no label, given as one cell or as a list."""
    found = given if isinstance(given, (list, tuple)) else [given]
    return tuple(name for each in found if (name := cells.text(each)) is not None)


def number(task: str, key: str, value: object, rule: Callable[[float], bool], words: str) -> None:
    """Check that an argument is a finite number that obeys a rule."""
    if not _is_finite(value) or not rule(value):
        raise refusal(task, key, f"a finite number {words}", value, "Change it.")


def numbers(
    task: str, key: str, value: object, length: int, rule: Callable[[float], bool], words: str
) -> tuple[float, ...]:
    """Check that an argument is a list of so many finite numbers that obey a rule."""
    value = cells.plain(value)
    found = list(value) if isinstance(value, (list, tuple)) else [value]
    if len(found) != length or not all(_is_finite(each) and rule(each) for each in found):
        rules = f"{length} finite number{'s' * (length > 1)} {words}".rstrip()
        raise refusal(task, key, rules, value, "Change it.")
    return tuple(map(float, found))  # type: ignore[arg-type]


def positive(task: str, key: str, value: object, length: int) -> tuple[float, ...]:
    """Check that an argument is empty, or a list of so many positive numbers."""
    value = cells.plain(value)
    if value is None or (isinstance(value, (list, tuple)) and not value):
        return ()
    return numbers(task, key, value, length, lambda weight: weight > 0, "above 0")


def names(task: str, key: str, value: object) -> tuple[str, ...]:
    """Check that an argument is a list of different names."""
    value = cells.plain(value)
    found = [*map(cells.text, value)] if isinstance(value, (list, tuple)) else []
    usable = [name for name in found if name is not None]
    if not usable or len(usable) < len(found) or len(set(usable)) < len(usable):
        raise refusal(task, key, "a list of different names", value, "Name each once.")
    return tuple(usable)


def classes(task: str, value: object) -> tuple[str, ...]:
    """Check the option that names classes; it may be left empty."""
    value = cells.plain(value)
    if value is None or (isinstance(value, (list, tuple)) and not value):
        return ()
    return names(task, "classes", value)


def whole_numbers(task: str, key: str, value: Any) -> tuple[int, ...]:
    """Check that an argument is a whole number, or a list of different ones; None is none."""
    value = cells.plain(value)
    found = (
        list(value) if isinstance(value, (list, tuple)) else [value] if value is not None else []
    )
    is_whole = all(isinstance(each, int) and not isinstance(each, bool) for each in found)
    if not is_whole or len(set(found)) < len(found):
        rule = "a whole number, or a list of different ones"
        raise refusal(task, key, rule, value, "Change it.")
    return tuple(found)


def unit(task: Any) -> None:
    """Check that a unit is a text."""
    if not isinstance(task.unit, str):
        raise refusal(task.name, "unit", "a text", task.unit, 'Write unit = "kg".')


def test_batch(task: Any) -> None:
    """Check the number of images over which metrics are computed at once."""
    found = task.test_batch
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        rule = "a whole number of images, or 0 for the whole part"
        raise refusal(task.name, "test_batch", rule, found, "Change it.")


def class_names(task: Any, least: int) -> None:
    """Check the number and the names of classes, and name those that have no name."""
    n = task.n_classes
    if isinstance(n, bool) or not isinstance(n, int) or n < least:
        rule = f"a whole number of at least {least}"
        raise refusal(task.name, "n_classes", rule, n, "Change it.")
    found = names(task.name, "class_names", cells.plain(task.class_names) or usual_names(n))
    if len(found) != n:
        rule = f"{n} names, one a class"
        raise refusal(task.name, "class_names", rule, found, "Change them.")
    put(task, "class_names", found)


def usual_names(n: int) -> tuple[str, ...]:
    """Return what classes are called that have no names."""
    return tuple(map(str, range(n)))


def separator(task: str, found: object) -> None:
    """Check what is between the entries of a cell."""
    if not isinstance(found, str) or not found:
        step = 'Write separator = "|", or what stands between entries.'
        raise refusal(task, "separator", "a text that is not empty", found, step)


def _is_finite(value: object) -> TypeGuard[float]:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value)  # type: ignore[arg-type]


def check_named(task: str, found: Iterable[str], named: Collection[str]) -> None:
    """Check that the classes of the training part are among those that an option names.

    Raises:
        LabelError: one is not.
    """
    for name in found:
        if name not in named:
            raise LabelError(
                f"Task '{task}' must be given one of `classes` ({cells.enumerate_names(named)}), "
                f"found {cells.show(name)} in the training part.{nearest(name, named)} Correct it, "
                "or name it there or in `ignore`."
            )


def spec(task: Any, kind: str, always: Iterable[str] = ("name",)) -> dict[str, Any]:
    """Describe a task by its fields as JSON values; those at their defaults are left out."""
    found: dict[str, Any] = {"kind": kind}
    for field in dataclasses.fields(task):
        value: Any = getattr(task, field.name)
        if field.name == "metrics":
            value = tuple(value)
        if field.name in always or value != field.default:
            found[field.name] = list(value) if isinstance(value, tuple) else value
    if found.get("class_names") == list(usual_names(found.get("n_classes", 0))):
        del found["class_names"]
    return found


def check(make: Callable[..., object], kind: str, given: Mapping[str, Any]) -> None:
    """Check that what makes a task takes these arguments.

    Raises:
        ArtefactError: it does not know one, or lacks one.
    """
    parameters = inspect.signature(make).parameters
    unknown = [key for key in given if key not in parameters]
    lacking = [
        key
        for key, parameter in parameters.items()
        if parameter.default is parameter.empty and key not in given
    ]
    if unknown:
        fault = f"unexpected argument '{unknown[0]}'.{nearest(unknown[0], parameters)}"
    elif lacking:
        fault = f"missing argument '{lacking[0]}'."
    else:
        return
    raise ArtefactError(
        f"A task of kind '{kind}' cannot be made of {cells.show(dict(given))}: {fault} "
        "Write it again."
    )


def complete(
    make: Callable[..., T],
    name: str,
    found: Mapping[str, Any],
    options: Mapping[str, Any],
    *own: str,
) -> T:
    """Make a task of what was found in cells and of options.

    Args:
        make: a kind, which is a dataclass.
        name: of the task.
        found: fields that nobody gives.
        options: other fields.
        own: further options that `fit` has taken.

    Raises:
        RecipeError: an option is unknown, or of no use.
    """
    fields = [field.name for field in dataclasses.fields(make) if field.init]  # type: ignore[arg-type]
    allowed = sorted({*fields, *own} - {"name", *found} | {*own})
    for key in options:
        if key not in allowed:
            raise RecipeError(
                f"Task '{name}' has no option `{key}`; those of its kind are {', '.join(allowed)}."
                f"{nearest(key, allowed)} Rename or remove it."
            )
    return make(name=name, **found, **options)


class OfOptions:
    """A kind whose tasks are made of their options: nothing of the training part is looked at."""

    @classmethod
    def fit(cls, name: str, pictures: Iterable[Any], **options: Any) -> Self:
        """Make the task of its options.

        Raises:
            RecipeError: an option is unknown, or of no use.
        """
        return complete(cls, name, {}, options)
