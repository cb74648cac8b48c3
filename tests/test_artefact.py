"""Files carry a digest of their content: whole ones are read, changed ones are refused."""

import json
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from recon_search import artefact
from recon_search.errors import ArtefactError

CONTENT = {"format": "x/2", "pairs": (1, 2.5), "none": None, "nan": float("nan")}
TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.zeros(0), "c": torch.tensor([True])}


@pytest.fixture
def text(tmp_path):
    artefact.write_json(tmp_path / "a.json", CONTENT)
    return tmp_path / "a.json"


@pytest.fixture
def tensors(tmp_path):
    artefact.write_tensors(tmp_path / "a.safetensors", TENSORS, {"format": "x/2", "more": [1]})
    return tmp_path / "a.safetensors"


def read(path, **options):
    return artefact.read_object(path, "thing", "x/2", "x/1", finite=False, **options)


def test_an_object_is_read_as_it_was_written(text):
    found = read(text)
    assert repr(found) == repr({**CONTENT, "pairs": [1, 2.5]})


def test_another_value_is_refused_and_another_layout_is_none(text):
    value = json.loads(text.read_text())
    text.write_text(json.dumps(dict(reversed(value.items()))))
    assert read(text)["pairs"] == [1, 2.5]
    text.write_text(json.dumps(value | {"pairs": [1, 2]}))
    with pytest.raises(ArtefactError, match=r"a\.json must be as it was written.*it was changed"):
        read(text)
    with pytest.raises(ArtefactError, match='yourself, delete the line "digest"'):
        read(text, by_hand=True)


def test_the_present_format_needs_a_digest_and_earlier_ones_do_not(text):
    value = json.loads(text.read_text())
    del value["digest"]
    text.write_text(json.dumps(value))
    with pytest.raises(ArtefactError, match="it has no digest"):
        read(text)
    assert read(text, by_hand=True)["pairs"] == [1, 2.5]
    text.write_text(json.dumps(value | {"format": "x/1"}))
    assert read(text)["pairs"] == [1, 2.5]


def test_tensors_are_read_as_they_were_written_by_anybody(tensors):
    found, metadata = artefact.read_tensors(tensors, "thing", "x/2")
    assert metadata == {"format": "x/2", "more": [1]}
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], own) for name, own in TENSORS.items())
    with safe_open(tensors, framework="pt") as file:
        assert all(torch.equal(file.get_tensor(name), own) for name, own in TENSORS.items())


def test_no_bit_of_a_tensor_file_can_be_another(tensors):
    """Within the header a blank may be another blank; no value is."""
    content = tensors.read_bytes()
    whole = artefact.read_tensors(tensors, "thing", "x/2")
    n_refused = 0
    for place in range(len(content)):
        spoilt = bytearray(content)
        spoilt[place] ^= 1 << place % 8
        tensors.write_bytes(spoilt)
        try:
            found = artefact.read_tensors(tensors, "thing", "x/2")
        except ArtefactError as error:
            n_refused += 1
            text = str(error)
        else:
            assert str(found) == str(whole)
            continue
        assert re.match(r"[^\n]*a\.safetensors[^\n]*\.$", text), text
    assert n_refused > 0.9 * len(content)


def test_a_tensor_file_without_a_digest_is_of_an_earlier_format(tmp_path):
    for version, is_read in ((1, True), (2, False)):
        save_file(TENSORS, tmp_path / "t", {"format": json.dumps(f"x/{version}")})
        if is_read:
            assert artefact.read_tensors(tmp_path / "t", "thing", "x/2", "x/1")
        else:
            with pytest.raises(ArtefactError, match="it has no digest"):
                artefact.read_tensors(tmp_path / "t", "thing", "x/2", "x/1")


@pytest.mark.parametrize("size", [2**63, 10**9, 200])
def test_a_header_that_is_too_large_takes_no_memory(tmp_path, size):
    (tmp_path / "t").write_bytes(size.to_bytes(8, "little") + b"{}")
    with pytest.raises(ArtefactError, match="undamaged safetensors file"):
        artefact.read_tensors(tmp_path / "t", "thing", "x/2")
