"""Small IDX files to stand in for MNIST's."""

import gzip
import struct

import numpy as np


def write_item_set(folder, n=40, suffix=".gz"):
    """Write the four files of an item set."""
    write_idx_pair(folder, "train", n, suffix)
    write_idx_pair(folder, "t10k", n, suffix)


def write_idx_pair(folder, prefix, n, suffix=".gz"):
    """Write images, bright by class, and labels."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = (np.arange(n) % 10).astype(np.uint8)
    images = np.zeros((n, 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4 : 8 + 2 * label, 4:24] = 255  # the higher the bar, the higher the class
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(
            f">{array.ndim}I", *array.shape
        )
        content = header + array.tobytes()
        path = folder / f"{prefix}-{name}-ubyte{suffix}"
        path.write_bytes(gzip.compress(content) if suffix else content)
