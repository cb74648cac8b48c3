"""Files on disk: JSON and safetensors, written atomically, read with one clear error.

Nothing is ever unpickled. A reader sees the old file or the new file, never half of one, and files
carry a digest of their content (see `seals`), which is checked.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import save
from torch import Tensor

from recon_search import json_text, owners, seals
from recon_search.disk import describe, explained, followed, refuse_special
from recon_search.errors import ArtefactError, FileError
from recon_search.seals import digest as digest

_TEMPORARY = re.compile(r"^\..*\.(" + owners.PATTERN + r")\.[^.]{8}(\..*)?$", re.DOTALL)
"""The name of a file that `atomic` is writing, with its owner."""


@contextlib.contextmanager
def atomic(path: str | Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path; on success flush the file to disk and rename it over `path`.

    A link is followed. Whatever ends the block, the old file stays as it was, and nothing else; of
    a process that is killed `sweep` removes the temporary file.

    Args:
        path: the file.
        durable: wait until the disk has it, so that it survives a power cut too.

    Raises:
        FileError: the disk refuses, or `path` is a device or a pipe.
    """
    path = Path(path)
    refuse_special(path)
    with explained(path, "written"):
        path = followed(path)
    with explained(path, "written", *path.parents):
        path.parent.mkdir(parents=True, exist_ok=True)
    _sweep_once(path.parent)
    try:
        handle, name = tempfile.mkstemp(
            prefix=temporary_prefix(path), suffix=path.suffix[:20], dir=path.parent
        )
        os.close(handle)
    except OSError as error:
        raise FileError(describe(error, path, "written")) from error
    temporary = Path(name)
    try:
        with explained(path, "written", temporary):
            yield temporary
            if durable:
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)  # mkstemp makes it private
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`, in which what comes there is put together.

    It is removed however the block ends; of a process that is killed `sweep` removes it. Errors
    about files in it name the places beside `path` that they are to come to.

    Raises:
        FileError: the disk refuses.
    """
    with explained(path, "written", *path.parents):
        path.parent.mkdir(parents=True, exist_ok=True)
    _sweep_once(path.parent)
    try:
        name = tempfile.mkdtemp(prefix=temporary_prefix(path), dir=path.parent)
    except OSError as error:
        raise FileError(describe(error, path, "written")) from error
    folder = Path(name)
    try:
        yield folder
    except FileError as error:
        raise FileError(str(error).replace(str(folder), str(path.parent))) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def bring(folder: Path, target: Path) -> None:
    """Move all that is below a folder to the same places below another; others there stay.

    Files of the same names are replaced, all of them or, where one is no regular file, none. Links
    are followed.

    Raises:
        FileError: the disk refuses, or a place is taken by a device or a pipe.
    """
    found = sorted(folder.rglob("*"))
    places = [target / path.relative_to(folder) for path in found]
    for path, place in zip(found, places, strict=True):
        refuse_special(place)
        with explained(place, "written"):
            if followed(place).exists() and path.is_dir() != place.is_dir():
                taken = errno.EEXIST if path.is_dir() else errno.EISDIR
                raise OSError(taken, os.strerror(taken))
    for path, place in zip(found, places, strict=True):
        with explained(place, "written", path):
            if path.is_dir():
                place.mkdir(parents=True, exist_ok=True)
            elif place.is_symlink():  # perhaps to another disk
                with atomic(place) as temporary:
                    shutil.copyfile(path, temporary)
            else:
                path.replace(place)


def temporary_prefix(path: Path) -> str:
    """How the name of what stands in for `path` begins until it is written; `sweep` knows it."""
    return f".{os.fsdecode(os.fsencode(path.name)[:100])}.{owners.token()}."


def sweep(folder: Path) -> None:
    """Remove the temporary files that dead processes have left in a folder, not below it.

    Those of other machines count as left after a day. Every folder that something is written to is
    swept once by a process.
    """
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            found = _TEMPORARY.search(path.name)
            if found is None or path.is_symlink():
                continue
            is_old = time.time() - path.stat().st_mtime > 24 * 3600
            if owners.is_gone(found[1]) or (is_old and not owners.is_here(found[1])):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


@functools.cache
def _sweep_once(folder: Path) -> None:
    sweep(folder)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write `content` atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as readable JSON, atomically; an object with a digest."""
    value = seals.seal(value) if isinstance(value, Mapping) else value
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str | Path, kind: str, *, finite: bool = True) -> Any:
    """Read a JSON file as it stands; `kind` names it in the error.

    Raises:
        ArtefactError: the file is missing, is not JSON, or breaks the limits of `json_text`.
    """
    refuse_special(path)
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise ValueError("it is no regular file")
        if Path(path).stat().st_size > json_text.LARGEST:
            raise ValueError(f"it is larger than {json_text.LARGEST:,} bytes")
        return json_text.parse(Path(path).read_bytes(), finite=finite)
    except FileNotFoundError:
        raise ArtefactError(
            f"A {kind} is needed, found no file at {path}. Check the path."
        ) from None
    except (OSError, ValueError) as error:
        raise ArtefactError(
            f"A {kind} must be a JSON file, could not read {path} ({_reason(error)}). Write it "
            "again."
        ) from None


def read_object(
    path: str | Path,
    kind: str,
    format: str | None = None,
    *earlier: str | None,
    by_hand: bool = False,
    finite: bool = True,
) -> dict[str, Any]:
    """Read a JSON object that this tool wrote, and check its format and its digest.

    Args:
        path: the file.
        kind: names it in the error.
        format: what its key `format` must be; None where it has none.
        earlier: formats that are still read, None for files without; they may lack the digest.
        by_hand: whether people may write or change such a file, which may lack the digest then.
        finite: whether all numbers must be.

    Returns:
        The object without its digest.

    Raises:
        ArtefactError: the file is missing, damaged, changed or of another format.
    """
    value = read_json(path, kind, finite=finite)
    if not isinstance(value, dict):
        raise ArtefactError(
            f"A {kind} must be a JSON object, {path} holds {_short(value)}. Write it again."
        )
    if format is not None:
        check_format(value, format, path, *earlier)
    needed = format is not None and value.get("format") == format and not by_hand
    return seals.unseal(value, path, needed=needed, by_hand=by_hand)


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> None:
    """Write a safetensors file atomically, metadata values as JSON; equal input, equal bytes.

    A tensor of several names, as of a module that heads share, is written under each.
    """
    contiguous: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        place = own.untyped_storage().data_ptr()
        contiguous[name] = own.clone() if place in storages else own
        storages.add(place)
    content = memoryview(save(contiguous))
    size = int.from_bytes(content[:8], "little")
    text = {key: json.dumps(metadata[key]) for key in sorted(metadata)}
    text.pop(seals.KEY, None)
    # safetensors writes its metadata in an order drawn at random.
    told = {"__metadata__": text, **json.loads(bytes(content[8 : 8 + size]))}
    text[seals.KEY] = json.dumps(seals.digest_of_tensors(told, content[8 + size :]))
    header = json.dumps(told).encode()
    header += b" " * (-len(header) % 8)
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.write(content[8 + size :])


def read_tensors(
    path: str | Path, kind: str, format: str | None = None, *earlier: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a safetensors file that this tool wrote, and check its format and its digest.

    Args:
        path: the file.
        kind: names it in the error.
        format: what its metadata must say; None where they say none.
        earlier: formats that are still read; they may lack the digest.

    Returns:
        The tensors by name, and the metadata without the digest.

    Raises:
        ArtefactError: the file is missing, damaged, changed, or of another format.
    """
    refuse_special(path)
    if not Path(path).is_file():
        raise ArtefactError(f"A {kind} is needed, found no file at {path}. Check the path.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            texts = file.metadata() or {}
            metadata = {key: json_text.parse(texts[key], finite=False) for key in texts}
            if format is not None:
                check_format(metadata, format, path, *earlier)
            needed = format is not None and metadata.get("format") == format
            with Path(path).open("rb") as raw:
                seals.check_tensors(raw, Path(path).stat().st_size, path, needed=needed)
            metadata.pop(seals.KEY, None)
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise ArtefactError(
            f"A {kind} must be an undamaged safetensors file, could not read {path} "
            f"({_reason(error)}). Write it again."
        ) from None


def check_format(
    metadata: Mapping[str, Any], expected: str, path: str | Path, *earlier: str | None
) -> None:
    """Refuse a file whose `format` is neither `expected` nor an earlier one that is still read.

    Raises:
        ArtefactError: naming the format found.
    """
    found = metadata.get("format") if isinstance(metadata, Mapping) else None
    if found not in (expected, *earlier):
        raise ArtefactError(
            f"{path} must have format '{expected}', found {_short(found)}. "
            "Write it again with this version of recon-search."
        )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
