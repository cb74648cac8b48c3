"""A folder of images and a table: read as written, or refused with file and row."""

import os
import re
import shutil

import numpy as np
import pytest
import torch

from recon_search.data import contents
from recon_search.data.registry import READERS
from recon_search.data.source import PARTS
from recon_search.errors import DataError, RecipeError
from recon_search.recipe import DataConfig, TaskConfig
from recon_search.tasks.classes import IGNORED
from tests.data.files import (
    encoded,
    photo_rows,
    picture,
    spoilt,
    write_csv,
    write_image,
    write_photos,
)

TASKS = {
    "species": TaskConfig(kind="classes"),
    "age": TaskConfig(kind="values"),
    "healthy": TaskConfig(kind="binary"),
}


def read(folder, tasks=None, **settings):
    given = {"name": "table", "root": str(folder), "file": "labels.csv", "image": "file"}
    return READERS["table"](DataConfig(**(given | settings)), TASKS if tasks is None else tasks)


def names(data, part):
    """The image files of a part, as they are described."""
    return [data.name(part, index).split("(")[1][:-1] for index in range(len(data.parts[part]))]


def test_a_row_is_an_image_with_the_labels_of_its_cells(tmp_path):
    rows = write_photos(tmp_path)
    data = read(tmp_path, split="part")
    assert [task.name for task in data.tasks] == ["species", "age", "healthy"]
    assert data.tasks[0].class_names == ("beech", "oak")
    assert data.image_size == (8, 9)
    for part in PARTS:
        own = [(index, row) for index, row in enumerate(rows) if row["part"] == part]
        assert len(data.parts[part]) == len(own)
        for place, (index, row) in enumerate(own):
            image, targets = data.parts[part][place]
            assert np.array_equal(np.asarray(image), np.asarray(picture(index)))
            species = {"": IGNORED, "beech": 0, "oak": 1}[row["species"]]
            age = float(row["age"] or "nan")
            assert targets["species"] == species
            torch.testing.assert_close(targets["age"].item(), age, equal_nan=True)
            assert targets["healthy"] == (row["healthy"] == "yes")
            assert data.parts[part].targets(place).keys() == targets.keys()
            assert data.name(part, place) == f"labels.csv row {index + 2} ({row['file']})"


def test_images_of_different_sizes_have_no_common_size(tmp_path):
    rows = write_photos(tmp_path)
    write_image(tmp_path / rows[3]["file"], size=(5, 5))
    assert read(tmp_path, split="part").image_size is None


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_read_in_grey_or_in_colour(tmp_path, channels):
    write_photos(tmp_path)
    image, _ = read(tmp_path, split="part", channels=channels).parts["test"][0]
    assert len(image.getbands()) == channels


@pytest.mark.parametrize(
    "options", [{"delimiter": ";"}, {"delimiter": "\t"}, {"encoding": "utf-8-sig"}]
)
def test_tables_of_other_programs_are_read_alike(tmp_path, options):
    write_photos(tmp_path / "a")
    write_photos(tmp_path / "b", **options)
    first, other = read(tmp_path / "a", split="part"), read(tmp_path / "b", split="part")
    assert first.tasks == other.tasks
    assert [names(first, part) for part in PARTS] == [names(other, part) for part in PARTS]


SPELLED = {
    "a line that tells Excel the delimiter": lambda text: "sep=;\r\n" + text.replace(",", ";"),
    "quotes after blanks": lambda text: re.sub(r",([^,\n]*)", r', "\1"', text),
    "blank lines": lambda text: "\n" + text.replace("\n", "\n\n") + "  \n,,,,,\n",
    "line ends of old": lambda text: text.replace("\n", "\r"),
    "folders as Windows has them": lambda text: text.replace("a/", ".\\a\\"),
}


@pytest.mark.parametrize("case", SPELLED)
def test_what_other_programs_write_is_read_alike(tmp_path, case):
    write_photos(tmp_path)
    expected = read(tmp_path, split="part")
    path = tmp_path / "labels.csv"
    path.write_text(SPELLED[case](path.read_text()), newline="")
    found = read(tmp_path, split="part")
    for part in PARTS:
        assert names(found, part) == names(expected, part)
        for task in TASKS:
            mine, theirs = (data.parts[part].labels[task] for data in (found, expected))
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)


