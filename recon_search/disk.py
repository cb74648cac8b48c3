"""What the disk refuses, in one clear line; and what is no file at all, such as a device."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from recon_search.errors import FileError

_SPACE = "Free some, or choose another place"
_RIGHTS = "Change who may use it, or choose another place"
_ADVICE = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: "Raise the limit on the size of files, or choose another place",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: _RIGHTS,
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.ENOTDIR: "A part of its path is a file; choose another place",
    errno.EEXIST: "A file stands where a folder is needed; choose another place",
    errno.EISDIR: "A folder has that name; choose another",
    errno.ENOENT: "Check the path",
    errno.ELOOP: "Links lead in a circle there; choose another place",
    errno.EMFILE: "Raise `ulimit -n`",
    errno.ENFILE: "Close other programs",
}
_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def describe(error: OSError, path: str | Path | None = None, doing: str = "used") -> str:
    """Say in one line what the disk refuses, where, why and what to do.

    Args:
        error: what was met.
        path: the file in question; None for the one that the error names, if it names one.
        doing: what was to be done with it: used, read, written.
    """
    where = path if path is not None else error.filename
    subject = "A file" if where is None else in_one_line(where)
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    advice = _ADVICE.get(error.errno or 0, "Check the disk, and run the command again")
    return f"{subject} must be {doing}, the system says: {reason}. {advice}."


@contextlib.contextmanager
def explained(path: str | Path, doing: str, *own: str | Path) -> Iterator[None]:
    """Turn what the disk refuses in a block into one line about `path`.

    Args:
        path: what the block is about.
        doing: see `describe`.
        own: other paths that the block works on, as a temporary one. Errors that name a path which
            is none of these are about something else, and pass.

    Raises:
        FileError: the line.
    """
    try:
        yield
    except OSError as error:
        named = {str(each) for each in (path, *own)}
        if error.filename is not None and str(error.filename) not in named:
            raise
        raise FileError(describe(error, path, doing)) from error


def special(path: str | Path) -> str | None:
    """What kind of special file a path leads to; None for a file, a folder, or nothing."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return None
    return next((name for is_kind, name in _KINDS if is_kind(mode)), None)


def refuse_special(path: str | Path) -> None:
    """Refuse what is neither file nor folder: reading may never end, writing would replace it.

    Raises:
        FileError: it is a pipe, a socket or a device.
    """
    if (kind := special(path)) is not None:
        raise FileError(f"{in_one_line(path)} must be a regular file, it is {kind}. Name another.")


def refuse_unnamed(path: str | Path) -> None:
    """Refuse a path that is none, or that no message and no other file could say.

    Raises:
        FileError: it is empty, is no text in UTF-8, or has control characters, as line breaks.
    """
    if not str(path):
        raise FileError("A path must be given, got an empty one. Name a file or a folder.")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in str(path)):
        raise FileError(
            f"A path must be text in UTF-8 without control characters, got '{in_one_line(path)}'. "
            "Rename it."
        )


def refuse_same(target: Path, what: str, given: Iterable[Path]) -> None:
    """Refuse to write over what a command reads.

    Args:
        target: to be written.
        what: names it in the error, as "--out".
        given: what is read.

    Raises:
        FileError: it is one of them.
    """
    for each in given:
        with contextlib.suppress(OSError):
            if os.path.samefile(target, each):
                raise FileError(
                    f"{what} must be another file than those that are read, got "
                    f"{in_one_line(target)}. Choose another name."
                )


def followed(path: Path) -> Path:
    """Where a path leads to if it is a link, which may lead to what is not there yet.

    Raises:
        OSError: it leads in a circle.
    """
    if not os.path.islink(path):
        return path
    found = Path(os.path.realpath(path))
    if os.path.islink(found):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return found


def in_one_line(path: str | bytes | int | Path) -> str:
    """A path as it is shown: without what would break the line, or what no console can encode."""
    text = os.fsdecode(path) if isinstance(path, bytes) else str(path)
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
