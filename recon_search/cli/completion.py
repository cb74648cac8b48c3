"""What a shell completes. It waits for every key press, so nothing here imports torch."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable
from typing import Any

from click.shell_completion import CompletionItem

METHODS = (
    "joint", "uw", "imtl-l", "dwa", "famo", "gls", "stch", "rlw", "constant", "mean", "random",
    "pcgrad", "gradvac", "mgda", "cagrad", "nash-mtl", "imtl-g", "aligned-mtl", "fairgrad",
    "upgrad", "dualproj", "pcd", "cr-mogm", "krum", "graddrop", "config", "excess-mtl",
    "trimmed-mean", "rotograd", "rotate-only",
)  # fmt: skip
RULES = (
    "count", "projection", "mass", "gain", "least", "first-k", "last-k", "random",
    "smallest-first", "norm-only",
)  # fmt: skip
DATA = (
    "multi-digits", "scenes", "multi-mnist", "multi-fashion", "multi-fashion-mnist", "table",
    "image-folder", "parquet", "arrays", "nyuv2", "cityscapes", "celeba", "chestxray14",
    "pascal-context", "office-home", "office-31", "cifar100-superclasses", "factory",
)  # fmt: skip
WRITERS = ("tensorboard", "trackio", "wandb")
"""Names as the registries have them, whose imports take seconds."""

OF_KEYS = {
    "train.method": METHODS,
    "probe.method": METHODS,
    "split.rule": RULES,
    "data.name": DATA,
}
"""Names that keys of a recipe take; what their types list is read off the schema."""


def complete_recipe(_: Any, __: Any, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a recipe that comes with the package where no file begins so."""
    from recon_search.recipe.shipped import shipped_recipes

    return _names_or_file(shipped_recipes(), incomplete)


def complete_ranking(_: Any, __: Any, incomplete: str) -> list[CompletionItem]:
    """Complete a published order of layers, or else a file."""
    from recon_search.recipe.shipped import PUBLISHED, published_orders

    return _names_or_file([f"{PUBLISHED}{name}" for name in published_orders()], incomplete)


def complete_method(_: Any, __: Any, incomplete: str) -> list[str]:
    """Complete the name of a gradient method."""
    return _begin(METHODS, incomplete)


def complete_rule(_: Any, __: Any, incomplete: str) -> list[str]:
    """Complete the name of a rule that ranks layers."""
    return _begin(RULES, incomplete)


def complete_writer(_: Any, __: Any, incomplete: str) -> list[str]:
    """Complete the name of a writer of curves."""
    return _begin(WRITERS, incomplete)


def complete_section(_: Any, __: Any, incomplete: str) -> list[str]:
    """Complete a section of a recipe, or a key in it."""
    from recon_search.views.keys import key_rows

    keys = [row["key"] for row in key_rows()]
    return _begin(keys if "." in incomplete else [k for k in keys if "." not in k], incomplete)


def complete_override(_: Any, __: Any, incomplete: str) -> list[str]:
    """Complete PATH=VALUE: the path of a key, then the values that it takes by name."""
    from recon_search.views.keys import NAME, key_rows

    rows = {row["key"]: row["type"] for row in key_rows()}
    path, is_given, begun = incomplete.partition("=")
    if is_given:
        return [f"{path}={name}" for name in _begin(_values(path, rows.get(path, "")), begun)]
    tables = {key.rpartition(".")[0] for key in rows}
    known = [key for key in rows if key not in tables and NAME not in key.split(".")]
    return [f"{key}=" for key in _begin(known, path)]


def _values(path: str, kind: str) -> Iterable[str]:
    """Names that a key takes: registered ones, those its type lists, true and false."""
    if path in OF_KEYS:
        return OF_KEYS[path]
    if kind == "boolean":
        return "true", "false"
    try:
        listed = json.loads(f"[{kind}]")
    except json.JSONDecodeError:  # a type in words
        return ()
    return [each for each in listed if isinstance(each, str)]


def _begin(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _names_or_file(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    found = _begin(names, incomplete)
    if found and not glob.glob(f"{glob.escape(incomplete)}*"):
        return [CompletionItem(name) for name in found]
    return [CompletionItem(incomplete, type="file")]
