"""CIFAR-100 as twenty tasks: labels by rank, the cut, and faults named by file and row."""

import numpy as np
import pytest
import torch

from recon_search.data.cifar100 import CLASSES, ROW, SUPERCLASS_OF, SUPERCLASSES
from recon_search.data.registry import find_source
from recon_search.errors import DataError
from recon_search.recipe import DataConfig
from tests.data.benchmarks import cifar_rows, write_cifar100

PUBLISHED = (
    "4 1 14 8 0 6 7 7 18 3 3 14 9 18 7 11 3 9 7 11 6 11 5 10 7 6 13 15 3 15 0 11 1 10 12 14 16 9 "
    "11 5 5 19 8 8 15 13 14 17 18 10 16 4 17 4 2 0 17 4 18 17 10 3 2 12 12 16 12 1 9 19 2 10 0 1 "
    "16 12 9 13 15 13 16 19 2 4 6 19 5 5 8 19 18 1 2 15 6 0 17 8 14 13"
)
"""The superclass of every class, as the files of the set have them."""


def source(root, **settings):
    return find_source(DataConfig(name="cifar100-superclasses", root=str(root), **settings))


def test_the_superclass_of_every_class_is_that_of_the_files():
    assert list(SUPERCLASS_OF) == [int(number) for number in PUBLISHED.split()]
    assert len(set(CLASSES)) == 100
    assert {SUPERCLASS_OF.count(number) for number in range(20)} == {5}


@pytest.mark.parametrize("inner", ["", "cifar-100-binary"])
def test_every_image_is_its_superclass_s_with_the_rank_of_its_class(inner, tmp_path):
    _, test = write_cifar100(tmp_path / inner)
    found = source(tmp_path)
    assert found.schema.names == SUPERCLASSES
    assert found.schema.shape == (3, 32, 32)
    assert found.schema.apart
    feed = found.open(torch.device("cpu"))
    (step,) = feed.steps("test", 100)
    for number, batch in enumerate(step):
        rows = test[test[:, 0] == number]
        assert torch.equal(batch.inputs.flatten(1), torch.from_numpy(rows[:, 2:].copy()))
        ranks = np.searchsorted(np.unique(rows[:, 1]), rows[:, 1])
        assert batch.targets[SUPERCLASSES[number]].tolist() == ranks.tolist() == [0, 1, 2, 3, 4]
    assert found.schema.tasks[0].class_names == ("beaver", "dolphin", "otter", "seal", "whale")


def test_a_share_of_each_class_validates(tmp_path):
    write_cifar100(tmp_path)
    feed = source(tmp_path).open(torch.device("cpu"))
    assert feed.lengths("train") == (45,) * 20
    (step,) = feed.steps("validation", 100)
    assert [own.tolist() for batch in step for own in batch.targets.values()] == [
        [0, 1, 2, 3, 4]
    ] * 20
    other = source(tmp_path, ratio=(0.5, 0.3, 0.2)).open(torch.device("cpu"))
    assert sum(other.lengths("validation")) == 375


def test_images_are_shifted_and_cut_within_a_black_border(tmp_path):
    write_cifar100(tmp_path)
    plain, padded = (
        source(tmp_path, augment=augment).open(torch.device("cpu")) for augment in ({}, {"pad": 4})
    )
    (step, *_), (moved, *_) = (list(f.steps("train", 4, (0, 0))) for f in (plain, padded))
    places = set()
    for before, after in zip(step[0].inputs, moved[0].inputs, strict=True):
        border = torch.zeros(3, 40, 40, dtype=torch.uint8)
        border[:, 4:36, 4:36] = before
        fits = [(y, x) for y in range(9) for x in range(9)
                if torch.equal(border[:, y : y + 32, x : x + 32], after)]  # fmt: skip
        assert len(fits) == 1
        places.update(fits)
    assert len(places) > 1


def test_a_file_that_is_missing_or_cut_short_is_named(tmp_path):
    with pytest.raises(DataError, match=r"the file train.bin .* nor at .*people get it from https"):
        source(tmp_path)
    write_cifar100(tmp_path)
    (tmp_path / "test.bin").write_bytes(bytes(ROW + 1))
    with pytest.raises(
        DataError, match=r"test.bin must hold whole rows of 3074 bytes, found 3,075"
    ):
        source(tmp_path)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (1, 100, r"^test.bin row 3: a class must be from 0 to 99, found 100"),
        (0, 9, r"^test.bin row 3: class 2 \(baby\) must be of superclass 14, found 9"),
    ],
)
def test_a_wrong_number_is_named_by_file_and_row(column, value, message, tmp_path):
    write_cifar100(tmp_path)
    rows = cifar_rows(1)
    rows[2, column] = value
    (tmp_path / "test.bin").write_bytes(rows.tobytes())
    with pytest.raises(DataError, match=message):
        source(tmp_path)
