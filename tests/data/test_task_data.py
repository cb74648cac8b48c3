"""What readers and factories return is checked, each fault by one line that names its sample."""

import numpy as np
import pytest
import torch
from PIL import Image

from recon_search.data.images import Images
from recon_search.data.task_data import TaskData
from recon_search.errors import DataError, RecipeError
from recon_search.tasks.binary import Binary
from recon_search.tasks.classes import IGNORED, Classes
from recon_search.tasks.labels import Labels
from recon_search.tasks.values import Values
from tests.data.samples import TASKS, Listed, data_config, numbers, of_tensors, open_feed

IMAGE = numbers(3, 6, 8)
GREY = Image.fromarray(numbers(6, 8).numpy())
ALL = (
    Classes("class", 3),
    Binary("binary"),
    Labels("labels", 2),
    Values("value"),
    Values("values", 2),
)


class Blind(Listed):
    """Targets cannot be read without images."""

    targets = property()


def of(*samples, tasks=TASKS, kind=Listed, **options):
    """Data whose parts are all the same samples."""
    parts = dict.fromkeys(("train", "validation", "test"), kind(samples))
    return TaskData(tasks, parts, **options)


def read(data, **settings):
    """Read every sample, and the schema first, as a run does."""
    feed = open_feed(data, cache="none", **settings)
    return [batch for (batch,) in feed.steps("train", 16)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": ()}, r"must be recon_search.Task objects, got none"),
        ({"tasks": ("a",)}, r"must be recon_search.Task objects, got str"),
        ({"tasks": (Classes("a", 2), Classes("a", 3))}, "different names, got 'a' twice"),
        ({"parts": {}}, "parts train, validation, test, got no 'train'"),
        ({"without": "train"}, "got no 'train'"),
        ({"without": "validation"}, "got no 'validation'"),
        ({"without": "test"}, "got no 'test'"),
        ({"with": {"tests": Listed([1])}}, "got 'tests'.* Did you mean 'test'"),
        ({"with": {"test": Listed([])}}, "The test part must not be empty"),
        ({"with": {"test": iter([])}}, "The test part must have a length"),
        ({"with": {"train": 3}}, "The train part must have a length .* got int"),
    ],
)
def test_tasks_and_parts_are_checked_before_anything_is_read(change, message):
    whole = of_tensors()
    parts = {**change.get("parts", whole.parts), **change.get("with", {})}
    parts = {name: part for name, part in parts.items() if name != change.get("without")}
    with pytest.raises(DataError, match=message):
        Images(TaskData(change.get("tasks", TASKS), parts), data_config())


BAD_SAMPLES = {
    "no pair": (IMAGE, "must be a pair .* got Tensor"),
    "a triple": ((IMAGE, {}, 3), "must be a pair .* got tuple of 3"),
    "no image": (("photo.jpg", {}), "must be a PIL image or a tensor of uint8, .* got str"),
    "an array": ((np.zeros((3, 6, 8)), {}), "must be a PIL image or a tensor .* got float64"),
    "another dtype": ((IMAGE.long(), {}), "must be a PIL image or a tensor .* got torch.int64"),
    "numbers": ((IMAGE.float(), {}), "a tensor of uint8, as the first one is, got torch.float32"),
    "other channels": ((IMAGE[:1], {}), r"must have the shape \(3, H, W\), got \(1, 6, 8\)"),
    "no channels": ((IMAGE[0], {}), r"must have the shape \(3, H, W\), got \(6, 8\)"),
    "another size": ((IMAGE[:, :5], {}), r"\(3, 6, 8\) of the first one, got \(3, 5, 8\)"),
    "no mapping": ((IMAGE, [1, 2]), "must be a mapping by task name, got list"),
    "an unknown task": (
        (IMAGE, {"aa": 1}),
        "got one for 'aa'. Did you mean 'a'",
    ),
    "a fraction": ((IMAGE, {"a": 1.5}), "'a' must be of whole numbers, got 1.5"),
    "several": ((IMAGE, {"a": [1, 2]}), r"'a' must be a single number, got shape \(2,\)"),
    "text": ((IMAGE, {"a": "cat"}), "'a' must be a number or a tensor, got str"),
    "a class too many": ((IMAGE, {"a": 3}), "'a' must be from 0 to 2, got 3"),
    "a negative class": ((IMAGE, {"b": -1}), "'b' must be from 0 to 3, got -1"),
}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("name", BAD_SAMPLES)
def test_a_sample_that_is_none_is_named(name, workers):
    bad, message = BAD_SAMPLES[name]
    samples = *[(IMAGE, {"a": 0})] * 3, bad
    data = of(*samples, kind=Blind, describe=lambda part, row: f"list.csv, row {row + 2}")
    with pytest.raises(DataError, match=rf"\Alist.csv, row 5: .*{message}.*\Z"):
        read(data, workers=workers)


