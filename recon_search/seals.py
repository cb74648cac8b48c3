"""Digests that files carry of their own content, so that a changed one is told from a whole one.

They guard against damage and slips, not against somebody who means to deceive: whoever changes a
file can write its digest anew.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from recon_search import json_text
from recon_search.errors import ArtefactError

KEY = "digest"
"""Of a JSON object, and of a tensor file's metadata."""

HEADER = 100_000_000
"""Bytes of a tensor file's header, at most, as the format has it."""

CHUNK = 2**20


def digest(value: Any) -> str:
    """Return the first 16 hex digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object as it will be read, with the digest of all else as its last key."""
    plain = json.loads(json.dumps(value))
    plain.pop(KEY, None)
    return {**plain, KEY: digest(plain)}


def unseal(
    value: dict[str, Any], path: str | Path, *, needed: bool = False, by_hand: bool = False
) -> dict[str, Any]:
    """Return a JSON object without its digest, which must be right where there is one.

    Args:
        value: as read.
        path: names the file in the error.
        needed: whether there must be a digest.
        by_hand: whether people may change such a file.

    Raises:
        ArtefactError: the digest is wrong, or missing.
    """
    rest = {key: each for key, each in value.items() if key != KEY}
    if KEY not in value and not needed:
        if slips := difflib.get_close_matches(KEY, rest, n=1, cutoff=0.8):
            raise ArtefactError(
                f'{path} must have the key "{KEY}" or none like it, found "{slips[0]}". Delete '
                "that line."
            )
        return rest
    if (found := digest(rest)) != value.get(KEY):
        advice = (
            f'If you changed it yourself, delete the line "{KEY}"; else write it again.'
            if by_hand
            else "Restore it from a copy, or write it again."
        )
        raise ArtefactError(_changed(path, value.get(KEY), found, advice))
    return rest


def digest_of_tensors(header: Mapping[str, Any], data: bytes | memoryview) -> str:
    """Return the first 32 hex digits of the SHA-256 of a tensor file.

    Args:
        header: of the file, without the digest.
        data: what follows it.
    """
    found = _begin(header)
    found.update(data)
    return str(found.hexdigest()[:32])


def check_tensors(file: BinaryIO, size: int, path: str | Path, *, needed: bool = False) -> None:
    """Make sure that a safetensors file is whole, and what it was when it was written.

    Args:
        file: opened at its beginning.
        size: of the file in bytes.
        path: names the file in the error.
        needed: whether there must be a digest, of a file whose metadata says its format.

    Raises:
        ArtefactError: the digest is wrong, or missing.
        ValueError: there is no header, or it is none; saying why.
    """
    begin = file.read(8)
    length = int.from_bytes(begin, "little")
    if len(begin) < 8 or length > size - 8:
        raise ValueError(f"a file of {size:,} bytes cannot begin with such a header")
    if length > HEADER:
        raise ValueError(f"its header of {length:,} bytes is larger than {HEADER:,}")
    header = json_text.parse(file.read(length))
    if not isinstance(header, dict) or not all(isinstance(v, dict) for v in header.values()):
        raise ValueError("its header is no object of objects")
    texts = header.get("__metadata__", {})
    told = texts.pop(KEY, None)
    if told is None:
        if needed:
            raise ArtefactError(_changed(path, None, "", "Restore it from a copy."))
        return
    found = _begin(header)
    while part := file.read(CHUNK):
        found.update(part)
    told, own = str(told).strip('"'), found.hexdigest()[:32]
    if told != own:
        raise ArtefactError(_changed(path, told, own, "Restore it from a copy, or write it again."))


def _begin(header: Mapping[str, Any]) -> Any:
    text = json.dumps(header, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode())


def _changed(path: str | Path, told: object, found: str, advice: str) -> str:
    said = "it has no digest" if told is None else f"its digest is {str(told)[:40]!r}"
    gives = f", its content gives '{found}'" if found else ""
    return f"{path} must be as it was written, {said}{gives}: it was changed. {advice}"
