"""Data of every kind through trainings: the same numbers whoever reads it, and where it is read."""

import multiprocessing
import tomllib

import pytest
import torch

import recon_search as rs
from recon_search.artefact import read_json
from recon_search.data.given import settle
from recon_search.errors import DataError, RecipeError
from recon_search.recipe import parse_recipe
from recon_search.runs.pool import train_all
from recon_search.runs.run import Run
from recon_search.runs.trainer import train
from recon_search.runs.training import Training
from tests.data.factories import digits
from tests.data.files import photo_rows, write_photos
from tests.data.samples import of_tensors
from tests.stages.recipes import TINY

BUILT_IN = {"name": "multi-digits", "train": 128, "validation": 32, "test": 32, "canvas": 12}
STREAMED = {
    "name": "factory",
    "factory": "tests.data.factories:digits",
    "args": {"train": 128},
    "cache": "none",
}


def recipe_of(data, **sections):
    return parse_recipe({**tomllib.loads(TINY), "data": data, **sections})


def training_of(run, seed=0, epochs=2):
    train = run.recipe.train.model_copy(update={"epochs": epochs, "measure_every": 0})
    return Training(run.schema.names, None, train, run.recipe.backbone, seed)


def history(result):
    return [{k: v for k, v in each.items() if k != "seconds"} for each in result.history()]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """Two trainings on a built-in data set."""
    run = Run(recipe_of(BUILT_IN), tmp_path_factory.mktemp("built-in"), workers=1)
    return train_all([training_of(run, seed) for seed in range(2)], run, "built-in")


@pytest.mark.parametrize("settings", [{"workers": 0}, {"workers": 2}, {"cache": "memory"}], ids=str)
def test_streamed_data_trains_to_the_same_numbers(tmp_path, expected, settings):
    run = Run(recipe_of(STREAMED | settings), tmp_path, workers=1)
    found = train_all([training_of(run)], run, "streamed")[0]
    assert history(found) == history(expected[0])
    assert found.test == expected[0].test
    assert not multiprocessing.active_children(), "readers end with the training"


def test_processes_of_trainings_have_readers_of_their_own(tmp_path, expected):
    run = Run(recipe_of(STREAMED | {"workers": 1}), tmp_path, workers=2)
    found = train_all([training_of(run, seed) for seed in range(2)], run, "streamed")
    assert list(map(history, found)) == list(map(history, expected))


def test_what_cannot_be_read_is_one_line_from_a_reader_in_a_training_process(tmp_path):
    data = STREAMED | {"factory": "tests.runs.test_data:broken", "args": {}, "workers": 1}
    run = Run(recipe_of(data), tmp_path, workers=2)
    message = r"\Asample 70 of the train part must be readable, got ValueError: no picture\. .*\Z"
    with pytest.raises(DataError, match=message):
        train_all([training_of(run, seed) for seed in range(2)], run, "broken")


