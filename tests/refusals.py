"""A disk that refuses: what a command does to files is heard of, and one deed of it fails."""

import errno
import os
import sys
from pathlib import Path
from unittest import mock

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_now = None
_is_heard = False


class Refusals:
    """Within the block the system refuses one of the deeds below a folder, and hears of all.

    Deeds are: a file is opened to be written, a file is brought to the disk after it was written, a
    folder is made, a file is given another name. What is written by libraries in C is not heard of.

    Args:
        folder: below which.
        number: of the deed that is refused, from 0; None refuses none.
        error: with which.

    Attributes:
        seen: the paths, in order.
        refused: whether one was.
    """

    def __init__(self, folder, number=None, error=errno.ENOSPC):
        self.folder, self.number, self.error = os.path.realpath(folder), number, error
        self.seen, self.refused = [], False

    def __enter__(self):
        global _now, _is_heard
        if not _is_heard:
            sys.addaudithook(_hear)  # for good, so it looks for a block by itself
            _is_heard = True
        fsync = os.fsync

        def flush(handle):
            path = f"/proc/self/fd/{handle}"
            self.hear(os.readlink(path) if os.path.exists(path) else "")
            fsync(handle)

        self._patch = mock.patch.object(os, "fsync", flush)
        self._patch.start()
        _now = self
        return self

    def __exit__(self, *_):
        global _now
        _now = None
        self._patch.stop()

    def hear(self, path, *named):
        """Note a deed, and refuse it if its turn has come, as the system does with these names."""
        if not isinstance(path, str | bytes | os.PathLike):
            return
        path = os.path.abspath(os.fsdecode(path))
        if not Path(path).is_relative_to(self.folder):
            return
        self.seen.append(path)
        if len(self.seen) - 1 == self.number:
            self.refused = True
            raise OSError(self.error, os.strerror(self.error), *named)


def _hear(event, arguments):
    if _now is None:
        return
    if event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & _WRITES:
            _now.hear(path, path)
    elif event == "os.rename":
        source, target, *_ = arguments
        _now.hear(target, source, None, target)
    elif event == "os.mkdir" and not os.path.isdir(arguments[0]):
        _now.hear(arguments[0], arguments[0])


def files(folder):
    """Bytes of all files below a folder by name; names that begin with a dot must not be left."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        assert not path.name.startswith("."), f"{path} was left behind"
        if path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def check_line(done, ending):
    """Hold how a command has ended against how it ends where the disk refuses."""
    assert done.code == 2, (done, done.error)
    assert "Traceback" not in done.error
    (line,) = done.error.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(ending), line
    return line
