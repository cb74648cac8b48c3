"""`multi-mnist`, `multi-fashion`, `multi-fashion-mnist`: pairs of 28x28 items from IDX files.

The construction and the sizes of Recon's first benchmark (120,000 train and 20,000 test pairs on
36x36); validation pairs come from training items set apart.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon_search.artefact import digest
from recon_search.data.compose import Composed, Pool, Pools, divide
from recon_search.data.source import PARTS, PartName, Schema
from recon_search.errors import DataError
from recon_search.tasks.classes import Classes

SOURCES = {
    "multi-mnist": ("mnist", "mnist"),
    "multi-fashion": ("fashion-mnist", "fashion-mnist"),
    "multi-fashion-mnist": ("mnist", "fashion-mnist"),
}
"""Item sets of the first and the second item."""

_TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}
_VALIDATION_SHARE = 1 / 6
TRAIN, TEST = "train", "t10k"
"""How the files of the two parts begin."""


def multi_mnist(
    name: str,
    sizes: Mapping[PartName, int],
    canvas: int,
    seed: int,
    root: str | None,
    download: bool,
) -> Composed:
    """Pairs from the standard IDX files, plain or gzipped.

    Args:
        name: a key of `SOURCES`.
        sizes: pairs of each part.
        canvas: side of the canvas, at least 28.
        seed: seed of the pools and of the pairs.
        root: folder that holds `mnist` and `fashion-mnist` (or torchvision's `MNIST/raw` ...).
        download: let torchvision download what is missing into `root`.

    Raises:
        DataError: no root is given, a file is missing, or a file is malformed.
    """
    if root is None:
        raise DataError(
            f"{name} needs the IDX files of {' and '.join(sorted(set(SOURCES[name])))}, got no "
            "data root. Pass --data-root FOLDER, or --set data.download=true to download into it."
        )
    folder = Path(root)
    first, second = SOURCES[name]
    labels = {
        (source, prefix): _read_classes(source, folder, prefix, download)
        for source in dict.fromkeys(SOURCES[name])
        for prefix in (TRAIN, TEST)
    }
    images = [  # found before anything is trained, not when they are read
        _checksum(_find(source, folder, f"{prefix}-images-idx3-ubyte", download))
        for source, prefix in labels
    ]
    names = ("left", "right") if first == second else ("digit", "fashion")
    tasks = tuple(
        Classes(task, 1 + max(int(labels[source, prefix].max()) for prefix in (TRAIN, TEST)))
        for task, source in zip(names, SOURCES[name], strict=True)
    )
    classes = [hashlib.sha256(own.tobytes()).hexdigest() for own in labels.values()]
    fingerprint = digest([classes, images])
    schema = Schema(tasks, (1, canvas, canvas), frozenset(names), fingerprint)

    def read() -> Pools:
        pools: dict[str, dict[PartName, Pool]] = {}
        for source in set(SOURCES[name]):
            shares = (1 - _VALIDATION_SHARE, _VALIDATION_SHARE)
            train, validation = divide(_read_pool(source, folder, TRAIN, download), shares, seed)
            test = _read_pool(source, folder, TEST, download)
            pools[source] = {"train": train, "validation": validation, "test": test}
        return {part: (pools[first][part], pools[second][part]) for part in PARTS}

    return Composed(schema, sizes, seed, read)


def _checksum(path: Path) -> int:
    """CRC-32 of a file's content, which gzip keeps at the end of what it compressed."""
    with path.open("rb") as file:
        if path.suffix != ".gz":
            return zlib.crc32(file.read())
        file.seek(max(0, path.stat().st_size - 8))
        return int.from_bytes(file.read(4), "little")


def _read_classes(source: str, root: Path, prefix: str, download: bool) -> NDArray[np.uint8]:
    classes = read_idx(_find(source, root, f"{prefix}-labels-idx1-ubyte", download))
    if not classes.size:
        raise DataError(f"The {prefix} labels of {source} in {root} must not be empty. Fetch them.")
    return classes


def _read_pool(source: str, root: Path, prefix: str, download: bool) -> Pool:
    images = read_idx(_find(source, root, f"{prefix}-images-idx3-ubyte", download))
    classes = _read_classes(source, root, prefix, download)
    if images.ndim != 3 or len(images) != len(classes):
        raise DataError(
            f"The {prefix} files of {source} in {root} must hold as many images as labels, got "
            f"shapes {images.shape} and {classes.shape}. Fetch both again."
        )
    return Pool(images, classes.astype(np.int64))


def _find(source: str, root: Path, stem: str, download: bool) -> Path:
    folders = [root / source, root / _TORCHVISION[source] / "raw"]
    candidates = [folder / (stem + suffix) for folder in folders for suffix in ("", ".gz")]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    if download:
        return _download(source, root, stem)
    raise DataError(
        f"{source} needs the file {stem}[.gz], found it neither in "
        f"{' nor in '.join(str(folder) for folder in folders)}. Put it there, name another "
        "--data-root, or let torchvision fetch it with --set data.download=true."
    )


def _download(source: str, root: Path, stem: str) -> Path:
    import torchvision

    dataset = getattr(torchvision.datasets, _TORCHVISION[source])
    try:
        dataset(str(root), download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"Downloading {source} into {root} must succeed, got: {error}. "
            "Check the network, or put the IDX files there by hand."
        ) from None
    return Path(root) / _TORCHVISION[source] / "raw" / stem


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, plain or gzipped.

    Raises:
        DataError: the file is not IDX, or is cut short.
    """
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rb") as file:
            raw: bytes = file.read()
        zeros, kind, n_dimensions = struct.unpack_from(">HBB", raw)
        shape = struct.unpack_from(f">{n_dimensions}I", raw, 4)
    except (OSError, EOFError, struct.error) as error:
        raise DataError(
            f"{path} must be a whole IDX file, could not read it ({error}). Fetch it again."
        ) from None
    body = np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * n_dimensions)
    if zeros != 0 or kind != 8 or body.size != int(np.prod(shape)):
        raise DataError(
            f"{path} must be an IDX file of unsigned bytes, got type {kind} and {body.size} bytes "
            f"for shape {shape}. Fetch it again."
        )
    return body.reshape(shape)
