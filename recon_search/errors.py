"""The exceptions of recon-search, one tree.

ReconSearchError
├── RecipeError      a recipe has unknown keys, wrong types or values out of range
├── DataError        a data set is missing, incomplete or malformed
│   └── LabelError   a label is of no use to its task; readers say in which file and row
├── BackboneError    timm does not know the backbone, or its graph cannot be taken apart
├── SplitError       a split does not fit the backbone or the tasks
├── ArtefactError    a file is damaged, truncated or of another format version
├── FileError        the disk refuses: full, forbidden, or what is named is no regular file
├── BusyError        another process works in the folder
├── TrainingError    training cannot go on (a loss is not finite)
└── ProcessError     the processes that `torchrun` started cannot work together

Every message says the rule, the value found and the next step.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

NEAR = 0.6
"""Share of letters, in order, that a name has in common with one that may have been meant."""


class ReconSearchError(Exception):
    """Base of every error a user can cause and mend: one line and exit code 2 in the CLI."""


class RecipeError(ReconSearchError):
    """A recipe has unknown keys, wrong types or values out of range; lists all of them."""


class DataError(ReconSearchError):
    """A data set is missing, incomplete or malformed."""


class LabelError(DataError):
    """A label is of no use to its task; whoever reads it says in which file and row.

    Attributes:
        cell: the one that is wrong only beside others; None where it is wrong alone, or all are.
    """

    cell: object = None


class BackboneError(ReconSearchError):
    """timm does not know the backbone, or its graph cannot be taken apart."""


class SplitError(ReconSearchError):
    """A split does not fit the backbone or the tasks."""


class ArtefactError(ReconSearchError):
    """A file is damaged, truncated or of another format version."""


class FileError(ReconSearchError):
    """The disk refuses: it is full or forbidden, or what is named is no regular file."""


class BusyError(ReconSearchError):
    """Another process works in the folder."""


class TrainingError(ReconSearchError):
    """Training cannot go on, for instance because a loss is not finite.

    Attributes:
        training: the name of the one among several; "" where it is not known, or the only one.
    """

    training = ""


class ProcessError(ReconSearchError):
    """The processes that `torchrun` started cannot work together: one is gone, or has no GPU."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'a' or 'b'?" with up to three near names, or "" where none is near.

    Capitals do not count, and a name may be cut short. What is much farther than the nearest, a
    number for another number, and the name itself are not proposed.

    Examples:
        >>> nearest("acuracy", ["accuracy", "error", "f1"])
        " Did you mean 'accuracy'?"
        >>> nearest("acc", ["accuracy"]), nearest("rl", ["lr"]), nearest("Size", ["size"])
        (" Did you mean 'accuracy'?", " Did you mean 'lr'?", " Did you mean 'size'?")
        >>> nearest("age", ["shape"]), nearest("6", ["36"]), nearest("x", ["x"])
        ('', '', '')
    """
    if not any(letter.isalpha() for letter in name):
        return ""
    given = name.casefold()
    shares: dict[str, float] = {}
    for each in known:
        other = each.casefold()
        is_cut = 3 <= len(given) >= len(other) / 3 and other.startswith(given)
        if each != name and (is_cut or sorted(given) == sorted(other)):
            shares[each] = 1.0
        elif each != name and difflib.get_close_matches(given, [other], cutoff=NEAR):
            shares[each] = difflib.SequenceMatcher(None, other, given).ratio()
    least = max(shares.values(), default=0.0) - 0.15
    close = sorted((each for each in shares if shares[each] >= least), key=lambda e: -shares[e])[:3]
    if not close:
        return ""
    return " Did you mean " + " or ".join(f"'{match}'" for match in close) + "?"


def shortened(text: str, most: int = 600) -> str:
    """Leave out the middle of a text that is long; its end says what to do."""
    return text if len(text) <= most else f"{text[: most - 150]} ... {text[-145:]}"


def in_one_line(error: BaseException) -> str:
    """Name an exception that is none of ours, and what it says, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".rstrip(".: ")