def test_rows_after_a_line_for_excel_are_counted_as_an_editor_does(tmp_path):
    write_photos(tmp_path)
    path = tmp_path / "labels.csv"
    path.write_text("sep=,\n" + path.read_text().replace("a/02.png", "a/2.png"))
    with pytest.raises(DataError, match=r"labels\.csv row 5: an image must exist"):
        read(tmp_path, split="part")


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a/0\n2.png", r"a/0\\n2\.png"), ("p" * 300, "p" * 300), ("a/\x002.png", r"a/\\x002\.png")],
    ids=["of two lines", "too long", "with a zero byte"],
)
def test_what_can_be_no_path_is_one_printable_line(tmp_path, name, shown):
    rows = write_photos(tmp_path)
    rows[2]["file"] = name
    write_csv(tmp_path / "labels.csv", rows)
    with pytest.raises(
        DataError, match=rf"row 4: an image must exist, found none .*{shown}"
    ) as error:
        read(tmp_path, split="part")
    assert str(error.value).isprintable()


def test_a_class_of_two_lines_is_named_in_one(tmp_path):
    rows = write_photos(tmp_path)
    rows = [{**row, "species": row["species"].replace("oak", "oak\nred")} for row in rows]
    rows[18]["species"] = "elm"
    write_csv(tmp_path / "labels.csv", rows)
    with pytest.raises(DataError, match=r"row 30 .*beech, oak\\nred\), found 'elm'") as error:
        read(tmp_path, split="part")
    assert str(error.value).isprintable()


def test_a_delimiter_may_be_given_where_the_header_misleads(tmp_path):
    rows = [{f"{key};x": value for key, value in row.items()} for row in write_photos(tmp_path)]
    write_csv(tmp_path / "labels.csv", rows)
    tasks = {"age": TaskConfig(kind="values", target="age;x")}
    settings = {"image": "file;x", "split": "part;x"}
    assert len(read(tmp_path, tasks, delimiter=",", **settings).parts["train"]) == 12
    with pytest.raises(DataError, match="must have the column 'file;x'"):
        read(tmp_path, tasks, **settings)


