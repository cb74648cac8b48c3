"""`chestxray14`: 14 findings in chest radiographs (NIH), each a yes or no.

The parts are those of the official lists; validation is cut off train_val by patient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL.Image import Image

from recon_search.artefact import digest
from recon_search.data.benchmark import Benchmark
from recon_search.data.contents import digest_of, one_size, read_contents
from recon_search.data.listing import Faults, Listing, assemble
from recon_search.data.pictures import MODES, read_picture
from recon_search.data.source import PartName
from recon_search.data.table import read_groups
from recon_search.data.tables import Table, read_lines, read_table
from recon_search.data.task_data import TaskData
from recon_search.errors import nearest
from recon_search.recipe import DataConfig, TaskConfig

FINDINGS = (
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia"),
    *("Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening"),
    "Hernia",
)
"""In the usual order."""

NONE = "No Finding"

RATIO = (0.7, 0.1, 0.2)
"""Of train and validation, 7 to 1, where a recipe says nothing."""

CHESTXRAY14 = Benchmark(
    "chestxray14",
    "Get it from nihcc.app.box.com/v/ChestXray-NIHCC or as Kaggle's nih-chest-xrays/data, unpack "
    "the images, and name its folder by --data-root.",
    {
        name: {"kind": "binary", "classes": ("no", "yes"), "metrics": ("auroc",)}
        for name in FINDINGS
    },
)

_WANTED = ("Image Index", "Finding Labels", "Patient ID")
"""Columns; those with commas in their names follow, of which copies have more or fewer cells."""


@dataclass(frozen=True)
class Radiographs:
    """Images, grey or with further channels that say the same.

    Attributes:
        root: their folder.
        names: below it.
        places: where each is listed.
        channels: 1, or 3 that are equal.
    """

    root: Path
    names: list[str]
    places: list[str]
    channels: int

    def read(self, row: int) -> Image:
        """Decode one."""
        grey = read_picture(self.root / self.names[row], self.places[row], 1)
        return grey if self.channels == 1 else grey.convert(MODES[self.channels])


def read_chestxray14(config: DataConfig, tables: Mapping[str, TaskConfig]) -> TaskData:
    """Read the table and the lists, and check that their images are there.

    Args:
        config: `root`, `ratio` of train and validation, `tasks`.
        tables: options.

    Raises:
        DataError: naming file and row of what is missing, malformed or of no use.
        RecipeError: the recipe does not fit.
    """
    tables = CHESTXRAY14.settle(config, tables)
    root = CHESTXRAY14.root(config)
    path = CHESTXRAY14.find(root, "Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")
    lists: dict[PartName, Path] = {
        "train": CHESTXRAY14.find(root, "train_val_list.txt"),
        "test": CHESTXRAY14.find(root, "test_list.txt"),
    }
    table = read_table(path, dict.fromkeys(_WANTED, "data.name"), ",", is_ragged=True)
    names, given = _name_images(table, root, lists)
    places = [f"{at} ({name})" for at, name in zip(table.places, names, strict=True)]
    contents = read_contents(root, names)
    faults = Faults()
    for place, name in zip(places, names, strict=True):
        if fault := contents[name].fault:
            faults.add(f"{place}: {fault}")
    found = [
        _read_findings(cell, place, faults)
        for cell, place in zip(table.columns["Finding Labels"], places, strict=True)
    ]
    faults.check()
    listing = Listing(
        name=table.name,
        keys=[Path(name).name for name in names],
        places=places,
        pictures=Radiographs(root, names, places, config.channels),
        cells={task: ["yes" if task in own else "no" for own in found] for task in tables},
        given=given,
        groups=read_groups(table, "Patient ID"),
        fingerprint=digest(
            [
                *(digest_of(each.read_bytes()) for each in (path, *lists.values())),
                {Path(name).name: contents[name].digest for name in names},
            ]
        ),
        image_size=one_size(contents[name] for name in names),
    )
    return assemble(listing, config.model_copy(update={"ratio": config.ratio or RATIO}), tables)


def _name_images(
    table: Table, root: Path, lists: Mapping[PartName, Path]
) -> tuple[list[str], list[PartName]]:
    """Return the image of every row below the root, and its part."""
    parts: dict[str, PartName] = {}
    faults = Faults()
    rows = dict(zip(table.columns["Image Index"], table.places, strict=True))
    for part, path in lists.items():
        for number, line in enumerate(read_lines(path), 1):
            if not (name := line.strip()):
                continue
            if name not in rows or name in parts:
                fault = "a row" if name not in rows else "one place in the lists"
                faults.add(
                    f"{path.name} row {number}: an image must have {fault}, {name} has "
                    f"{'none in ' + table.name if name not in rows else 'two'}. Correct it."
                )
            parts[name] = part
    files = {path.name: path for path in sorted(root.glob("images*/**/*.png"))}
    if not files:
        CHESTXRAY14.find(root, "images*/**/*.png")
    names: list[str] = []
    given: list[PartName] = []
    for name, place in rows.items():
        if name not in parts:
            faults.add(f"{place}: an image must be in a list, {name} is in none. Add it.")
        elif name not in files:
            faults.add(
                f"{place}: an image must exist, found no {name} in {root / 'images*'}. Unpack it."
            )
        else:
            names.append(files[name].relative_to(root).as_posix())
            given.append(parts[name])
    if len(rows) != len(table.places):
        faults.add(f"{table.name} must have one row an image, it has two of some. Remove one.")
    faults.check()
    return names, given


def _read_findings(cell: str, place: str, faults: Faults) -> frozenset[str]:
    """Read the findings of an image."""
    found = frozenset(each.strip().replace(" ", "_") for each in cell.split("|"))
    none = NONE.replace(" ", "_")
    for name in found - {*FINDINGS, none}:
        faults.add(
            f"{place}: a finding must be one of {', '.join(FINDINGS)}, or {NONE}, found "
            f"{name!r}.{nearest(name, FINDINGS)} Correct it."
        )
    if none in found and len(found) > 1:
        faults.add(f"{place}: an image must have findings or none, found {cell!r}. Correct it.")
    return found
