"""Small image files and tables, written as users have them."""

import csv
import io

import numpy as np
from PIL import Image


def picture(seed=0, size=(9, 8), mode="RGB"):
    """A picture of (width, height) unlike that of any other seed."""
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    return Image.fromarray(np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8))


def encoded(seed=0, kind="PNG", **options):
    """The bytes of an image file."""
    file = io.BytesIO()
    picture(seed, **options).save(file, format=kind)
    return file.getvalue()


def spoilt(content):
    """The bytes of a PNG file that lacks its middle, and has both its ends."""
    return content[:150] + content[-12:]


def write_image(path, seed=0, **options):
    """Write a PNG or JPEG file, as its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, **options).save(path)


def write_csv(path, rows, delimiter=",", encoding="utf-8"):
    """Write rows, dicts of one header, as text."""
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


PARTS_OF_20 = ["train"] * 12 + ["validation"] * 4 + ["test"] * 4


def photo_rows(n=20):
    """Rows of a table with a class, a number, a yes or no, a part and a group; some cells empty."""
    return [
        {
            "file": f"{'ab'[index % 2]}/{index:02}.png",
            "part": PARTS_OF_20[index % 20],
            "species": "" if index % 5 == 4 else ["oak", "beech"][index % 3 % 2],
            "age": "" if index % 7 == 6 else str(index / 2),
            "healthy": ["yes", "no"][index // 2 % 2],
            "site": f"s{index // 4}",
        }
        for index in range(n)
    ]


def write_photos(root, rows=None, **options):
    """Write a folder of images with `labels.csv`; returns its rows."""
    rows = photo_rows() if rows is None else rows
    for index, row in enumerate(rows):
        write_image(root / row["file"], index)
    write_csv(root / "labels.csv", rows, **options)
    return rows