def test_a_parquet_table_is_read_like_a_csv_one(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    rows = write_photos(tmp_path)
    typed = [
        {**row, "age": float(row["age"]) if row["age"] else None, "species": row["species"] or None}
        for row in rows
    ]
    parquet.write_table(pyarrow.Table.from_pylist(typed), tmp_path / "labels.parquet")
    csv, other = read(tmp_path, split="part"), read(tmp_path, file="labels.parquet", split="part")
    assert csv.tasks == other.tasks
    for task in ("species", "age", "healthy"):
        for part in PARTS:
            first, second = (each.parts[part].labels[task] for each in (csv, other))
            torch.testing.assert_close(first, second, equal_nan=True, rtol=0, atol=0)
    assert other.name("train", 0) == "labels.parquet row 1 (a/00.png)"


def test_a_table_may_lie_elsewhere(tmp_path):
    write_photos(tmp_path / "photos")
    (tmp_path / "photos/labels.csv").rename(tmp_path / "mine.csv")
    assert len(read(tmp_path / "photos", file=str(tmp_path / "mine.csv")).parts["train"]) == 14


def test_several_columns_are_several_labels_or_several_numbers(tmp_path):
    rows = write_photos(tmp_path)
    for index, row in enumerate(rows):
        row |= {"moss": index % 2, "rot": "" if index == 1 else index % 3 % 2}
        row |= {"x": index, "y": -index}
    write_csv(tmp_path / "labels.csv", rows)
    tasks = {
        "damage": TaskConfig(kind="labels", target=["moss", "rot"]),
        "place": TaskConfig(kind="values", target=["x", "y"]),
    }
    data = read(tmp_path, tasks, split="part")
    assert data.tasks[0].class_names == ("moss", "rot")
    assert data.parts["train"].labels["damage"][:3].tolist() == [[0, 0], [1, IGNORED], [0, 0]]
    assert data.parts["train"].labels["place"][:2].tolist() == [[0, 0], [1, -1]]


@pytest.mark.parametrize("kind", ["classes", "binary", "values"])
def test_cells_that_are_missing_are_no_labels(tmp_path, kind):
    rows = write_photos(tmp_path)
    for index, row in enumerate(rows):
        row["x"] = ["0", "1", "-1", "NA", "", "nan"][index % 6]
    write_csv(tmp_path / "labels.csv", rows)
    task = {"x": TaskConfig(kind=kind)}
    data = read(tmp_path, task, split="part", missing=["NA", "-1"])
    labels = torch.cat([data.parts[part].labels["x"] for part in PARTS])
    assert int(data.tasks[0].n_labels(labels)) == 8


class TestParts:
    def test_without_a_column_rows_are_cut_by_ratio_and_stratified(self, tmp_path):
        rows = write_photos(tmp_path, photo_rows(80))
        data = read(tmp_path, ratio=(0.6, 0.2, 0.2))
        assert [len(data.parts[part]) for part in PARTS] == [48, 16, 16]
        both = [(row["species"], row["healthy"]) for row in rows]
        files = {row["file"]: pair for row, pair in zip(rows, both, strict=True)}
        for pair in set(both):
            own = [files[name] for name in names(data, "test")].count(pair)
            assert abs(own - both.count(pair) / 5) <= 1

    def test_the_cut_is_that_of_the_seed_and_not_of_the_order_of_rows(self, tmp_path):
        rows = write_photos(tmp_path)
        first = read(tmp_path)
        other_seed = read(tmp_path, seed=1)
        write_csv(tmp_path / "labels.csv", rows[::-1])
        again = read(tmp_path)
        assert {part: set(names(first, part)) for part in PARTS} == {
            part: set(names(again, part)) for part in PARTS
        }
        assert set(names(first, "test")) != set(names(other_seed, "test"))

    def test_no_group_stands_in_two_parts(self, tmp_path):
        rows = write_photos(tmp_path)
        site = {row["file"]: row["site"] for row in rows}
        data = read(tmp_path, group="site", ratio=(0.6, 0.2, 0.2))
        sites = [{site[name] for name in names(data, part)} for part in PARTS]
        assert [len(each) for each in sites] == [3, 1, 1]
        assert not sites[0] & sites[1] | sites[0] & sites[2] | sites[1] & sites[2]

    def test_a_split_that_keeps_groups_whole_is_taken_with_a_group(self, tmp_path):
        write_photos(tmp_path)
        data = read(tmp_path, split="part", group="site")
        assert [len(data.parts[part]) for part in PARTS] == [12, 4, 4]

    def test_a_column_without_validation_gives_up_a_share_of_its_training_rows(self, tmp_path):
        rows = write_photos(tmp_path)
        for row in rows:
            row["part"] = row["part"].replace("validation", "train")
        write_csv(tmp_path / "labels.csv", rows)
        data = read(tmp_path, split="part", ratio=(0.5, 0.25, 0.25))
        assert [len(data.parts[part]) for part in PARTS] == [11, 5, 4]
        assert names(data, "test") == [row["file"] for row in rows if row["part"] == "test"]


def change(row, **cells):
    """Return what changes cells of the row that an editor shows as `row`."""
    return lambda rows: rows[row - 2].update(cells)


BAD_ROWS = {
    "an image that is not there": (
        change(4, file="a/002.png"),
        r"labels\.csv row 4: an image must exist, found none at .*a/002\.png.*Did you mean '02",
    ),
    "an empty image": (change(5, file=" "), r"labels\.csv row 5: column 'file' must name an image"),
    "a folder": (change(5, file="a"), r"labels\.csv row 5: an image must be a file, found a"),
    "an image outside": (
        change(3, file="../../etc/passwd"),
        r"labels\.csv row 3: an image must lie in the data root, \.\./\.\./etc/passwd lies outside",
    ),
    "an absolute path outside": (
        change(3, file="/etc/passwd"),
        r"labels\.csv row 3: an image must lie in the data root, /etc/passwd lies outside",
    ),
    "two rows for one file": (
        change(6, file="b/../b/01.png"),
        r"labels\.csv row 6: an image must have one row, b/01\.png has another, labels\.csv row 3",
    ),
    "an unknown part": (
        change(7, part="trian"),
        r"labels\.csv row 7: a part in column 'part' must be one of train, .*val.*found 'trian'"
        r".*Did you mean 'train'",
    ),
    "no part": (change(7, part=""), r"labels\.csv row 7: a part in column 'part' .*found ''"),
    "no number": (
        change(8, age="3,5"),
        r"labels\.csv row 8 \(a/06\.png\): Task 'age' must be given finite numbers, found '3,5'",
    ),
    "no number in the test part": (
        change(20, age="old"),
        r"labels\.csv row 20 \(a/18\.png\): Task 'age' must be given finite numbers, found 'old'",
    ),
    "an infinite number": (
        change(8, age="inf"),
        r"labels\.csv row 8 \(a/06\.png\): Task 'age' must be given finite numbers, found 'inf'",
    ),
    "a class that is seen in test alone": (
        change(19, species="elm"),
        r"labels\.csv row 19 \(b/17\.png\): Task 'species' .*\(beech, oak\), found 'elm'",
    ),
    "a class that is seen in validation alone": (
        change(15, species="baech"),
        r"labels\.csv row 15 \(b/13\.png\): Task 'species' .*found 'baech'.*Did you mean 'beech'",
    ),
    "neither yes nor no": (
        change(21, healthy="maybe"),
        r"labels\.csv row 21 \(b/19\.png\): Task 'healthy' .*found 'maybe'",
    ),
    "no group": (
        change(9, site=""),
        r"labels\.csv row 9: every sample must have a group in column 'site', found none",
    ),
    "a group in two parts": (
        change(20, site="s0"),
        r"labels\.csv row 20 \(a/18\.png\): group 's0' must stand in one part, found it in test "
        r"and, labels\.csv row 2 \(a/00\.png\), in train",
    ),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_what_is_wrong_in_a_row_is_one_line_with_file_and_row(tmp_path, case):
    make_wrong, message = BAD_ROWS[case]
    rows = write_photos(tmp_path)
    make_wrong(rows)
    write_csv(tmp_path / "labels.csv", rows)
    with pytest.raises(DataError, match=message) as error:
        read(tmp_path, split="part", group="site")
    assert len(str(error.value).splitlines()) == 1


def test_a_number_that_is_none_is_named_in_a_class_list_and_its_row_too(tmp_path):
    """A class that is not among those that the recipe names, in the training part."""
    rows = write_photos(tmp_path)
    rows[2]["species"] = "elm"
    write_csv(tmp_path / "labels.csv", rows)
    tasks = {"species": TaskConfig(kind="classes", classes=["oak", "beech"])}
    with pytest.raises(DataError, match=r"labels\.csv row 4 \(a/02\.png\): .*found 'elm'"):
        read(tmp_path, tasks, split="part")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"GIF89 but no image", "it is none that Pillow knows"),
    ],
)
def test_a_file_that_is_no_image_is_found_before_anything_is_trained(tmp_path, content, message):
    write_photos(tmp_path)
    (tmp_path / "b/03.png").write_bytes(content)
    with pytest.raises(DataError, match=rf"labels\.csv row 5 \(b/03\.png\): .*{message}"):
        read(tmp_path, split="part")


