"""Benchmarks whose tasks have data of their own, in the layouts that people have on disk."""

import numpy as np

from recon_search.data.cifar100 import CLASSES, SUPERCLASS_OF
from recon_search.data.office import OFFICES
from tests.data.files import write_image


def write_office(root, name="office-home", *, classes=3, spelt=None, lists=True, size=(16, 14)):
    """Write a domain's images, six of each of the first classes; domains differ in their number.

    Args:
        root: folder of the domains' folders.
        name: of the set.
        classes: how many there are.
        spelt: what a domain's folder is called, where not like the domain.
        lists: writes LibMTL's list files, of which every sixth line is validation, another test.
        size: (width, height) of an image.
    """
    office = OFFICES[name]
    for number, domain in enumerate(office.domains):
        lines = {"train": [], "val": [], "test": []}
        for label, own in enumerate(office.classes[:classes]):
            for index in range(6 + 6 * (number % 2)):
                below = "/".join(filter(None, [office.inner, own, f"{index:05}.jpg"]))
                seed = 10_000 * number + 100 * label + index
                write_image(root / (spelt or {}).get(domain, domain) / below, seed, size=size)
                part = "val" if index % 6 == 4 else "test" if index % 6 == 5 else "train"
                lines[part].append(f"{domain}/{below} {label}\n")
        for part, own in lines.items():
            if lists:
                path = root / "data_txt" / name / f"{domain}_{part}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("".join(own))


def cifar_rows(n_each, seed=0):
    """Rows of the binary release, n of each class, (100 n, 3074)."""
    rng = np.random.default_rng(seed)
    fine = np.repeat(np.arange(len(CLASSES)), n_each)
    coarse = np.array(SUPERCLASS_OF)[fine]
    pixels = rng.integers(256, size=(len(fine), 3072))
    return np.column_stack([coarse, fine, pixels]).astype(np.uint8)


def write_cifar100(folder, train=10, test=1):
    """Write both files; returns their rows."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = cifar_rows(train), cifar_rows(test, 1)
    for name, own in zip(("train.bin", "test.bin"), rows, strict=True):
        (folder / name).write_bytes(own.tobytes())
    return rows
