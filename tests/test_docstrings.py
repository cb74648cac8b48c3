"""Examples in docstrings do what they say."""

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

import recon_search as rs

ROOT = Path(__file__).parents[1]

MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "recon_search").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]

LONGER = {
    # A program of its own, in recipes/python.md or recipes/own_loop.py, which tests run.
    "MultiTaskModel", "compare", "load", "predict", "probe", "run", "search_splits",
    # Nothing is made or called: made by `branch`, a base of exceptions, a protocol.
    "BranchedBackbone", "ReconSearchError", "Task",
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted
    assert not found.failed, "see the output"


def test_public_names_have_examples():
    without = {name for name in rs.__all__ if ">>> " not in inspect.getdoc(getattr(rs, name))}
    assert without == LONGER
