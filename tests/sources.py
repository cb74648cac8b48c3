"""Tiny data of every source, as users have them on disk, and the recipe for each."""

import csv
from dataclasses import dataclass
from pathlib import Path

import pyarrow
import pyarrow.parquet

from tests.data.files import encoded, write_csv, write_image

PARTS_OF_6 = ("train", "train", "train", "train", "validation", "test")

REST = """
[backbone]
name = "test_resnet"
args = { channels = [4, 4, 8, 8] }
features = 6
[train]
epochs = 1
batch_size = 16
lr = 0.01
[probe]
epochs = 1
every = 1
window = [0.0, 1.0]
[split]
rule = "count"
k = 2
[compare]
seeds = 1
controls = []
[search]
trials = 2
pruner = "none"
space = { "split.k" = [1, 2], "split.rule" = ["count"], "split.threshold" = [0.0] }
"""


@dataclass(frozen=True)
class Source:
    """Data in a folder.

    Attributes:
        images: what `predict` is given.
        head: of the recipe: `[data]` and `[tasks]`.
        kinds: by task.
        columns: of predictions, without probabilities.
    """

    images: str
    head: str
    kinds: dict[str, str]
    columns: tuple[str, ...]

    @property
    def recipe(self):
        """The whole recipe."""
        return f"seed = 0\n{self.head}\n{REST}"


def part_of(index):
    """The part of a sample; groups of six are divided alike."""
    return PARTS_OF_6[index % 6]


def is_empty(index, column):
    """Whether a cell is left empty: every fifth, others in every column, none in every part."""
    return (index // 6 + 2 * column) % 5 == 0


def write_table(root, n=60):
    """A table with a class, a number and a yes or no: other programs' spellings."""
    rows = []
    for index in range(n):
        name = f"Bilder/{index:03}.JPG" if index % 2 else f"Bilder/{index:03}.png"
        write_image(root / "photos" / name, index, size=(20, 18))
        species = "" if is_empty(index, 0) else ["Eiche, rot", "Buche [red]", "Kiefer"][index % 3]
        age = "" if is_empty(index, 1) else f"{index * 20 + 300}"
        healthy = "" if is_empty(index, 2) else ["yes", "no"][index // 2 % 2]
        row = {"file": name, "Baum.Art ü": species, "age": age, "train": healthy}
        rows.append({**row, "part": part_of(index)})
    write_csv(root / "photos/labels.csv", rows, delimiter=";", encoding="utf-8-sig")
    head = """
[data]
name = "table"
root = "photos"
file = "labels.csv"
image = "file"
split = "part"
image_size = [16, 16]
[data.augment]
flip = 0.5
scale = [0.6, 1.0]
[tasks."Baum.Art ü"]
kind = "classes"
[tasks.age]
kind = "values"
unit = "years"
[tasks.train]
kind = "binary"
"""
    kinds = {"Baum.Art ü": "classes", "age": "values", "train": "binary"}
    return Source("photos/Bilder", head, kinds, tuple(kinds))


def write_kinds(root, n=60):
    """A table of all kinds, one number and several, 20 % of its cells empty."""
    rows = []
    for index in range(n):
        name = f"{index:03}.png"
        write_image(root / "all" / name, index, size=(16, 16))
        seen = ["bird|nest", "nest", "bird", "none"][index % 4]
        cells = [
            ["oak", "beech"][index % 2],
            ["yes", "no"][index // 2 % 2],
            seen,
            str(1000 + index),
            str(index % 7 / 7),
            str(-index),
        ]
        cells = ["" if is_empty(index, k) else cell for k, cell in enumerate(cells)]
        names = ("species", "healthy", "seen", "age", "x", "y")
        rows.append({"file": name, **dict(zip(names, cells, strict=True)), "part": part_of(index)})
    write_csv(root / "all/labels.csv", rows)
    head = """
[data]
name = "table"
root = "all"
file = "labels.csv"
image = "file"
split = "part"
[tasks.species]
kind = "classes"
metrics = ["accuracy", "balanced-accuracy"]
[tasks.healthy]
kind = "binary"
metrics = ["auroc"]
[tasks.seen]
kind = "labels"
none = "none"
[tasks.age]
kind = "values"
metrics = ["mae", "r2"]
[tasks.place]
kind = "values"
target = ["x", "y"]
"""
    kinds = {"species": "classes", "healthy": "binary", "seen": "labels"}
    kinds |= {"age": "values", "place": "values"}
    columns = ("species", "healthy", "seen", "age", "place", "place 1", "place 2")
    return Source("all/labels.csv", head, kinds, columns)


def write_trees(root, n=60):
    """Two trees of classes; a fifth of the images stands in one of them only."""
    for index in range(n):
        below = f"{part_of(index)}/{{}}/{index:03}.png"
        if not is_empty(index, 0):
            path = root / "trees/animal" / below.format(["cat", "dog"][index % 2])
            write_image(path, index, size=(16, 16))
        if not is_empty(index, 1):
            path = root / "trees/place" / below.format(["in", "out"][index // 2 % 2])
            write_image(path, index, size=(16, 16))
    head = """
[data]
name = "image-folder"
root = "trees"
[tasks.animal]
[tasks.place]
"""
    kinds = {"animal": "classes", "place": "classes"}
    return Source("trees/animal/test", head, kinds, tuple(kinds))


def write_parquet(root, n=60):
    """Images in the cells of one file a part; classes are whole numbers, numbers have gaps."""
    folder = root / "mirror"
    folder.mkdir()
    for part in ("train", "validation", "test"):
        rows = [
            {
                "image": {"bytes": encoded(index, size=(16, 16)), "path": None},
                "label": None if is_empty(index, 0) else index % 3,
                "size": None if is_empty(index, 1) else 40.0 + index,
            }
            for index in range(n)
            if part_of(index) == part
        ]
        table = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, folder / f"{part}-00000-of-00001.parquet")
    write_image(root / "new.png", 7, size=(30, 20))
    head = """
[data]
name = "parquet"
root = "mirror"
[tasks.label]
kind = "classes"
[tasks.size]
kind = "values"
"""
    return Source("new.png", head, {"label": "classes", "size": "values"}, ("label", "size"))


def write_factory(root, n=40):
    """A function that returns tensors."""
    for index in range(2):
        write_image(root / f"new/{index}.png", index, size=(8, 6))
    head = f"""
[data]
name = "factory"
factory = "tests.data.factories:build"
args = {{ n = {n}, shape = [3, 16, 16] }}
[tasks.b]
weight = 2
"""
    return Source("new", head, {"a": "classes", "b": "classes"}, ("a", "b"))


SOURCES = {
    "table": write_table,
    "image-folder": write_trees,
    "parquet": write_parquet,
    "factory": write_factory,
    "all kinds": write_kinds,
}


def write_source(name, root: Path):
    """Write data and `mine.toml`."""
    source = SOURCES[name](root)
    (root / "mine.toml").write_text(source.recipe, encoding="utf-8")
    return source


def read_rows(path):
    """The rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
