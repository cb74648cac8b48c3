"""`office-home` and `office-31`: one classification task a domain, each with images of its own.

Which image is in which part, LibMTL's list files say (`Art_train.txt`, one `Art/Bike/1.jpg 17` a
line); without them images are cut by `data.ratio`, 60/20/20 by default as there, with `data.seed`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from recon_search.artefact import digest
from recon_search.data.contents import one_size, read_contents
from recon_search.data.image_folder import images_below
from recon_search.data.listing import Faults, Listing, assemble
from recon_search.data.source import PARTS, PartName
from recon_search.data.table import Files, find_root
from recon_search.data.tables import read_lines
from recon_search.data.task_data import TaskData
from recon_search.errors import DataError, nearest
from recon_search.recipe import DataConfig, TaskConfig

RATIO = (0.6, 0.2, 0.2)
"""Of train, validation and test, in each class of each domain."""

SPELT = {"train": "train", "validation": "val", "test": "test"}
"""What list files call the parts."""


@dataclass(frozen=True)
class Office:
    """One of the two sets.

    Attributes:
        name: as recipes and LibMTL name it.
        domains: by task, the names that its folder goes by.
        inner: folders between that of a domain and those of the classes.
        classes: in LibMTL's order, whose place is the number in a list file.
        url: where people get it.
    """

    name: str
    domains: Mapping[str, tuple[str, ...]]
    inner: str
    classes: tuple[str, ...]
    url: str


_HOME = """
Calendar Postit_Notes Candles File_Cabinet Table Toys Chair Scissors Sneakers Clipboards Spoon
Flipflops Drill Oven Ruler Refrigerator Helmet Bike Knives Webcam ToothBrush Telephone Couch Glasses
Bed Eraser Printer Mug Bottle Exit_Sign Batteries Mouse Computer Shelf Bucket Monitor Folder Radio
Calculator Soda Flowers Desk_Lamp Mop Marker Fan Lamp_Shade Hammer Backpack Pen Pencil Paper_Clip
Kettle Fork Screwdriver Curtains Keyboard Speaker Notebook Sink Push_Pin TV Laptop Alarm_Clock Pan
Trash_Can
"""

_31 = """
back_pack paper_notebook desktop_computer scissors calculator desk_chair mouse laptop_computer
desk_lamp stapler bottle phone tape_dispenser trash_can bookcase pen ring_binder mobile_phone ruler
headphones bike_helmet monitor mug letter_tray projector printer speaker bike keyboard file_cabinet
punchers
"""

OFFICES = {
    office.name: office
    for office in (
        Office(
            "office-home",
            {
                "Art": ("Art",),
                "Clipart": ("Clipart",),
                "Product": ("Product",),
                "Real_World": ("Real_World", "Real World"),
            },
            "",
            tuple(_HOME.split()),
            "https://www.hemanthdv.org/officeHomeDataset.html",
        ),
        Office(
            "office-31",
            {name: (name,) for name in ("amazon", "dslr", "webcam")},
            "images",
            tuple(_31.split()),
            "https://www.cc.gatech.edu/~judy/domainadapt",
        ),
    )
}
"""By name."""


@dataclass(frozen=True)
class _Image:
    """One image: its path below the root, what lists it, its domain, class and part."""

    path: str
    place: str
    domain: str
    label: str
    part: PartName | None


def read_office(config: DataConfig) -> TaskData:
    """Find the images of every domain.

    Args:
        config: `root`, which holds the folders of the domains, itself or in a folder of the set's
            name; `file`, the folder of LibMTL's lists, looked for at the root, in `data_txt` and in
            `data_txt/NAME` if it is not given; without lists `ratio` and `seed`.

    Raises:
        DataError: a folder, list or image is missing, or names the wrong class.
    """
    office = OFFICES[config.name]
    root = find_root(config)
    base = _find_base(office, root)
    lists = _find_lists(office, config, base)
    found = list(_read_lists(office, base, lists) if lists else _walk(office, base))
    names, places = [each.path for each in found], [each.place for each in found]
    contents = read_contents(base, names)
    faults = Faults()
    for each in found:
        if fault := contents[each.path].fault:
            faults.add(f"{each.place}: {fault}")
    faults.check()
    given = [each.part for each in found if each.part is not None]
    listing = Listing(
        name=str(base),
        keys=names,
        places=places,
        pictures=Files(base, names, places, config.channels),
        cells={
            domain: [each.label if each.domain == domain else None for each in found]
            for domain in office.domains
        },
        given=given or None,
        options={domain: {"classes": list(office.classes)} for domain in office.domains},
        fingerprint=digest([[e.domain, e.label, e.part, contents[e.path].digest] for e in found]),
        image_size=one_size(contents.values()),
    )
    tables = dict.fromkeys(office.domains, TaskConfig(kind="classes"))
    ratio = None if given else config.ratio or RATIO
    own = config.model_copy(update={"own_batches": True, "ratio": ratio})
    data = assemble(listing, own, tables)
    return replace(data, fingerprint=digest([office.name, data.fingerprint]))


def _find_base(office: Office, root: Path) -> Path:
    """The folder that holds those of the domains."""
    tried = [root, root / office.name]
    for base in tried:
        if any((base / name).is_dir() for names in office.domains.values() for name in names):
            return base
    first = next(iter(office.domains))
    raise DataError(
        f"{office.name} needs the folders {', '.join(office.domains)}, found none of them in "
        f"{' nor in '.join(map(str, tried))}. Put '{first}' and the others there, or name another "
        f"--data-root; people get them from {office.url}."
    )


def _find_domain(office: Office, base: Path, domain: str) -> Path:
    names = office.domains[domain]
    for name in names:
        if (base / name).is_dir():
            return base / name
    raise DataError(
        f"{office.name} needs the folder {' or '.join(names)}, found none in {base}. Put it there, "
        f"or name another --data-root; people get it from {office.url}."
    )


def _find_lists(office: Office, config: DataConfig, base: Path) -> dict[tuple[str, PartName], Path]:
    """The list files of every domain and part; none of them where there are none."""
    wanted = {(d, p): f"{d}_{SPELT[p]}.txt" for d in office.domains for p in PARTS}
    folders = [base / "data_txt" / office.name, base / "data_txt", base]
    if config.file is not None:
        folders = [base / Path(config.file).expanduser()]
    for folder in folders:
        found = {key: folder / name for key, name in wanted.items() if (folder / name).is_file()}
        if not found and config.file is None:
            continue
        if lacking := [name for key, name in wanted.items() if key not in found]:
            raise DataError(
                f"{office.name} needs the list file {lacking[0]} beside the others, found "
                f"{len(found)} of {len(wanted)} in {folder}. Put it there; LibMTL has them in "
                f"examples/office/data_txt/{office.name}."
            )
        return found
    return {}


def _read_lists(
    office: Office, base: Path, lists: Mapping[tuple[str, PartName], Path]
) -> Iterator[_Image]:
    faults = Faults()
    first: dict[str, str] = {}
    for (domain, part), file in lists.items():
        folder = _find_domain(office, base, domain)
        for number, line in enumerate(read_lines(file), 1):
            if not line.strip():
                continue
            try:
                path, label = _read_line(office, folder, domain, line)
                name = path.relative_to(base).as_posix()
                place = f"{file.name} line {number} ({name})"
                if (other := first.setdefault(name, place)) != place:
                    raise DataError(f"an image must be listed once, found it in {other}. Keep one.")
            except DataError as error:
                faults.add(f"{file.name} line {number}: {error}")
                continue
            yield _Image(name, place, domain, label, part)
    faults.check()


def _read_line(office: Office, folder: Path, domain: str, line: str) -> tuple[Path, str]:
    """Return the file and the class that a line names, and check that both agree."""
    name, number = (*line.rsplit(maxsplit=1), "")[:2]
    start, *inner, label, file = name.split("/") if name.count("/") > 1 else ("", "", "")
    if start not in office.domains[domain] or "/".join(inner) != office.inner or ".." in name:
        wanted = "/".join(each for each in (domain, office.inner, "CLASS/FILE NUMBER") if each)
        raise DataError(f"a line must be {wanted}, found {line.strip()!r}. Correct it.")
    _check_class(office, label)
    if number != str(office.classes.index(label)):
        raise DataError(
            f"class {label} must have the number {office.classes.index(label)}, found {number!r}. "
            "Correct it."
        )
    path = folder / office.inner / label / file
    if not path.is_file():
        raise DataError(f"an image must exist, found none at {path}. Check --data-root.")
    return path, label


def _walk(office: Office, base: Path) -> Iterator[_Image]:
    faults = Faults()
    for domain in office.domains:
        folder = _find_domain(office, base, domain) / office.inner
        known = (
            sorted(each for each in folder.iterdir() if each.is_dir()) if folder.is_dir() else []
        )
        names = [each.name for each in known if not each.name.startswith(".")]
        if lacking := [label for label in office.classes if label not in names]:
            raise DataError(
                f"{folder} must hold a folder for each of {len(office.classes)} classes, found "
                f"none for {lacking[0]}.{nearest(lacking[0], names)} Fetch them: {office.url}."
            )
        for label in names:
            try:
                _check_class(office, label)
            except DataError as error:
                faults.add(f"{folder / label}: {error}")
                continue
            for path in images_below(folder / label):
                name = path.relative_to(base).as_posix()
                yield _Image(name, name, domain, label, None)
    faults.check()


def _check_class(office: Office, label: str) -> None:
    if label not in office.classes:
        raise DataError(
            f"a class must be one of the {len(office.classes)} of {office.name}, found '{label}'."
            f"{nearest(label, office.classes)} Rename or remove it."
        )
