"""Folders of parts and classes, one tree or several; a file in several trees has several labels."""

import shutil

import pytest

from recon_search.data.registry import READERS
from recon_search.data.source import PARTS
from recon_search.errors import DataError, RecipeError
from recon_search.recipe import DataConfig, TaskConfig
from recon_search.tasks.classes import IGNORED
from tests.data.files import write_image

TREES = {"colour": TaskConfig(), "shape": TaskConfig(kind="classes", target="forms")}


def read(folder, tasks=None, **settings):
    config = DataConfig(name="image-folder", root=str(folder), **settings)
    return READERS["image-folder"](config, tasks or {})


def write_tree(root, parts=("train", "validation", "test"), n=8):
    """Two classes, with n images of each in train and a fourth of that in other parts."""
    for place, part in enumerate(parts):
        for label, name in enumerate(("cat", "dog")):
            for index in range(n if place == 0 else n // 4):
                seed = 1000 * place + 100 * label + index
                write_image(root / part / name / f"{index}.png", seed)


def write_forest(root, parts=("train", "validation", "test")):
    """Two trees: in each part four files in both, two in the first alone, two in the second."""
    for place, part in enumerate(parts):
        for index in range(8):
            name, seed = f"{part}{index}.png", 100 * place + index
            if index < 6:
                write_image(root / "colour" / part / ["red", "blue"][index % 2] / name, seed)
            if index not in (4, 5):
                write_image(root / "forms" / part / ["disc", "cube"][index // 2 % 2] / name, seed)


def sizes(data):
    return [len(data.parts[part]) for part in PARTS]


def listed(data):
    """By part, the files and their labels."""
    return {
        part: {
            data.name(part, index): {n: int(t) for n, t in own.targets(index).items()}
            for index in range(len(own))
        }
        for part, own in data.parts.items()
    }


@pytest.mark.parametrize("names", [("train", "validation", "test"), ("Train", "val", "TEST")])
def test_one_tree_is_one_task_whose_classes_are_folders(tmp_path, names):
    write_tree(tmp_path, names)
    data = read(tmp_path)
    (task,) = data.tasks
    assert (task.name, task.class_names) == ("label", ("cat", "dog"))
    assert sizes(data) == [16, 4, 4]
    assert data.image_size == (8, 9)
    assert listed(data)["test"] == {
        f"{names[2]}/{name}/{index}.png": {"label": label}
        for label, name in enumerate(("cat", "dog"))
        for index in range(2)
    }
    image, targets = data.parts["train"][0]
    assert image.size == (9, 8)
    assert targets.keys() == {"label"}


def test_the_task_of_one_tree_may_be_named_and_given_options(tmp_path):
    write_tree(tmp_path / "animals")
    tasks = {"animal": TaskConfig(target="animals", classes=["dog", "cat"], weight=2.0)}
    (task,) = read(tmp_path, tasks).tasks
    assert (task.name, task.class_names, task.weight) == ("animal", ("dog", "cat"), 2.0)
    (own,) = read(tmp_path / "animals", {"animal": TaskConfig()}).tasks
    assert own.name == "animal"


def test_a_file_in_several_trees_is_one_sample_with_several_labels(tmp_path):
    write_forest(tmp_path)
    data = read(tmp_path, TREES)
    assert [task.class_names for task in data.tasks] == [("blue", "red"), ("cube", "disc")]
    assert sizes(data) == [8, 8, 8]
    for part, found in listed(data).items():
        labels = {name.rsplit("/")[-1]: label for name, label in found.items()}
        assert labels == {
            f"{part}{index}.png": {
                "colour": 1 - index % 2 if index < 6 else IGNORED,
                "shape": 1 - index // 2 % 2 if index not in (4, 5) else IGNORED,
            }
            for index in range(8)
        }


def test_files_that_are_no_images_or_hidden_are_passed_over(tmp_path):
    write_tree(tmp_path)
    (tmp_path / "train/cat/notes.txt").write_text("x")
    (tmp_path / "train/Thumbs.db").write_text("x")
    write_image(tmp_path / "train/cat/.hidden.png")
    write_image(tmp_path / "train/.thumbnails/1.png")
    write_image(tmp_path / "extra/cat/1.png")
    assert sizes(read(tmp_path)) == [16, 4, 4]


def test_classes_may_have_folders_below_and_be_links(tmp_path):
    write_tree(tmp_path / "a")
    (tmp_path / "a/train/dog").rename(tmp_path / "dogs")
    (tmp_path / "a/train/dog").symlink_to(tmp_path / "dogs")
    write_image(tmp_path / "a/train/cat/more/1.png", 77)
    data = read(tmp_path / "a")
    assert sizes(data) == [17, 4, 4]
    assert listed(data)["train"]["train/cat/more/1.png"] == {"label": 0}


class TestMissingParts:
    def test_without_validation_a_stratified_share_of_train_is_cut_off(self, tmp_path):
        write_tree(tmp_path, ("train", "test"), n=20)
        data = read(tmp_path)
        assert sizes(data) == [33, 7, 10]
        dogs = sum(label["label"] for label in listed(data)["validation"].values())
        assert dogs in (3, 4)
        assert listed(data) == listed(read(tmp_path))
        assert listed(data) != listed(read(tmp_path, seed=1))
        assert sizes(read(tmp_path, ratio=(0.4, 0.4, 0.2))) == [20, 20, 10]

    def test_without_test_one_line_asks_for_it_or_for_a_ratio(self, tmp_path):
        write_tree(tmp_path, ("train", "valid"), n=20)
        with pytest.raises(DataError, match=r"must have a test part, found none.*data\.ratio"):
            read(tmp_path)
        assert sizes(read(tmp_path, ratio=(0.6, 0.2, 0.2))) == [30, 10, 10]

    def test_without_both_a_ratio_cuts_the_training_folder(self, tmp_path):
        write_tree(tmp_path, ("train",), n=20)
        assert sizes(read(tmp_path, ratio=(0.6, 0.2, 0.2))) == [24, 8, 8]

    def test_with_all_a_ratio_is_refused(self, tmp_path):
        write_tree(tmp_path)
        with pytest.raises(DataError, match=r"`data\.ratio` would cut nothing"):
            read(tmp_path, ratio=(0.6, 0.2, 0.2))


def move(source, target):
    def change(root):
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        (root / source).rename(root / target)

    return change


def copy(source, target):
    def change(root):
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / source, root / target)

    return change


BAD_TREES = {
    "an image beside the classes": (
        copy("train/cat/0.png", "train/0.png"),
        r"^train/0\.png: an image must stand in the folder of its class",
    ),
    "no train": (
        move("train", "trian"),
        r"must hold a folder train with a folder for each class, found test, trian, validation",
    ),
    "two folders for one part": (
        copy("train/cat/0.png", "val/cat/0.png"),
        r"must hold one folder for the validation part, found val and validation",
    ),
    "a class in test alone": (
        copy("train/cat/0.png", "test/cow/0.png"),
        r"^test/cow/0\.png: Task 'label' .*found 'cow'",
    ),
    "no image": (
        lambda root: (root / "train/cat/3.png").write_bytes(b"no image"),
        r"^train/cat/3\.png: .*it is none that Pillow knows",
    ),
    "a class that reads as no label": (
        copy("train/cat/0.png", "train/nan/0.png"),
        r"^train/nan/0\.png: a folder's name must be .* 'nan' would be read as no label",
    ),
    "two classes of one number": (
        copy("train/cat/0.png", "train/1.0/0.png"),
        r"^train/1\.0/0\.png: a folder's name must be .* '1\.0' would be read as 1\. Rename",
    ),
    "an empty part": (
        lambda root: shutil.rmtree(root / "test/cat") or shutil.rmtree(root / "test/dog"),
        r"must have a test part",
    ),
    "one class": (
        lambda root: [
            shutil.rmtree(root / part / "dog") for part in ("train", "validation", "test")
        ],
        r"Task 'label' must have at least two classes",
    ),
}


@pytest.mark.parametrize("case", BAD_TREES)
def test_what_is_wrong_in_a_tree_is_one_line_that_names_it(tmp_path, case):
    make_wrong, message = BAD_TREES[case]
    write_tree(tmp_path)
    make_wrong(tmp_path)
    with pytest.raises(DataError, match=message) as error:
        read(tmp_path)
    assert len(str(error.value).splitlines()) == 1


BAD_FORESTS = {
    "a missing tree": (
        move("forms", "form"),
        r"must hold the folder 'forms' of a task, found none\. Did you mean 'form'",
    ),
    "one name twice in a tree": (
        copy("colour/train/red/train0.png", "colour/train/blue/train0.png"),
        r"^colour/train/red/train0\.png: .*name once a part, found it also at colour/train/blue",
    ),
    "one name in two parts": (
        copy("colour/train/red/train0.png", "forms/test/disc/train0.png"),
        r"^forms/test/disc/train0\.png: an image must stand in one part, found train0",
    ),
    "one name for two images": (
        copy("colour/train/red/train0.png", "forms/train/disc/train1.png"),
        r"^forms/train/disc/train1\.png: files of one name in several trees must be one image, "
        r"colour/train/blue/train1\.png holds another",
    ),
}


@pytest.mark.parametrize("case", BAD_FORESTS)
def test_what_is_wrong_between_trees_is_one_line_that_names_it(tmp_path, case):
    make_wrong, message = BAD_FORESTS[case]
    write_forest(tmp_path)
    make_wrong(tmp_path)
    with pytest.raises(DataError, match=message) as error:
        read(tmp_path, TREES)
    assert len(str(error.value).splitlines()) == 1


def test_an_empty_folder_and_none_at_all_are_said(tmp_path):
    (tmp_path / "train/cat").mkdir(parents=True)
    with pytest.raises(DataError, match=r"must hold images in folders train/CLASS, found none"):
        read(tmp_path)
    with pytest.raises(DataError, match=r"'image-folder' data need a folder, got no data root"):
        READERS["image-folder"](DataConfig(name="image-folder"), {})


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (TaskConfig(kind="values"), r"`tasks\.a\.kind` must be \"classes\" for 'image-folder'"),
        (TaskConfig(target=["a", "b"]), r"`tasks\.a\.target` must be one folder, got \['a', 'b'\]"),
        (TaskConfig(colour="red"), r"Task 'a' has no option `colour`"),
    ],
)
def test_tasks_that_folders_cannot_have_are_refused(tmp_path, task, message):
    write_tree(tmp_path)
    with pytest.raises(RecipeError, match=message):
        read(tmp_path, {"a": task.model_copy(update={"target": task.target or ""})})


def test_the_fingerprint_is_that_of_names_below_the_root_and_of_contents(tmp_path):
    write_tree(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first = read(tmp_path / "a").fingerprint
    assert first
    assert read(tmp_path / "b").fingerprint == first
    write_image(tmp_path / "b/train/cat/0.png", 99)
    other = read(tmp_path / "b").fingerprint
    assert other != first
    (tmp_path / "b/train/cat/0.png").rename(tmp_path / "b/train/dog/cat0.png")
    assert read(tmp_path / "b").fingerprint not in (first, other)