def test_rows_without_an_image_and_with_a_bad_one_are_named_together(tmp_path):
    """Some of each, and how many more there are."""
    rows = write_photos(tmp_path)
    for row in (0, 1, 2, 3):
        rows[row]["file"] = f"gone{row}.png"
    (tmp_path / rows[5]["file"]).write_bytes(b"no image")
    (tmp_path / rows[6]["file"]).write_bytes(encoded(6)[:-60])
    (tmp_path / rows[8]["file"]).write_bytes(encoded(8, "JPEG", size=(64, 64))[:-200])
    write_csv(tmp_path / "labels.csv", rows)
    with pytest.raises(DataError, match="row 2: an image must exist") as error:
        read(tmp_path, split="part")
    *lines, last = str(error.value).splitlines()
    assert [int(re.search(r"row (\d+)", line)[1]) for line in lines] == [2, 7, 3, 8, 4]
    assert "must be an image" in lines[1]
    assert "must be a whole image" in lines[3]
    assert last == "And 2 more of these. Mend them, too."


def test_an_image_with_something_behind_its_end_is_one(tmp_path):
    rows = write_photos(tmp_path)
    (tmp_path / rows[0]["file"]).write_bytes(encoded(0) + b"camera" * 1000)
    assert len(read(tmp_path, split="part").parts["train"])


