"""The run folder: who may write into it, and with what recipe it goes on."""

from __future__ import annotations

import os
from pathlib import Path

from recon_search import artefact, identity
from recon_search.errors import ArtefactError, RecipeError
from recon_search.recipe import Recipe, parse_recipe
from recon_search.records import fit

COMPARED = ("split.json", "comparison.json")
"""What a run leaves in its folder once it has probed."""

SEARCHED = ("search.db", "search.json")
"""What a search leaves in its folder, the former where its database is a file."""

FOREIGN = ("model", "export", "report.html")
"""What is somebody else's where no run was begun, and would be replaced."""

FORMAT = "recon-search/identity/1"
RECIPE, IDENTITY, ORIGIN = "recipe.json", "identity.json", "origin.json"
"""The resolved recipe, the identity of what was begun with it, and by what command and where."""

EVENTS = "events.jsonl"
"""What was heard of the work so far."""


def open_folder(recipe: Recipe, out: Path, *, resume: bool, is_search: bool = False) -> None:
    """Make the run folder, or go on with one that the same recipe began.

    A folder in which nothing was computed yet is as good as new. One that holds a probe may become
    a run's or a search's.

    Raises:
        RecipeError: there is a run of another recipe, or one to be resumed explicitly, or a search
            where a run is asked for, or a run where a search is: each would report on the other; or
            there is something that no run has written and this one would replace.
    """
    found = None
    for kind, names in (("run", COMPARED), ("search", SEARCHED)):  # a search compares, too
        if any((out / name).exists() for name in names):
            found = kind
    wanted = "search" if is_search else "run"
    if found not in (None, wanted):
        raise RecipeError(
            f"--out must name a folder of its own for a {wanted}, found a {found} in {out}. Choose "
            "another --out. A search takes --scores from anywhere."
        )
    if not (out / RECIPE).is_file():
        for name in FOREIGN:
            if (out / name).exists():
                raise RecipeError(
                    f"--out must not hold what a run would replace, found {name} in {out} and no "
                    f"{RECIPE} of a run. Choose another --out, or move it away."
                )
    ours = identity.of_run(recipe)
    if _is_begun(out):
        if not resume:
            raise RecipeError(
                f"--out must name a new folder, found a run in {out}. Pass --resume to go on with "
                "it, or choose another --out."
            )
        theirs = _begun_with(out)
        if changed := [name for name, digest in ours.items() if theirs.get(name) != digest]:
            raise RecipeError(
                f"A run goes on with the recipe it began with, found another in {out / RECIPE} "
                f"({', '.join(f'[{name}]' for name in changed)} differ). Choose another --out."
            )
    artefact.write_json(out / RECIPE, recipe.model_dump(mode="json"))
    artefact.write_json(out / IDENTITY, {"format": FORMAT, **ours})


def read_recipe(path: Path) -> Recipe:
    """Read a resolved recipe that a run folder holds.

    Raises:
        ArtefactError: it is missing, damaged, or no recipe.
    """
    try:
        return parse_recipe(artefact.read_object(path, "recipe", by_hand=True), str(path))
    except RecipeError as error:
        raise ArtefactError(f"{error} It was written by another version.") from None


def _is_begun(out: Path) -> bool:
    """Whether anything was computed in a folder that a run has opened."""
    names = {file.name for file in out.iterdir()} if (out / RECIPE).is_file() else set()
    return any(not name.startswith(".") for name in names - {RECIPE, IDENTITY, ORIGIN, EVENTS})


def _begun_with(out: Path) -> dict[str, str]:
    """Identity of what was begun in a folder; earlier versions left the recipe alone."""
    if os.path.lexists(out / IDENTITY):
        found = artefact.read_object(out / IDENTITY, "run's identity", FORMAT, None)
        found.pop("format", None)
        return fit(
            dict[str, str], found, out / IDENTITY, "The identity of a run", "Choose another --out."
        )
    return dict(identity.of_run(read_recipe(out / RECIPE)))