@pytest.mark.parametrize("name", ["an unknown task", "a fraction", "a class too many"])
def test_targets_that_can_be_read_alone_are_checked_before_training(name):
    bad, message = BAD_SAMPLES[name]
    with pytest.raises(DataError, match=f"sample 1 of the train part: .*{message}"):
        _ = Images(of((IMAGE, {}), bad), data_config()).schema


@pytest.mark.parametrize(
    ("task", "value", "message"),
    [
        ("binary", 2, "from 0 to 1, got 2"),
        ("labels", [0, 2], r"from 0 to 1, got \[0, 2\]"),
        ("labels", [1], r"of shape \(2,\), got shape \(1,\)"),
        ("value", float("inf"), "finite, or nan for no label, got inf"),
        ("values", 1.0, r"of shape \(2,\), got shape \(\)"),
    ],
)
def test_every_kind_says_what_a_target_must_be(task, value, message):
    with pytest.raises(DataError, match=f"'{task}' must be {message}"):
        read(of((IMAGE, {}), (IMAGE, {task: value}), tasks=ALL))


def test_a_missing_target_is_no_label_of_any_kind():
    """None, a missing key and what a kind itself takes for no label are one."""
    known = {"class": 2, "binary": True, "labels": [0, 1], "value": 1.5, "values": [1, 2]}
    missing = {task.name: task.target(None) for task in ALL}
    none = dict.fromkeys(known)
    (batch,) = read(of((IMAGE, known), (IMAGE, {}), (IMAGE, none), (IMAGE, missing), tasks=ALL))
    for task in ALL:
        target = batch.targets[task.name]
        expected = torch.as_tensor(known[task.name]).reshape(target[0].shape)
        assert torch.equal(target[0], expected.to(target.dtype))
        assert int(task.n_labels(target)) == expected.numel()
        assert target.dtype == missing[task.name].dtype


def test_a_task_is_complete_if_no_label_of_any_part_is_missing():
    known = {"class": 2, "binary": 1, "labels": [0, 1], "value": 1.5, "values": [1, 2]}
    partly = {"class": IGNORED, "labels": [0, IGNORED], "values": [1, float("nan")]}
    whole, some = Listed([(IMAGE, known)] * 2), Listed([(IMAGE, known), (IMAGE, known | partly)])
    for rest, expected in ((whole, set(known)), (some, {"binary", "value"})):
        data = TaskData(ALL, {"train": whole, "validation": whole, "test": rest})
        assert Images(data, data_config()).schema.complete == expected
    blind = TaskData(ALL, {"train": whole, "validation": whole, "test": Blind(whole.samples)})
    assert not Images(blind, data_config()).schema.complete, "nobody looked at every label"


def test_image_files_need_a_size():
    with pytest.raises(DataError, match=r"`data.image_size` must say .* data.image_size = \[224"):
        Images(of((GREY, {})), data_config())
    assert Images(of((GREY, {}), image_size=(4, 5)), data_config()).schema.shape == (3, 4, 5)
    config = data_config(image_size=[7, 9], channels=1)
    assert Images(of((GREY, {}), image_size=(4, 5)), config).schema.shape == (1, 7, 9)


def test_tensors_bring_their_size_and_may_be_resized():
    assert Images(of((IMAGE, {})), data_config()).schema.shape == (3, 6, 8)
    other = of((IMAGE, {}), (IMAGE[:, :4], {}), (GREY, {}))
    (batch,) = read(other, image_size=[3, 3])
    assert batch.inputs.shape == (3, 3, 3, 3)


@pytest.mark.parametrize("augment", [{"color_jitter": 0.1}, {"auto_augment": "rand-m9"}])
def test_numbers_have_no_colours_to_change(augment):
    with pytest.raises(RecipeError, match="levels from 0 to 255 only, got tensors of float32"):
        Images(of((IMAGE.float(), {})), data_config(augment=augment))


def test_a_first_sample_that_fails_is_named():
    class Broken(Listed):
        def __getitem__(self, index):
            raise FileNotFoundError(2, "No such file", "a.jpg")

    message = r"\Asample 0 of the train part must be readable, got FileNotFound.*\Z"
    with pytest.raises(DataError, match=message):
        Images(of(1, kind=Broken), data_config())
