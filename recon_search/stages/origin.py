"""Where a run comes from: the command, the versions and the machine."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from recon_search import artefact
from recon_search.records import Record, fit
from recon_search.runs.folder import ORIGIN
from recon_search.views.doctor import examine


def write_origin(
    out: Path,
    device: str,
    arguments: Sequence[str] = (),
    *,
    recipe: str = "",
    goes_on: bool = False,
) -> None:
    """Write what repeats a run and what it ran on.

    Args:
        out: the run folder.
        device: where networks are trained.
        arguments: of the command, as they were typed; none where the run was begun from Python.
        recipe: its name; none where it has none.
        goes_on: keep what stands there of a command of the same name.
    """
    words = list(arguments)
    if any("://" in word for word in words):
        from recon_search.search.urls import hide_password

        words = [hide_password(word) if "://" in word else word for word in words]
    command = shlex.join(["recon-search", *words]) if words else ""
    known = read_origin(out).get("command", "").split()
    if goes_on and known[:2] == command.split()[:2]:
        return
    found = examine()
    begun = datetime.now().astimezone().isoformat(timespec="seconds")
    values = {"command": command, "recipe": recipe, "begun": begun, "device": device}
    artefact.write_json(out / ORIGIN, {**values, "environment": found})


def read_origin(out: Path) -> dict[str, Any]:
    """Read it; {} where it was not kept yet.

    Raises:
        ArtefactError: it is damaged, or says something else.
    """
    path, what = out / ORIGIN, "file that says where a run comes from"
    if not os.path.lexists(path):
        return {}
    found = artefact.read_object(path, what)
    fit(_Origin, found, path, f"A {what}", "Delete it to do without.")
    return found


class _Environment(Record):
    """See `views.doctor.examine`."""

    version: str = Field(alias="recon-search")
    python: str
    platform: str
    cores: int | None
    devices: list[str] = Field(alias="cuda devices")
    packages: dict[str, str | None]
    optional: dict[str, str | None] = Field(alias="optional packages")


class _Origin(Record):
    """See `write_origin`."""

    command: str
    recipe: str = ""
    begun: str
    device: str
    environment: _Environment
