"""Packed sums are the sums, in few bytes; what is packed otherwise is refused, in little memory."""

import re
import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_search import artefact
from recon_search.conflict.kept import FORMAT, PLAIN, UNSEALED
from recon_search.conflict.packing import pack, unpack
from recon_search.conflict.rules import RULES, Reading
from recon_search.conflict.scores import ConflictScores
from recon_search.conflict.sums import MANY_PAIRS, N_HALVES, empty_sums
from recon_search.errors import ArtefactError
from tests.conflict.test_sum_laws import LAYERS, measured
from tests.memory import PeakMemory


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.integers(0, 25), st.sampled_from([1, 2, 3, 9]), st.booleans())
def test_what_is_packed_is_unpacked(seed, n_steps, n_tasks, is_joined):
    scores = measured(seed, n_steps, n_tasks=n_tasks)
    like = empty_sums(len(scores.layers), len(scores.pairs))
    if is_joined:
        scores += measured(seed + 1, 5, n_tasks=n_tasks)
    packed = pack(scores.tensors)
    assert packed.keys() == scores.tensors.keys()
    found = unpack(packed, like, "here")
    for name, tensor in scores.tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    again = unpack(found, like, "here")
    assert all(again[name] is tensor for name, tensor in found.items()), "not packed: as they are"


def test_counts_of_windows_that_were_pooled_are_unpacked():
    sums = dict(measured(0).tensors)
    sums["window_counts"] = sums["window_counts"].sum(-2, keepdim=True, dtype=torch.int32)
    found = unpack(pack(sums), empty_sums(2, 3), "here")
    assert torch.equal(found["window_counts"], sums["window_counts"])


def repacked(change):
    return lambda packed: torch.frombuffer(
        bytearray(
            bytes(packed[:1].tolist())
            + zlib.compress(change(zlib.decompress(packed.numpy()[1:].data)))
        ),
        dtype=torch.uint8,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda packed: packed[:-1], "do not end there"),
        (lambda packed: packed[:0], "no byte says which"),
        (lambda packed: torch.cat([packed[:1], packed[1:].flip(0)]), "Error -3"),
        (lambda packed: packed[1:], "no byte says which|Error -3"),
        (lambda packed: torch.cat([packed[:1] + 2, packed[1:]]), "hold"),
        (lambda packed: torch.cat([packed, packed]), "do not end there"),
        (repacked(lambda raw: raw[:-8]), r"hold [\d,]+ bytes, not [\d,]+"),
        (repacked(lambda raw: raw + b"0"), r"hold [\d,]+ bytes, not [\d,]+"),
        (repacked(lambda raw: bytes(2**27)), "hold more than"),
        (lambda packed: packed[None], "of shape"),
        (lambda packed: packed.to(torch.int8), "of shape"),
    ],
)
@pytest.mark.parametrize("name", ["counts", "window_counts", "inner"])
def test_bytes_of_another_make_are_one_line(tmp_path, name, change, message):
    scores = measured(0)
    packed = scores.state()
    packed[name] = change(packed[name])
    metadata = {"format": FORMAT, "layers": scores.layers, "tasks": scores.tasks}
    artefact.write_tensors(tmp_path / "s", packed, metadata)
    with pytest.raises(ArtefactError, match=message) as caught:
        ConflictScores.load(tmp_path / "s")
    assert re.search(rf"s must hold '{name}'.*Probe again\.$", str(caught.value))


def test_no_more_memory_is_taken_than_the_bytes_are_worth():
    packed = measured(0).state()
    packed["window_steps"] = torch.zeros(10**6, 10, N_HALVES, dtype=torch.int32)
    with (
        PeakMemory() as memory,
        pytest.raises(ArtefactError, match=r"bytes cannot hold [\d,]{9,} numbers"),
    ):
        unpack(packed, empty_sums(2, 3), "here")
    assert memory.peak < 2**20


def exact_sums(n_tasks, gramians):
    """Sums of all pairs by layer, as they are without rounding."""
    first, second = torch.triu_indices(n_tasks, n_tasks, 1)
    squares = gramians.diagonal(dim1=2, dim2=3)
    whole = squares.sum(1)
    scale = (whole[:, first] * whole[:, second]).sqrt()[:, None]
    inner = gramians[..., first, second]
    shorter = torch.minimum(squares[..., first], squares[..., second]).sqrt()
    cosines = inner / (squares[..., first] * squares[..., second]).sqrt()
    return {
        "projection": cosines.neg().relu() * shorter / scale.sqrt(),
        "mass": inner.neg().relu() / scale,
        "gain": -2 * inner / scale,
    }


def test_sums_of_many_pairs_are_rounded_to_what_no_rule_tells():
    n_tasks, n_steps = 12, 60
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(n_steps, 2, n_tasks, 8, generator=generator, dtype=torch.float64)
    gramians = rows @ rows.mT
    scores = ConflictScores(LAYERS, [f"t{task}" for task in range(n_tasks)])
    assert len(scores.pairs) > MANY_PAIRS
    for step, gramian in enumerate(gramians):
        scores.update(gramian, at=step / n_steps)
    for rule, terms in exact_sums(n_tasks, gramians).items():
        found = RULES[rule].evaluate(scores, Reading())
        size = terms.abs().sum((0, 2)) / n_steps
        assert ((found - terms.sum((0, 2)) / n_steps).abs() / size).max() < 2**-23
    bits = scores.tensors["mass"].view(torch.int64)
    assert not (bits & 2**34 - 1).any(), "the low bits are zeros"


@pytest.mark.parametrize("kind", [PLAIN, UNSEALED])
def test_files_that_are_not_packed_are_read(tmp_path, kind):
    scores = measured(0)
    metadata = {"format": kind, "layers": scores.layers, "tasks": scores.tasks}
    artefact.write_tensors(tmp_path / "s", scores.tensors, metadata)
    assert ConflictScores.load(tmp_path / "s").digest == scores.digest


def test_files_of_many_tasks_are_small(tmp_path):
    n_tasks, layers = 20, ["one", "two", "three"]
    scores = ConflictScores(layers, [f"t{task}" for task in range(n_tasks)])
    generator = torch.Generator().manual_seed(0)
    for step in range(100):
        rows = torch.randn(3, n_tasks, 64, generator=generator)
        scores.update(rows @ rows.mT, at=step / 100)
    scores.save(tmp_path / "s")
    raw = sum(tensor.nbytes for tensor in scores.tensors.values())
    assert (tmp_path / "s").stat().st_size < raw / 5
    assert ConflictScores.load(tmp_path / "s").digest == scores.digest
    assert ConflictScores.load(tmp_path / "s").state().keys() == scores.tensors.keys()
