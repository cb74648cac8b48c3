"""What is wrong with a recipe, a sentence for each key: pydantic's errors in words of a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from recon_search.errors import nearest, shortened

Place = tuple[int | str, ...]

OPENING = "input should be "


def describe(error: ValidationError, raw: Any, model: type[BaseModel]) -> list[str]:
    """Say what is wrong with each key, addressed by its path; of broken rules one sentence each.

    Of a key that may hold one of several types pydantic tells what each type misses, and names the
    type in the path. Here that is one sentence, about the type that got furthest into the value.

    Args:
        error: of the model.
        raw: what was validated: plain values.
        model: of the whole.
    """
    problems: dict[Place, list[tuple[Place, Any]]] = {}
    for number, problem in enumerate(error.errors()):
        path, choice = _locate(problem, raw)
        problems.setdefault((number,) if choice is None else choice, []).append((path, problem))
    return [line for found in problems.values() for line in _sentences(found, model)]


def _locate(problem: Any, raw: Any) -> tuple[Place, Place | None]:
    """The path to what is wrong; and to the key that may hold one of several types, if one does."""
    path: list[int | str] = []
    choice, loc = None, problem["loc"]
    for number, part in enumerate(loc, start=1):
        if number == len(loc) and problem["type"] == "missing":
            path.append(part)
        elif _holds(raw, part):
            path.append(part)
            raw = raw[part]
        elif choice is None:
            choice = tuple(path)
    return tuple(path), choice


def _holds(value: Any, part: int | str) -> bool:
    if isinstance(value, Mapping):
        return part in value
    return isinstance(value, list) and isinstance(part, int) and part < len(value)


def _sentences(found: Sequence[tuple[Place, Any]], model: type[BaseModel]) -> Iterator[str]:
    """Say what is wrong with one key: where several types were tried, with the deepest parts."""
    deepest = max(len(path) for path, _ in found)
    places: dict[Place, list[Any]] = {}
    for path, problem in found:
        if len(path) == deepest:
            places.setdefault(path, []).append(problem)
    for path, problems in places.items():
        first, name = problems[0], ".".join(map(str, path))
        if first["type"] == "rules":
            yield from first["ctx"]["broken"]
        elif first["type"] == "extra_forbidden":
            known = _keys_beside(path, model)
            yield f"`{name}` is no key of a recipe.{nearest(str(path[-1]), known)}"
        elif first["type"] == "missing":
            yield f"`{name}` is needed and missing."
        else:
            texts = list(dict.fromkeys(problem["msg"].lower() for problem in problems))
            more = [text.removeprefix(OPENING) for text in texts[1:]]
            said = ", or ".join([texts[0], *more])
            yield f"`{name}`: {said}, got {shortened(repr(first['input']), 300)}."


def _keys_beside(loc: Sequence[int | str], model: type[BaseModel]) -> list[str]:
    """The valid keys of the section in which an unknown key was found."""
    is_named = False  # the next part is a name, as of a task, and no key
    for part in loc[:-1]:
        if is_named:
            is_named = False
            continue
        if str(part) not in model.model_fields:
            return []
        annotation = model.model_fields[str(part)].annotation
        section = _section_in(annotation)
        if section is None:
            return []
        model = section
        is_named = get_origin(annotation) is dict
    return list(model.model_fields)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a key holds: itself, or one of several by name, or perhaps none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_section_in(argument) for argument in get_args(annotation))
    return next((section for section in found if section is not None), None)