def test_an_image_that_is_damaged_within_is_named_when_it_is_read(tmp_path):
    write_photos(tmp_path)
    path = tmp_path / "b/03.png"
    path.write_bytes(spoilt(path.read_bytes()))
    data = read(tmp_path, split="part")
    with pytest.raises(DataError, match=r"labels\.csv row 5 \(b/03\.png\) must be a whole image"):
        data.parts["train"][3]


def test_a_handful_of_faults_are_reported_together(tmp_path):
    rows = write_photos(tmp_path)
    for row in rows[:8]:
        row["age"] = f"about {row['file']}"
    rows[18]["healthy"] = "?"
    write_csv(tmp_path / "labels.csv", rows)
    with pytest.raises(DataError, match="row 2") as error:
        read(tmp_path, split="part")
    lines = str(error.value).splitlines()
    assert [line.split(" (")[0] for line in lines[:5]] == [
        f"labels.csv row {r}" for r in range(2, 7)
    ]
    assert lines[5] == "And 3 more of these. Mend them, too."


def lines_of(path):
    return path.read_text().splitlines()


BAD_FILES = {
    "too few cells": (
        lambda lines: [*lines[:4], "a/00.png,train", *lines[5:]],
        r"row 5: a row must have 6 cells like the header, found 2, too few",
    ),
    "too many cells": (
        lambda lines: [*lines[:4], lines[4] + ",x", *lines[5:]],
        r"row 5: a row must have 6 cells like the header, found 7, too many",
    ),
    "a row after a cell of two lines": (
        lambda lines: [lines[0], lines[1].replace(",s0", ',"s0\n0"'), lines[2], "", lines[3] + ","],
        r"row 6: a row must have 6 cells",
    ),
    "two columns of one name": (
        lambda lines: [lines[0].replace("age", "file"), *lines[1:]],
        r"must have every column once, found 2 named 'file'",
    ),
    "an open quote": (
        lambda lines: [*lines[:3], '"' + lines[3], *lines[4:]],
        r"row 4: a table must be CSV",
    ),
    "nothing": (lambda lines: [], r"must have a header and rows, found none"),
    "names between which nothing known stands": (
        lambda lines: [line.replace(",", " ") for line in lines],
        r"row 1: a header must name 5 columns or more, found one, 'file part.*`data\.delimiter`",
    ),
    "a header alone": (lambda lines: lines[:1], r"must have a header and rows, found none"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_what_is_wrong_with_a_table_is_one_line_with_its_name(tmp_path, case):
    make_wrong, message = BAD_FILES[case]
    write_photos(tmp_path)
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(make_wrong(lines_of(path))))
    with pytest.raises(DataError, match=rf"labels\.csv {message}") as error:
        read(tmp_path, split="part")
    assert str(error.value).count("\n") <= 1


def test_a_table_that_is_not_utf8_is_refused_by_its_row(tmp_path):
    rows = write_photos(tmp_path)
    rows[1]["species"] = "Bäume"
    write_csv(tmp_path / "labels.csv", rows, encoding="latin-1")
    with pytest.raises(DataError, match=r"labels\.csv row 3: a table must be UTF-8, .*0xe4"):
        read(tmp_path, split="part")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"PK\3\4\xff", "an Excel, "),
        (b"\x1f\x8b\0", "a gzip file"),
        (b"\xff\xfef\0", "text in UTF-16"),
    ],
)
def test_a_file_that_is_no_text_is_called_what_it_is(tmp_path, content, what):
    write_photos(tmp_path)
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(DataError, match=rf"labels\.csv must be a table in CSV.*this is {what}"):
        read(tmp_path, split="part")


