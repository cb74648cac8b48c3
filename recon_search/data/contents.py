"""What files hold: digests by which data are known, and equal images found.

A digest is of bytes, never of names or dates. What is large is read once: digests are kept in the
user's cache folder, and hold as long as size and both times of a file stay as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recon_search import artefact, seals
from recon_search.data.pictures import read_picture, read_size
from recon_search.disk import special
from recon_search.errors import ArtefactError, DataError, FileError

KEPT_FROM = 64 * 1024**2
"""Bytes that must have been read before digests are kept: less is read again in no time."""

FORMAT = "recon-search/contents/2"

_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND"}
"""How files of the commonest kinds, JPEG and PNG, begin and end."""

_TAIL = 1024
"""Bytes at a file's end among which its last ones are: some cameras write behind them."""

_SETTLED = 2.0
"""Seconds after which a change to a file shows in its times."""


@dataclass(frozen=True)
class Content:
    """What one image file holds.

    Attributes:
        digest: of its bytes.
        size: (H, W) of the image, upright.
        fault: why it is no image, as far as its first and last bytes show; empty if it may be one.
    """

    digest: str
    size: tuple[int, int]
    fault: str = ""


def digest_of(content: bytes) -> str:
    """Return 16 hex digits of the SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()[:16]


def read_contents(root: Path, names: Iterable[str]) -> dict[str, Content]:
    """Read image files.

    Args:
        root: folder.
        names: of existing files below it.

    Returns:
        By name, what each holds.

    Raises:
        DataError: a file cannot be read.
    """
    store = _cache_folder() / f"{digest_of(os.fsencode(root.resolve()))}.json"
    known = _load(store)
    now, n_bytes = time.time_ns(), 0
    found, entries = {}, {}
    for name in names:
        path = root / name
        try:
            state = path.stat()
            times = [state.st_size, state.st_mtime_ns, state.st_ctime_ns]
            before, *own = known.get(name, [None])
            if before != times:
                if (kind := special(path)) is not None:
                    raise DataError(f"{path} must be a file, it is {kind}. Remove it.")
                content = path.read_bytes()
                n_bytes += len(content)
                own = [digest_of(content), *_look(content)]
        except OSError as error:
            raise DataError(
                f"{path} must be readable, it is not ({error.strerror}). Check the file."
            ) from None
        own_digest, size, fault = own
        found[name] = Content(own_digest, tuple(size), fault)
        if now - max(times[1:]) > _SETTLED * 1e9:
            entries[name] = [times, *own]
    if n_bytes >= KEPT_FROM:
        _keep(store, known | entries)
    return found


def one_size(contents: Iterable[Content]) -> tuple[int, int] | None:
    """Return the size of images if it is the same of all."""
    sizes = {content.size for content in contents}
    return sizes.pop() if len(sizes) == 1 else None


def _look(content: bytes) -> tuple[tuple[int, int], str]:
    try:
        size = read_size(content, "the file")
        if _seems_cut(content):
            read_picture(content, "the file", 3)
        return size, ""
    except DataError as error:
        return (0, 0), str(error)


def _seems_cut(content: bytes) -> bool:
    """Whether a file lacks its end, as after a transfer that broke off; some decode without."""
    return any(
        content.startswith(first) and last not in content[-_TAIL:] for first, last in _ENDS.items()
    )


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "recon-search" / "contents"


def _load(store: Path) -> dict[str, list[Any]]:
    try:
        found = artefact.read_object(store, "cache", FORMAT)
    except (ArtefactError, FileError):
        return {}
    files = found.get("files")
    return files if isinstance(files, dict) else {}


def _keep(store: Path, entries: dict[str, list[Any]]) -> None:
    try:
        artefact.write_text(store, json.dumps(seals.seal({"format": FORMAT, "files": entries})))
    except FileError:
        return  # it only saves time
