"""Objects of the user's own, by import path: nothing is unpickled, everything is named.

Importing runs the module's code, so a path is as trustworthy as whoever wrote it down.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable
from typing import Any

from recon_search.errors import RecipeError, ReconSearchError, in_one_line, nearest

PATTERN = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"
"""What an import path looks like: "package.module:name"."""


def is_import_path(text: str) -> bool:
    """Whether a text names something to import."""
    return re.fullmatch(PATTERN, text) is not None


def is_standard(path: str) -> bool:
    """Whether an import path is of Python's own library, where merely importing may do things."""
    return re.split("[.:]", path)[0] in sys.stdlib_module_names


def import_callable(path: str, what: str) -> Callable[..., Any]:
    """Import what a path names.

    Args:
        path: "package.module:name".
        what: it is for, as errors call it.

    Raises:
        RecipeError: the path is malformed, the module cannot be imported, or it has no such name.
    """
    if not is_import_path(path):
        raise RecipeError(
            f'{what} must be "package.module:name" to be imported, got {path!r}. Name the module '
            "before the colon and the class or function after it."
        )
    module_name, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # whatever the module's own code raises
        raise RecipeError(
            f"{what} must be importable, {module_name} is not ({in_one_line(error)}). Install it, "
            "or put its folder on PYTHONPATH."
        ) from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise RecipeError(
                f"{what} must exist, {module_name} has no '{name}'."
                f"{nearest(part, dir(found))} Check the name after the colon."
            )
        found = getattr(found, part)
    if not callable(found):
        raise RecipeError(f"{what} must be a class or a function, {path} is {found!r}. Check it.")
    return found  # type: ignore[no-any-return]


def call(path: str, what: str, *args: Any, **kwargs: Any) -> Any:
    """Import what a path names and call it.

    Raises:
        RecipeError: as `import_callable`, or it does not take these arguments, or fails.
    """
    function = import_callable(path, what)
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except ValueError:
        pass  # it does not tell what it takes
    except TypeError as error:
        given = _show(args, kwargs)
        raise RecipeError(f"{what} {path} cannot be called with ({given}): {error}.") from None
    try:
        return function(*args, **kwargs)
    except ReconSearchError:
        raise
    except Exception as error:  # whatever their code raises
        raise RecipeError(
            f"{what} {path} must not fail when called with ({_show(args, kwargs)}), it raised "
            f"{in_one_line(error)}. Mend it."
        ) from error


def _show(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    return ", ".join([*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())])