def test_a_cell_may_be_long(tmp_path):
    rows = write_photos(tmp_path)
    for row in rows:
        row["site"] += "x" * 150_000 * (row is rows[3])
    write_csv(tmp_path / "labels.csv", rows)
    assert len(read(tmp_path, split="part").parts["train"])


@pytest.mark.parametrize(
    ("kind", "cells", "message"),
    [
        ("binary", ["x", ""], "only 'x'"),
        ("classes", ["oak", ""], "only 'oak'"),
        ("values", ["", ""], "found none"),
        ("values", ["5", ""], "found 5 in all"),
    ],
)
def test_what_is_wrong_with_a_column_is_said_once_also_if_some_of_its_cells_are_empty(
    tmp_path, kind, cells, message
):
    rows = write_photos(tmp_path)
    for number, row in enumerate(rows):
        row["age"] = cells[number // 2 % 2]
    write_csv(tmp_path / "labels.csv", rows)
    with pytest.raises(DataError, match=rf"^labels\.csv: Task 'age' .*{message}") as error:
        read(tmp_path, {"age": TaskConfig(kind=kind)}, split="part")
    assert len(str(error.value).splitlines()) == 1


def test_a_cell_of_more_numbers_than_others_is_named_by_its_row(tmp_path):
    rows = write_photos(tmp_path)
    rows[4]["age"] = "1|2"
    write_csv(tmp_path / "labels.csv", rows)
    with pytest.raises(DataError, match=r"^labels\.csv row 6 \(a/04\.png\): .*1 number a cell"):
        read(tmp_path, split="part")


@pytest.mark.parametrize("missing", ["-9", "-9.0"])
@pytest.mark.parametrize("cell", ["-9", "-9.0", " -9.00"])
def test_a_missing_number_may_be_written_in_any_way(tmp_path, missing, cell):
    rows = write_photos(tmp_path)
    rows[4]["age"] = cell
    write_csv(tmp_path / "labels.csv", rows)
    (age,) = read(tmp_path, {"age": TaskConfig(kind="values")}, missing=[missing]).tasks
    assert age.mean[0] > 0
    least = read(tmp_path, {"age": TaskConfig(kind="values")}, missing=[missing], split="part")
    assert torch.stack([own["age"] for _, own in least.parts["train"]]).nan_to_num().min() >= 0


def test_missing_columns_are_named_together_with_near_ones_and_all_there_are(tmp_path):
    write_photos(tmp_path)
    tasks = {"age": TaskConfig(kind="values", target="agee"), "moss": TaskConfig(kind="binary")}
    with pytest.raises(DataError, match="column") as error:
        read(tmp_path, tasks, split="fold")
    lines = str(error.value).splitlines()
    known = "found file, part, species, age, healthy, site."
    assert lines[0].startswith(
        f"labels.csv must have the column 'agee' that `tasks.age.target` names, {known}"
    )
    assert "Did you mean 'age'?" in lines[0]
    assert "the column 'moss' that `tasks.moss` names" in lines[1]
    assert "the column 'fold' that `data.split` names" in lines[2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"file": "label.csv"}, r"found no file at .*label\.csv\. Did you mean 'labels\.csv'"),
        ({"root": None}, r"'table' data need a folder, got no data root.*--data-root"),
        ({"root": "nowhere"}, r"`data\.root` must be a folder, found none at nowhere"),
        ({"file": None}, r"`data\.file` is needed"),
        ({"image": None}, r"`data\.image` is needed"),
    ],
)
def test_what_is_not_named_or_not_there_is_said(tmp_path, settings, message):
    write_photos(tmp_path)
    with pytest.raises((DataError, RecipeError), match=message):
        read(tmp_path, **settings)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({}, r"'table' data need the tasks in the recipe, found none. Add a table"),
        ({"age": TaskConfig()}, r"`tasks\.age\.kind` is needed and missing"),
        ({"age": TaskConfig(kind="value")}, r"Task 'age': .*Did you mean 'values'"),
        ({"age": TaskConfig(kind="values", unti="m")}, r"Task 'age' has no option `unti`"),
    ],
)
def test_tasks_that_say_too_little_or_too_much_are_refused(tmp_path, tasks, message):
    write_photos(tmp_path)
    with pytest.raises(RecipeError, match=message):
        read(tmp_path, tasks, split="part")


