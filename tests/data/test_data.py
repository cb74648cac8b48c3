"""Composed data: pools disjoint, labels right, same seed same bytes; IDX files read or refused."""

import gzip
import struct

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from recon_search.data.compose import Pool, compose, divide
from recon_search.data.mnist import read_idx
from recon_search.data.registry import find_source
from recon_search.data.source import PARTS
from recon_search.errors import DataError
from recon_search.recipe import DataConfig
from tests.idx import write_idx_pair, write_item_set


def load(name, **settings):
    return find_source(DataConfig(name=name, **settings)).open(torch.device("cpu"))


def small_digits(seed=0):
    return load("multi-digits", train=50, validation=20, test=20, canvas=24, seed=seed)


def test_same_seed_same_bytes_other_seed_other_bytes():
    one, two, other = small_digits(), small_digits(), small_digits(seed=1)
    assert torch.equal(one.parts["train"].inputs, two.parts["train"].inputs)
    assert all(
        torch.equal(one.parts["test"].targets[t], two.parts["test"].targets[t])
        for t in one.schema.names
    )
    assert not torch.equal(one.parts["train"].inputs, other.parts["train"].inputs)


def test_pools_are_disjoint_and_complete():
    images = np.arange(100, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), dtype=np.uint8)
    pools = divide(Pool(images, np.arange(100)), (0.6, 0.2, 0.2), seed=0)
    members = [set(pool.classes.tolist()) for pool in pools]
    assert [len(pool) for pool in members] == [60, 20, 20]
    assert set.union(*members) == set(range(100))


def test_labels_and_places():
    """Items that are constant images of their own class show what stands where."""
    images = np.arange(1, 11, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), dtype=np.uint8)
    pool = Pool(images, np.arange(10))
    for seed in range(3):
        part = compose((pool, pool), 50, 6, [seed, 0], ("left", "right"))
        pixels = part.inputs[:, 0].long()
        left, right = part.targets["left"] + 1, part.targets["right"] + 1
        assert torch.equal(pixels[:, 0, 0], left)
        assert torch.equal(pixels[:, 5, 5], right)
        assert torch.equal(pixels[:, 3, 3], torch.maximum(left, right))  # the brighter one wins
        assert (pixels[:, 0, 5] == 0).all()


def test_digits_show_the_digit_they_are_labelled_with():
    """The top left corner of every pair is one of scikit-learn's digits of that class."""
    data = load("multi-digits", train=40, validation=1, test=1, canvas=12)
    part = data.parts["train"]
    bunch = load_digits()
    originals = torch.from_numpy(bunch.images * (255 / 16)).round().byte()
    for image, label in zip(part.inputs[:, 0], part.targets["left"], strict=True):
        corner = image[:4]  # the first four rows of the left digit are not overlapped
        same = (originals[:, :4] == corner[:, :8]).all((1, 2))
        assert label.item() in bunch.target[same.numpy()]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_multi_fashion_mnist_from_idx_files(tmp_path, suffix):
    for name in ("mnist", "fashion-mnist"):
        write_item_set(tmp_path / name, suffix=suffix)
    data = load("multi-fashion-mnist", root=str(tmp_path), train=60, validation=9, test=30)
    assert data.schema.shape == (1, 36, 36)
    assert data.schema.names == ("digit", "fashion")
    assert [data.lengths(part) for part in PARTS] == [(60,), (9,), (30,)]


def fingerprint(root):
    config = DataConfig(name="multi-fashion-mnist", root=str(root))
    return find_source(config).schema.fingerprint


def write_items(root, **options):
    for name in ("mnist", "fashion-mnist"):
        write_item_set(root / name, **options)
    return root


def test_a_fingerprint_is_of_what_files_hold_wherever_and_however_they_lie(tmp_path):
    first = fingerprint(write_items(tmp_path / "a"))
    assert first
    assert fingerprint(write_items(tmp_path / "b", suffix="")) == first
    assert fingerprint(write_items(tmp_path / "c", n=50)) != first


@pytest.mark.parametrize(
    "file",
    [
        "t10k-labels-idx1",
        "train-images-idx3",
    ],
)
def test_one_other_byte_in_any_file_is_another_fingerprint(tmp_path, file):
    first = fingerprint(write_items(tmp_path / "a"))
    path = write_items(tmp_path / "b") / f"fashion-mnist/{file}-ubyte.gz"
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[-1] = (raw[-1] + 1) % 9
    path.write_bytes(gzip.compress(raw))
    assert fingerprint(tmp_path / "b") != first


def test_a_missing_root_says_what_and_where(tmp_path):
    with pytest.raises(
        DataError, match=r"multi-mnist needs the IDX files of mnist, got no data root"
    ):
        load("multi-mnist")
    with pytest.raises(
        DataError, match=r"train-labels-idx1-ubyte\[.gz\], found it neither in .*mnist"
    ):
        load("multi-mnist", root=str(tmp_path))


@pytest.mark.parametrize("damage", ["short", "kind", "gzip"])
def test_damaged_idx_files(tmp_path, damage):
    write_idx_pair(tmp_path, "train", 10)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    raw = gzip.decompress(path.read_bytes())
    if damage == "short":
        path.write_bytes(gzip.compress(raw[:-5]))
    elif damage == "kind":
        path.write_bytes(gzip.compress(struct.pack(">HBB", 0, 9, 3) + raw[4:]))
    else:
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="IDX file"):
        read_idx(path)


def test_unknown_name():
    with pytest.raises(DataError, match="Did you mean 'multi-digits'"):
        load("multi-digit")
