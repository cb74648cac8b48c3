"""`recon-search data`: what it counts, what it warns of, what it refuses, and what it draws."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from recon_search.recipe import parse_recipe
from recon_search.stages.data import Looked, examine
from recon_search.stages.findings import Column, Overlap, advise
from recon_search.tasks.classes import Classes
from recon_search.views.data import bars, shorten
from recon_search.views.sheet import contact_sheet, describe
from tests.data.files import encoded, photo_rows, spoilt, write_csv, write_image, write_photos
from tests.stages.recipes import TINY

REST = TINY.partition("[backbone]")[1] + TINY.partition("[backbone]")[2]

PHOTOS = (
    """
[data]
name = "table"
root = "photos"
file = "labels.csv"
image = "file"
split = "part"
image_size = [8, 8]
[data.augment]
flip = 0.5
[tasks.species]
kind = "classes"
[tasks.age]
kind = "values"
unit = "years"
[tasks.healthy]
kind = "binary"
"""
    + REST
)


@pytest.fixture
def photos(tmp_path):
    """A folder of photographs, and a recipe beside it; returns the rows."""
    (tmp_path / "my.toml").write_text(PHOTOS)
    return write_photos(tmp_path / "photos")


def call_json(invoke, *arguments):
    done = invoke("data", "my.toml", "--json", *arguments)
    assert done.code == 0, done.error
    return json.loads(done.output)


def write_rows(tmp_path, rows):
    write_csv(tmp_path / "photos/labels.csv", rows)


def test_counts_are_those_of_the_table(tmp_path, invoke, photos):
    found = call_json(invoke)
    assert found["samples"] == {"train": 12, "validation": 4, "test": 4}
    assert found["shape"] == [3, 8, 8]
    tasks = {task["name"]: task for task in found["tasks"]}
    assert [task["kind"] for task in tasks.values()] == ["classes", "values", "binary"]
    for part, n in found["samples"].items():
        own = [row for row in photos if row["part"] == part]
        assert len(own) == n
        for name, task in tasks.items():
            assert task["labelled"][part] == sum(row[name] != "" for row in own)
        for name in ("species", "healthy"):
            for label, counts in tasks[name]["classes"].items():
                assert counts[part] == sum(row[name] == label for row in own)
        ages = np.array([float(row["age"]) for row in own if row["age"]])
        (spreads,) = tasks["age"]["numbers"]
        assert spreads[part]["least"] == ages.min()
        assert spreads[part]["greatest"] == ages.max()
        assert spreads[part]["mean"] == pytest.approx(ages.mean())
        assert spreads[part]["deviation"] == pytest.approx(ages.std(ddof=1))
        assert sum(spreads[part]["histogram"]) == len(ages)
    assert list(tasks["species"]["classes"]) == ["beech", "oak"]
    assert found["unreadable"] == found["doubles"] == found["advice"] == []


def test_overlaps_are_the_training_samples_with_labels_of_both(tmp_path, invoke, photos):
    own = [row for row in photos if row["part"] == "train"]
    for pair in call_json(invoke)["overlaps"]:
        has = [[row[pair[task]] != "" for row in own] for task in ("first", "second")]
        both = sum(a and b for a, b in zip(*has, strict=True))
        either = sum(a or b for a, b in zip(*has, strict=True))
        assert (pair["both"], pair["either"]) == (both, either)
        assert pair["share"] == both / either


@pytest.mark.parametrize(
    ("both", "message"),
    [
        (1, "species-age: conflict .* noise below 30%"),
        (3, "species-age: .* only above 40%"),
        (6, ""),
    ],
)
def test_tasks_that_share_few_samples_are_warned_of(tmp_path, invoke, photos, both, message):
    """Of ten training samples, so many have labels of both tasks."""
    for index, row in enumerate(photos[:12]):
        row["species"] = ["oak", "beech"][index % 2] if index < 5 + (both + 1) // 2 else ""
        row["age"] = str(index) if 10 > index >= 5 - both // 2 else ""
        row["healthy"] = "yes" if index % 2 else "no"
    write_rows(tmp_path, photos)
    done = invoke("data", "my.toml")
    assert done.code == 0
    warnings = "\n".join(line for line in done.output.splitlines() if line.startswith("Warning"))
    if message:
        assert re.search(f"Warning: {message}", warnings)
    else:
        assert "species-age" not in warnings


@pytest.mark.parametrize(
    ("share", "words"), [(0.29, "noise"), (0.31, "reliable"), (0.39, "reliable"), (0.41, "")]
)
def test_the_limits_are_30_and_40_percent(share, words):
    sizes = {"train": 8, "validation": 4, "test": 4}
    found = examine(Looked(parse_recipe(minimal("multi-digits", **sizes))))
    pair = Overlap("left", "right", round(100 * share), 100)
    lines = [line for line in advise(replace(found, overlaps=[pair])) if "left-right" in line]
    assert len(lines) == bool(words)
    assert all(words in line for line in lines)


def minimal(name, **data):
    return {
        "data": {"name": name, **data},
        "backbone": {"name": "resnet18"},
        "train": {"epochs": 1, "batch_size": 4, "lr": 0.1},
        "probe": {"epochs": 1},
    }


def test_equal_images_in_two_parts_are_named_and_counted_whatever_their_files(
    tmp_path, invoke, photos
):
    """One copied, one written anew in another format."""
    root = tmp_path / "photos"
    (root / "a/18.png").write_bytes((root / "a/00.png").read_bytes())
    Image.open(root / "b/01.png").save(root / "b/17.bmp")
    photos[17]["file"] = "b/17.bmp"
    (root / "a/04.png").write_bytes((root / "a/02.png").read_bytes())
    write_rows(tmp_path, photos)
    found = call_json(invoke)
    assert [[name.split("(")[1] for name in pair] for pair in found["doubles"]] == [
        ["b/01.png)", "b/17.bmp)"],
        ["a/00.png)", "a/18.png)"],
    ]
    assert found["repeated"] == 1
    output = invoke("data", "my.toml").output
    assert "Equal: labels.csv row 2 (a/00.png) and labels.csv row 20 (a/18.png)" in output
    assert "Warning: 2 images stand in two parts" in output
    assert "Warning: 1 training image is there more than once." in output


@pytest.mark.parametrize("rows", [[3], [0], [0, 13, 19]])
def test_images_that_do_not_decode_are_all_named_and_end_with_exit_code_2(
    tmp_path, invoke, photos, rows
):
    """Also the first of a part, and the first of all."""
    for row in rows:
        path = tmp_path / "photos" / photos[row]["file"]
        path.write_bytes(spoilt(path.read_bytes()))
    done = invoke("data", "my.toml")
    assert done.code == 2
    errors = done.error.splitlines()
    assert [line.split(" must")[0] for line in errors] == [
        f"error: labels.csv row {row + 2} ({photos[row]['file']})" for row in rows
    ]
    assert all("must be a whole image" in line for line in errors)
    assert f"The tables leave out {len(rows)}, named below, that cannot be read." in done.output
    assert "Written: my-data.png" in done.output
    as_json = invoke("data", "my.toml", "--json")
    assert as_json.code == 2
    assert len(json.loads(as_json.output)["unreadable"]) == len(rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file": "a/gone.png"}, "error: labels.csv row 4: an image must exist"),
        ({"age": "old"}, "error: labels.csv row 4 (a/02.png): Task 'age' must be given finite"),
        ({"part": "trial"}, "error: labels.csv row 4: a part in column 'part' must be one of"),
    ],
)
def test_what_would_end_a_run_is_one_line_and_exit_code_2(
    tmp_path, invoke, photos, change, message
):
    photos[2] |= change
    write_rows(tmp_path, photos)
    for command in ("data", "validate"):
        done = invoke(command, "my.toml")
        assert done.code == 2
        assert done.error.startswith(message)
        assert len(done.error.splitlines()) == 1


def test_tables_fit_into_100_columns_and_markup_in_names_is_text(tmp_path, invoke):
    rows = photo_rows()
    for index, row in enumerate(rows):
        row["species"] = f"[bold]quercus robur var. fastigiata number {index % 2}[/bold]"
    write_photos(tmp_path / "photos", rows)
    text = PHOTOS.replace(
        "tasks.species]", 'tasks."[red]the species of the tree in the picture"]\ntarget = "species"'
    )
    (tmp_path / "my.toml").write_text(text)
    done = invoke("data", "my.toml")
    assert done.code == 0, done.error
    assert max(map(len, done.output.splitlines())) <= 100
    assert "[bold]quercus" in done.output
    assert "[red]the species" in done.output


def test_the_sheet_is_written_where_asked_and_with_json_only_then(tmp_path, invoke, photos):
    assert invoke("data", "my.toml", "--json").code == 0
    assert not list(tmp_path.glob("*.png"))
    assert json.loads(invoke("data", "my.toml", "--json", "--out", "sub/a.png").output)
    assert invoke("data", "my.toml").output.endswith("Written: my-data.png\n")
    for name in ("sub/a.png", "my-data.png"):
        with Image.open(tmp_path / name) as sheet:
            assert sheet.width > 1000


def sheet_of(tmp_path, text=PHOTOS):
    (tmp_path / "my.toml").write_text(text.replace('"photos"', f'"{tmp_path}/photos"'))
    from recon_search.recipe import load_recipe

    looked = Looked(load_recipe(tmp_path / "my.toml"))
    return looked, contact_sheet(looked)


def test_the_sheet_shows_training_images_as_they_are_trained_on_with_their_labels(tmp_path):
    rows = photo_rows()
    for row in rows:
        row["age"] = str(int(row["file"][2:4]))  # tells images apart
    write_photos(tmp_path / "photos", rows)
    _, figure = sheet_of(tmp_path)
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 12
    by_age = {int(row["age"]): row for row in rows}
    flipped = 0
    for axes in panels:
        species, age, healthy = axes.get_title(loc="left").splitlines()
        row = by_age[int(age.removeprefix("age: ").removesuffix(" years"))]
        assert row["part"] == "train"
        assert species == f"species: {row['species'] or '-'}"
        assert healthy == f"healthy: {row['healthy']}"
        image = np.asarray(Image.open(tmp_path / "photos" / row["file"]))[:, :8]
        shown = np.asarray(axes.images[0].get_array())
        assert shown.shape == (8, 8, 3)
        flipped += not np.array_equal(shown, image)
    assert 0 < flipped < 12


def test_a_sheet_leaves_out_what_cannot_be_read(tmp_path):
    rows = write_photos(tmp_path / "photos")
    (tmp_path / "photos" / rows[0]["file"]).write_bytes(spoilt(encoded(0)))
    _, figure = sheet_of(tmp_path)
    assert sum(bool(axes.images) for axes in figure.axes) == 11


class TestOtherSources:
    def test_a_built_in_set(self, invoke, tmp_path):
        (tmp_path / "my.toml").write_text(TINY)
        found = call_json(invoke, "--out", "sheet.png")
        assert found["samples"] == {"train": 128, "validation": 32, "test": 32}
        assert [task["name"] for task in found["tasks"]] == ["left", "right"]
        assert found["overlaps"][0]["share"] == 1
        assert sum(n["train"] for n in found["tasks"][0]["classes"].values()) == 128
        assert (tmp_path / "sheet.png").is_file()

    def test_folders_of_classes(self, invoke, tmp_path):
        for part, n in (("train", 6), ("val", 3), ("test", 3)):
            for label in ("cat", "dog"):
                for index in range(n):
                    seed = hash((part, label, index)) % 10**6
                    write_image(tmp_path / "photos" / part / label / f"{index}.png", seed)
        data = '[data]\nname = "image-folder"\nroot = "photos"\n'
        (tmp_path / "my.toml").write_text(data + REST)
        found = call_json(invoke)
        assert found["tasks"][0]["classes"] == {
            label: {"train": 6, "validation": 3, "test": 3} for label in ("cat", "dog")
        }
        assert invoke("data", "my.toml", "--data-root", "elsewhere").code == 2

    def test_a_factory(self, invoke, tmp_path):
        data = '[data]\nname = "factory"\nfactory = "tests.stages.test_data:build"\n'
        (tmp_path / "my.toml").write_text(data + REST)
        done = invoke("data", "my.toml", "--json", "--out", "sheet.png")
        assert done.code == 2
        found = json.loads(done.output)
        assert found["samples"] == {"train": 6, "validation": 3, "test": 3}
        assert found["tasks"][1]["labelled"]["train"] == 2
        assert found["unreadable"][0].startswith("sample 1 of the test part must be readable, got")
        assert found["doubles"][0] == [
            "sample 0 of the train part",
            "sample 0 of the validation part",
        ]


class Noise:
    """Tensors with a class, and sometimes a number."""

    def __init__(self, n, seed, broken=()):
        self.n, self.seed, self.broken = n, seed, broken

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if index in self.broken:
            raise OSError("the disk is full")
        generator = torch.Generator().manual_seed(self.seed + index)
        targets = {"kind": index % 2} | ({"size": [float(index)]} if index % 3 == 0 else {})
        return torch.rand(3, 8, 8, generator=generator), targets


def build():
    import recon_search as rs

    parts = {"train": Noise(6, 0), "validation": Noise(3, 0), "test": Noise(3, 50, broken=[1])}
    return rs.TaskData((rs.Classes("kind", 2), rs.Values("size")), parts)


@pytest.mark.parametrize(
    ("task", "target", "text"),
    [
        ("Classes", 1, "b"),
        ("Classes", -100, "-"),
        ("Classes", None, "-"),
        ("Labels", [1, 0], "a"),
        ("Labels", [1, 1], "a, b"),
        ("Labels", [0, -100], "none"),
        ("Values", [1.25], "1.25 m"),
        ("Values", [float("nan")], "-"),
    ],
)
def test_labels_are_said_in_the_user_s_words(task, target, text):
    import recon_search as rs

    options = {"unit": "m"} if task == "Values" else {"n_classes": 2, "class_names": ("a", "b")}
    made = getattr(rs, task)("x", **options)
    assert describe(made, None if target is None else torch.tensor(target)) == text


def test_long_lists_say_how_many_more_there_are():
    assert shorten(["x"] * 20, "lines") == ["x"] * 20
    assert shorten(["x"] * 23, "lines")[20:] == ["... and 3 more lines"]


def test_several_labels_and_classes_without_a_sample_are_counted(tmp_path, invoke, photos):
    for index, row in enumerate(photos):
        row["damage"] = ["moss", "moss|rot", "", "none"][index % 4]
    write_rows(tmp_path, photos)
    tasks = """
    [tasks.damage]
    kind = "labels"
    none = "none"
    [tasks.species]
    classes = ["beech", "elm", "oak"]
    """
    text = PHOTOS.replace("[tasks.species]", tasks)
    (tmp_path / "my.toml").write_text(text)
    found = call_json(invoke)
    damage, species = found["tasks"][:2]
    assert damage["labelled"] == {"train": 9, "validation": 3, "test": 3}
    assert damage["classes"]["moss"] == {"train": 6, "validation": 2, "test": 2}
    assert damage["classes"]["rot"] == {"train": 3, "validation": 1, "test": 1}
    assert species["classes"]["elm"] == {"train": 0, "validation": 0, "test": 0}
    assert found["advice"] == ["species: no training sample of elm."]


class OwnKind(Classes):
    """A kind whose counting cannot be done for all samples at once."""

    def n_labels(self, target):
        return torch.tensor(int(super().n_labels(target)))


@pytest.mark.parametrize("kind", [Classes, OwnKind])
def test_samples_are_told_apart_where_a_task_has_some_of_them_only(kind):
    column, task = Column(), kind("x", 3)
    assert column.labelled(task) == frozenset()
    for number, target in ((2, 0), (5, -100), (7, 2)):
        column.add(number, torch.tensor(target))
    assert column.labelled(task) == {2, 7}
    assert column.targets.tolist() == [0, -100, 2]


@pytest.mark.parametrize(
    ("counts", "text"), [([0, 1, 100], " ▁█"), ([0, 0], "  "), ([8, 4, 2], "█▄▂")]
)
def test_bars_show_whatever_is_not_zero(counts, text):
    assert bars(counts) == text


@pytest.mark.parametrize(
    ("column", "kept", "line"),
    [
        ("species", "oak", "species: oak alone in the test part, so auroc is nan there."),
        ("healthy", "yes", "healthy: yes alone in the test part, so auroc is nan there."),
        ("age", "3", "age: a single value in the test part, so r2 is nan there."),
    ],
)
def test_parts_in_which_a_metric_is_no_number_are_named(
    tmp_path, invoke, photos, column, kept, line
):
    same = [{**row, column: kept} if row["part"] == "test" else row for row in photos]
    write_rows(tmp_path, same)
    assert call_json(invoke)["advice"] == [line]


STEERING = "\x1b[31moak\x9b2J\a"
"""What a terminal would obey: escape sequences of one byte and of two, a bell."""


def test_names_of_the_data_cannot_steer_the_terminal(tmp_path, invoke, photos):
    rows = [
        {name: STEERING if cell == "oak" else cell for name, cell in row.items()} for row in photos
    ]
    write_rows(tmp_path, rows)
    done = invoke("data", "my.toml")
    assert done.code == 0, done.error
    said = done.output + done.error
    assert "[31moak\\x9b2J\\x07" in said
    assert all(letter.isprintable() for letter in said.replace("\n", "")), said
