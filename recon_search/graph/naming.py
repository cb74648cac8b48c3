"""What to call things where there is little room: blocks, stages, groups of tasks, counts."""

from __future__ import annotations

from collections.abc import Sequence

from recon_search.graph.partition import Group


def block(layer: str) -> str:
    """Name the block of a layer: "layer2.0" of "layer2.0.downsample.1", "" of "conv1"."""
    owner = layer.split(".")[:-1]
    places = _numbered(owner)
    # The first repeated module inside a stage; what is numbered further in belongs to the block.
    return ".".join(owner[: places[min(1, len(places) - 1)] + 1]) if places else ""


def stage(layer: str) -> str:
    """Name the stage of a layer: "layer2" of "layer2.0.conv1", "blocks" of "blocks.3.norm1"."""
    parts = block(layer).split(".")
    places = _numbered(parts)
    return ".".join(parts[: places[0] + 1] if len(places) > 1 else parts[:-1])


def _numbered(parts: Sequence[str]) -> list[int]:
    """Return where a path is numbered: by numbers or, without any, by names that end in one."""
    numbers = [index for index, part in enumerate(parts) if part.isdecimal()]
    return numbers or [index for index, part in enumerate(parts) if part[-1:].isdecimal()]


def name_of(group: Group) -> str:
    """Name a group of tasks, in one line."""
    return " + ".join(map(one_line, group))


def one_line(name: str) -> str:
    """Write a name without line breaks and what else cannot be printed."""
    return "".join(letter if letter.isprintable() else " " for letter in name)


def short(number: float, unit: str = "") -> str:
    """Write a count in few characters: "11.2 M", "590 k", "64"; or "3.63 GFLOPs" with a unit."""
    for prefix, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * factor:
            return f"{number / factor:.3g} {prefix}{unit}"
    return f"{number:.0f} {unit}".rstrip()
