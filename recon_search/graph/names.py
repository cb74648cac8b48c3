"""Names of tasks: given in lists, and written into the paths of modules."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote, unquote

import torch
from torch import nn

from recon_search.errors import SplitError
from recon_search.graph.tensors import is_writable

_TAKEN = nn.ModuleDict()  # its attributes cannot name modules


def names_of(names: Iterable[str], what: str) -> tuple[str, ...]:
    """Return names that were given as a list, a tuple, ... of text.

    Args:
        names: what was given.
        what: what it stands for, in the plural, for the message.

    Raises:
        SplitError: it is one text, which would be read letter by letter, or holds none.
    """
    if isinstance(names, str):
        raise SplitError(f"{what} must be a list of names, got the text {names!r}. Put it in [].")
    found = tuple(names) if isinstance(names, Iterable) else (names,)
    for name in found:
        if not isinstance(name, str):
            raise SplitError(f"{what} must be a list of names, got {names!r}. Give text in [].")
    return found


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def encode(task: str) -> str:
    """Return the part of a module path that stands for a task.

    Different tasks have different parts. Most names stand for themselves. Those that torch's
    modules use as attributes, that Python does not read back as they are, or that hold `.`, `+`,
    quotes or backslashes become a `+` and the name as in a URL: `train` is `+train`, `a.b` is
    `+a%2Eb`. Parts of several tasks can be joined by `+`, for no part is empty.
    """
    if "+" not in task and is_writable(task) and not hasattr(_TAKEN, task):
        return task
    return "+" + quote(task, safe="").replace(".", "%2E")


def decode(part: str) -> str:
    """Return the task that a part of a module path stands for (see `encode`)."""
    return unquote(part[1:]) if part.startswith("+") else part