class Broken:
    """Samples of which one cannot be read."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        if index == 70:
            raise ValueError("no\npicture")
        return self.samples[index]


def broken():
    data = digits(128)
    return rs.TaskData(data.tasks, {**data.parts, "train": Broken(data.parts["train"])})


AUGMENTED = STREAMED | {"augment": {"flip": 0.5, "scale": [0.5, 1.0], "random_erasing": 0.5}}


@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupted_training_goes_on_with_the_same_bytes(tmp_path, workers):
    """Augmentation of an epoch does not depend on the ones before it."""

    class InterruptError(Exception):
        pass

    def stop(record):
        if record["epoch"] == 1:
            raise InterruptError

    run = Run(recipe_of(AUGMENTED | {"workers": workers}), tmp_path / "a", workers=1)
    whole = train(training_of(run, epochs=3), Run(run.recipe, tmp_path / "b"))
    with pytest.raises(InterruptError):
        train(training_of(run, epochs=3), run, after_epoch=stop)
    resumed = train(training_of(run, epochs=3), run)
    assert history(resumed) == history(whole)
    first, second = (each.directory / "model/model.safetensors" for each in (whole, resumed))
    assert first.read_bytes() == second.read_bytes()


def test_a_model_directory_says_how_images_are_made_ready(tmp_path, expected):
    run = Run(recipe_of(STREAMED), tmp_path, workers=1)
    found = train_all([training_of(run, epochs=1)], run, "streamed")[0]
    own, built_in = (
        read_json(each.directory / "model/config.json", "model")["input"]
        for each in (found, expected[0])
    )
    assert built_in.keys() == {"shape", "mean", "std", "scale"}
    assert own == built_in | {"resize": "crop", "crop": 1.0, "interpolation": "bilinear"}


def test_data_from_python_is_what_a_recipe_names(tmp_path):
    """Probe, split and comparison: the same numbers."""
    short = {"epochs": 1, "batch_size": 32, "lr": 0.05}
    sections = {"compare": {"seeds": 1, "controls": []}, "train": short}
    recipe = recipe_of(STREAMED, **sections)
    rs.run(recipe, tmp_path / "named")
    raw = recipe.model_dump(mode="json", exclude={"data"})
    rs.run(raw, tmp_path / "given", data=digits(128))
    for name in ("split.json", "comparison.json"):
        one, other = (tmp_path / each / name for each in ("named", "given"))
        assert strip(read_json(one, name)) == strip(read_json(other, name))


def strip(value):
    """Leave out what depends on where and when."""
    if isinstance(value, dict):
        varying = {
            "seconds",
            "directory",
            "provenance",
            "recipe",
            "identity",
            "digest",
            "trainings",
        }
        return {key: strip(each) for key, each in value.items() if key not in varying}
    return list(map(strip, value)) if isinstance(value, list) else value


def test_given_data_travels_to_training_processes(tmp_path, expected):
    data = settle(digits(128), travels=True)
    run = Run(recipe_of({"name": "given"}), tmp_path, workers=2, data=data)
    found = train_all([training_of(run, seed) for seed in range(2)], run, "given")
    assert list(map(history, found)) == list(map(history, expected))


def local_data():
    class Local:
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return torch.zeros(3, 8, 8, dtype=torch.uint8), {}

    return rs.TaskData(of_tensors().tasks, dict.fromkeys(of_tensors().parts, Local()))


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        (local_data(), {"workers": 2}, DataError, "must be picklable .*Local.* name a factory"),
        ([1, 2], {}, DataError, "`data` must be a recon_search.TaskData, got list"),
        (of_tensors(), {"canvas": 12}, RecipeError, "`data.canvas` is of no use to 'given' data"),
    ],
)
def test_data_that_is_of_no_use_is_refused_in_one_line(tmp_path, data, options, error, message):
    workers = options.pop("workers", 1)
    with pytest.raises(error, match=message):
        rs.probe(recipe_of({"name": "given", **options}), tmp_path, data=data, workers=workers)


def test_given_data_is_known_by_its_content_or_its_fingerprint(tmp_path):
    """One other byte, label, order or task is other data; the same again is the same."""

    def identity(data):
        run = Run(recipe_of({"name": "given"}), tmp_path, data=settle(data, travels=False))
        return training_of(run).identity(run)

    base, again = of_tensors(), of_tensors()
    assert identity(base) == identity(again)
    found = {identity(base)}
    other = of_tensors()
    other.parts["test"].samples[3][0][0, 0, 0] += 1
    found.add(identity(other))
    other = of_tensors()
    other.parts["train"].samples[3][1]["a"] = None
    found.add(identity(other))
    other = of_tensors()
    other.parts["train"].samples.reverse()
    found.add(identity(other))
    found.add(identity(of_tensors(fingerprint="v1")))
    found.add(identity(of_tensors(fingerprint="v2")))
    assert len(found) == 6
    other = of_tensors(fingerprint="v1", missing=3)
    assert identity(other) == identity(of_tensors(fingerprint="v1")), "what it says is believed"


@pytest.mark.parametrize("is_moved", [False, True], ids=["edited", "another folder"])
def test_data_that_have_changed_are_read_anew_in_the_same_process(tmp_path, monkeypatch, is_moved):
    """As in a notebook: the recipe is the same, what it names is not."""
    recipe = parse_recipe(
        {
            **tomllib.loads(TINY),
            "data": {"name": "table", "root": "p", "file": "labels.csv", "image": "file"},
            "tasks": {"species": {"kind": "classes"}, "healthy": {"kind": "binary"}},
        }
    )
    rows = photo_rows(40)
    write_photos(tmp_path / "p", rows)
    monkeypatch.chdir(tmp_path)
    first = Run(recipe, tmp_path)
    assert first.schema.tasks[0].class_names == ("beech", "oak")
    folder = tmp_path / "other" if is_moved else tmp_path
    write_photos(folder / "p", [{**row, "species": row["species"] and "fir"[:1 + i % 3]}
                                for i, row in enumerate(rows)])  # fmt: skip
    monkeypatch.chdir(folder)
    assert Run(recipe, tmp_path).schema.tasks[0].class_names == ("f", "fi", "fir")
    assert first.with_recipe(recipe).schema is first.schema
