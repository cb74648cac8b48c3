"""`celeba`: 40 attributes of faces, each a yes or no, from the official lists or CSV copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from recon_search.artefact import digest
from recon_search.data.benchmark import Benchmark
from recon_search.data.contents import digest_of, one_size, read_contents
from recon_search.data.listing import Faults, Listing, assemble
from recon_search.data.source import PARTS, PartName
from recon_search.data.table import Files
from recon_search.data.tables import Table, read_lines, read_table
from recon_search.data.task_data import TaskData
from recon_search.errors import DataError, in_one_line
from recon_search.recipe import DataConfig, TaskConfig
from recon_search.tasks.cells import text

ATTRIBUTES = (
    *("5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs"),
    *("Big_Lips", "Big_Nose", "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair"),
    *("Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses", "Goatee", "Gray_Hair"),
    *("Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache"),
    *("Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline"),
    *("Rosy_Cheeks", "Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings"),
    *("Wearing_Hat", "Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie", "Young"),
)
"""In the order of the list."""

ANSWERS = {"-1": "no", "1": "yes"}

CELEBA = Benchmark(
    "celeba",
    "Get it from mmlab.ie.cuhk.edu.hk/projects/CelebA.html, or try --set data.download=true, and "
    "name its folder by --data-root.",
    {
        name: {"kind": "binary", "classes": ("no", "yes"), "metrics": ("error",)}
        for name in ATTRIBUTES
    },
    is_public=True,
)

_FOLDERS = ("", "celeba/", "Anno/", "Eval/", "celeba/Anno/", "celeba/Eval/")
_IMAGES = ("img_align_celeba", "img_align_celeba_png")


def read_celeba(config: DataConfig, tables: Mapping[str, TaskConfig]) -> TaskData:
    """Read the lists, and check that their images are there; the parts are the official ones.

    Args:
        config: `root`, with the lists below it or in its folders Anno and Eval, and the images in
            img_align_celeba; `download`, `tasks`.
        tables: options.

    Raises:
        DataError: naming file and row of what is missing, malformed or of no use.
        RecipeError: the recipe does not fit.
    """
    tables = CELEBA.settle(config, tables)
    if config.download:
        _download(config)
    root = CELEBA.root(config)
    listed = [
        CELEBA.find(
            root, *(f"{folder}{name}.{end}" for folder in _FOLDERS for end in ("txt", "csv"))
        )
        for name in ("list_attr_celeba", "list_eval_partition")
    ]
    images = _find_images(root)
    wanted = dict.fromkeys(("image_id", *tables), "data.name")
    attributes = _read(listed[0], wanted)
    parts = _read(listed[1], {"image_id": "data.name", "partition": "data.name"})
    names, given = _name_images(attributes, parts, images, root)
    contents = read_contents(root, names)
    places = [f"{at} ({name})" for at, name in zip(attributes.places, names, strict=True)]
    faults = Faults()
    for place, name in zip(places, names, strict=True):
        if fault := contents[name].fault:
            faults.add(f"{place}: {fault}")
    cells = {task: _read_answers(attributes.columns[task], task, places, faults) for task in tables}
    faults.check()
    listing = Listing(
        name=attributes.name,
        keys=names,
        places=places,
        pictures=Files(root, names, places, config.channels),
        cells=cells,
        given=given,
        fingerprint=digest(
            [
                *(digest_of(path.read_bytes()) for path in listed),
                {Path(name).name: contents[name].digest for name in names},
            ]
        ),
        image_size=one_size(contents[name] for name in names),
    )
    return assemble(listing, config, tables)


def _read_answers(
    column: Sequence[str], task: str, places: Sequence[str], faults: Faults
) -> list[str | None]:
    """Read what cells say; 1.0 is 1, as tables are written that were read as fractions."""
    found = [ANSWERS.get(text(cell) or "") for cell in column]
    for cell, answer, place in zip(column, found, places, strict=True):
        if answer is None:
            faults.add(f"{place}: {task} must be -1 or 1, found {cell!r}. Fetch the file again.")
    return found


def _find_images(root: Path) -> Path:
    """The folder of the images; some copies have it twice, one in the other."""
    places = [
        f"{above}{name}" for above in ("", "Img/", "celeba/", "celeba/Img/") for name in _IMAGES
    ]
    found = CELEBA.find(root, *places)
    inner = found / found.name
    return inner if inner.is_dir() else found


def _read(path: Path, wanted: Mapping[str, str]) -> Table:
    """Read columns of a list: of a CSV file with a header, or of text parted by blanks."""
    if path.suffix == ".csv":
        return read_table(path, wanted, ",")
    lines = read_lines(path)
    header, first = ["image_id", "partition"], 0
    if "partition" not in wanted:
        header, first = ["image_id", *(lines[1].split() if len(lines) > 1 else [])], 2
        if lacking := [name for name in wanted if name not in header]:
            raise DataError(
                f"{path.name} row 2: must name the attributes, found none called {lacking[0]}. "
                "Fetch it again."
            )
    faults, rows, places = Faults(), [], []
    for number, line in enumerate(lines[first:], first + 1):
        if not (cells := line.split()):
            continue
        if len(cells) != len(header):
            faults.add(
                f"{path.name} row {number}: a row must have {len(header)} cells, found "
                f"{len(cells)}. Fetch the file again."
            )
        rows.append(cells)
        places.append(f"{path.name} row {number}")
    if first and lines[0].strip() != str(len(rows)):
        faults.add(
            f"{path.name} row 1: must say how many images are listed, found {lines[0].strip()!r} "
            f"and {len(rows)} rows. Fetch the file again."
        )
    faults.check()
    columns = {name: [row[header.index(name)] for row in rows] for name in wanted}
    return Table(path.name, columns, places)


def _name_images(
    attributes: Table, parts: Table, images: Path, root: Path
) -> tuple[list[str], list[PartName]]:
    """Return the image of every row below the root, and its part."""
    faults = Faults()
    for table in (attributes, parts):
        first: dict[str, str] = {}
        for place, name in zip(table.places, table.columns["image_id"], strict=True):
            if (other := first.setdefault(name, place)) != place:
                faults.add(
                    f"{place}: an image must have one row, {name} has another, {other}. Keep one."
                )
    faults.check()
    numbers = dict(
        zip(parts.columns["image_id"], map(text, parts.columns["partition"]), strict=True)
    )
    folder = images.relative_to(root).as_posix()
    there = {path.name for path in images.iterdir()}
    names: list[str] = []
    given: list[PartName] = []
    for place, name in zip(attributes.places, attributes.columns["image_id"], strict=True):
        number = numbers.get(name)
        if number not in ("0", "1", "2"):
            faults.add(
                f"{place}: {parts.name} must say 0, 1 or 2 (train, validation, test) of {name}, "
                f"found {number}. Fetch it again."
            )
            continue
        file = name if name in there else f"{Path(name).stem}.png"
        if file not in there:
            faults.add(f"{place}: an image must exist, found none at {images / name}. Add it.")
            continue
        names.append(f"{folder}/{file}")
        given.append(PARTS[int(number)])
    faults.check()
    return names, given


def _download(config: DataConfig) -> None:
    import torchvision

    if config.root is None:
        CELEBA.root(config)
    try:
        torchvision.datasets.CelebA(config.root, download=True)
    except Exception as error:  # of the network, of a server, of a package that it asks for
        raise DataError(
            f"Downloading CelebA into {config.root} must succeed, got: {in_one_line(error)}. Check "
            "the network, or put the files there by hand."
        ) from None
