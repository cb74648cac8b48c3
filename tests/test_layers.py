"""Imports point one way, from what is nearest to the user to what knows least."""

import ast
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import recon_search

ROOT = Path(recon_search.__file__).parent

LAYERS = (
    "errors", "owners", "imports", "json_text", "memory", "chance", "records", "disk", "seals",
    "artefact", "recipes", "recipe", "identity", "parallel", "interruption", "tasks", "data",
    "conflict", "graph", "model", "methods", "training", "runs", "search", "stages", "views", "cli",
)  # fmt: skip
"""The lowest first; each may import what stands before it."""

WRITERS = {
    ("stages.examples", "views"),
    ("stages.judge", "views"),
    ("stages.origin", "views"),
    ("stages.report", "views"),
    ("stages.run", "views"),
}
"""Stages that write what a view draws."""


def read_imports():
    """By module the modules of the package that it imports, wherever in it."""
    found = defaultdict(set)
    paths = {_module(path): path for path in ROOT.rglob("*.py")}
    for module, path in paths.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path} imports from ."
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                continue
            for name in names:
                own = name.removeprefix("recon_search.")
                if name.startswith("recon_search.") and own in paths:
                    found[module].add(own)
    return {module: names - {module} for module, names in found.items()}


def _module(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_every_module_has_a_layer():
    tops = {path.stem for path in ROOT.glob("*.py")} | {
        path.parent.name for path in ROOT.glob("*/*.py")
    }
    assert tops - {"__init__", "__main__"} == {*LAYERS}


def test_imports_point_down():
    found = set()
    for module, names in read_imports().items():
        top = module.partition(".")[0]
        if top in ("", "__main__"):
            continue
        for name in names:
            below = name.partition(".")[0]
            if LAYERS.index(below) > LAYERS.index(top):
                found.add((module, below))
    assert found == WRITERS


def test_no_module_imports_itself_by_way_of_others():
    graph = {module: names for module, names in read_imports().items() if module}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None