@pytest.mark.parametrize("part", PARTS)
def test_a_part_without_rows_or_without_a_task_s_labels_is_refused(tmp_path, part):
    rows = write_photos(tmp_path)
    for row in rows:
        if row["part"] == part:
            row["age"] = ""
    write_csv(tmp_path / "labels.csv", rows)
    with pytest.raises(
        DataError, match=r"labels\.csv.*(label|number).*'age'|'age'.*(label|number)"
    ):
        read(tmp_path, split="part")


def test_too_few_rows_for_three_parts_are_refused(tmp_path):
    write_photos(tmp_path, photo_rows(2))
    with pytest.raises(
        DataError, match=r"labels\.csv must have samples for every part, found 2 tr"
    ):
        read(tmp_path, {"age": TASKS["age"]}, ratio=(0.8, 0.1, 0.1))


class TestFingerprint:
    def test_it_is_that_of_what_files_hold_wherever_they_lie(self, tmp_path):
        write_photos(tmp_path / "a")
        shutil.copytree(tmp_path / "a", tmp_path / "other name")
        first = read(tmp_path / "a", split="part").fingerprint
        assert first
        assert read(tmp_path / "other name", split="part").fingerprint == first

    @pytest.mark.parametrize("file", ["labels.csv", "a/00.png", "b/19.png"])
    def test_another_byte_is_another_fingerprint_also_with_the_same_size_and_date(
        self, tmp_path, file
    ):
        write_photos(tmp_path)
        first = read(tmp_path, split="part").fingerprint
        path = tmp_path / file
        before, raw = path.stat(), bytearray(path.read_bytes())
        raw[-2] ^= 1
        path.write_bytes(raw)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        tasks = {"species": TASKS["species"]}
        assert read(tmp_path, tasks, split="part").fingerprint != first

    def test_files_that_no_row_names_do_not_count(self, tmp_path):
        write_photos(tmp_path)
        first = read(tmp_path, split="part").fingerprint
        write_image(tmp_path / "a/unnamed.png")
        assert read(tmp_path, split="part").fingerprint == first

    def test_large_data_are_read_once_and_a_file_again_when_it_changes(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr(contents, "KEPT_FROM", 0)
        monkeypatch.setattr(contents, "_SETTLED", -1.0)
        looked = []
        look = contents._look
        monkeypatch.setattr(contents, "_look", lambda own: looked.append(len(own)) or look(own))
        write_photos(tmp_path / "a")
        first = read(tmp_path / "a", split="part").fingerprint
        assert len(looked) == 20
        assert read(tmp_path / "a", split="part").fingerprint == first
        assert len(looked) == 20
        path = tmp_path / "a/a/00.png"
        before = path.stat()
        write_image(path, 99)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert read(tmp_path / "a", split="part").fingerprint != first
        assert len(looked) == 21

    def test_a_damaged_cache_is_read_over(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr(contents, "KEPT_FROM", 0)
        write_photos(tmp_path / "a")
        first = read(tmp_path / "a", split="part").fingerprint
        (kept,) = (tmp_path / "cache").rglob("*.json")
        kept.write_text("[1, 2")
        assert read(tmp_path / "a", split="part").fingerprint == first
