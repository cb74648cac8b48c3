"""What an environment lacks is found, with what mends it."""

import importlib.metadata
import json
import shutil
import types

import pytest
import torch

from recon_search import artefact
from recon_search.errors import FileError
from recon_search.stages import checkup
from recon_search.stages.checkup import check_up
from tests.command import call


def found(tmp_path, **options):
    return {each.name: each for each in check_up(tmp_path / "not/there", **options)}


def test_here_everything_essential_is_well_and_nothing_is_left_behind(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/image.png").touch()
    findings = found(tmp_path, data_roots=[tmp_path / "data"])
    assert [name for name, each in findings.items() if each.state == "fault"] == []
    assert f"writing in {tmp_path}" in findings
    assert findings[f"data root {tmp_path / 'data'}"].found == "1 files and folders"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert all(each.mend for each in findings.values() if each.state != "ok")


def test_what_is_essential_and_fails_is_a_fault_and_the_command_ends_with_1(tmp_path, monkeypatch):
    version = importlib.metadata.version

    def old(name):
        if name == "networkx":
            raise importlib.metadata.PackageNotFoundError
        return "0.1" if name == "timm" else version(name)

    def full(path, text):
        raise FileError("The disk says no.")

    usage = types.SimpleNamespace(free=10**6)
    monkeypatch.setattr(importlib.metadata, "version", old)
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: ["timm>=1.0", "networkx>=3"])
    monkeypatch.setattr(artefact, "write_text", full)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    done = call("doctor", "--json", "--data-root", "nowhere", cwd=tmp_path)
    assert done.code == 1
    checks = json.loads(done.output)["checks"]
    faults = {each["name"]: each for each in checks if each["state"] == "fault"}
    assert faults["timm"]["mend"] == "pip install 'timm>=1.0'"
    assert faults["networkx"]["found"] == "missing"
    names = ("disk of", "writing in", "data root nowhere")
    assert all(any(name.startswith(text) for name in faults) for text in names)
    shown = call("doctor", cwd=tmp_path)
    assert shown.code == 1
    assert "4 faults: mend these first." in shown.output
    assert "FAULT" in shown.output


def test_a_torch_that_does_not_work_is_a_fault(monkeypatch):
    monkeypatch.setattr(torch.nn.functional, "conv2d", lambda image, weight: weight)
    finding = checkup._arithmetic(torch.device("cpu"))
    assert finding.state == "fault"
    assert "648" in finding.found


@pytest.mark.parametrize(("cuda", "word"), [(None, "built without CUDA"), ("12.8", "cannot use")])
def test_a_card_that_torch_does_not_see_is_noted(monkeypatch, cuda, word):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(torch.version, "cuda", cuda)
    (finding,) = checkup._cuda()
    assert finding.state == "note"
    assert word in finding.found
    assert finding.mend


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_card_is_tried_and_its_memory_told():
    (finding, *_) = checkup._cuda()
    assert finding.state in ("ok", "note")
    assert " GB free" in finding.found
