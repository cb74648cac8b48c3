"""The plan of a split: which layers get private copies, and which tasks share a copy."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import nn

from recon_search.artefact import digest, read_json, read_object, write_text
from recon_search.errors import ArtefactError, SplitError, nearest, shortened
from recon_search.graph.layers import digest_of, layer_names
from recon_search.graph.names import names_of
from recon_search.graph.partition import Group, from_groups, to_groups
from recon_search.graph.tensors import named_tensors
from recon_search.graph.trace import Trace, trace
from recon_search.seals import KEY, seal

FORMAT = "recon-search/split/1"
KEYS = ("format", "backbone", "tasks", "chosen", "provenance", KEY, "layers")


@dataclass(frozen=True)
class Split:
    """Which tasks share which copy of each split layer.

    Two splits are equal when tasks and layers are; where they come from does not count.

    Attributes:
        tasks: names, in order.
        layers: for each split layer, the groups of tasks that share a copy: at least two, every
            task in exactly one. Brought into task order. Layers not named are shared by all.
        backbone: what the split was made for: timm name, arguments, `digest`. May be empty.
        chosen: how: rule, threshold, k or budget, grouping.
        provenance: where it comes from: recipe digest, seed, versions.

    Raises:
        SplitError: tasks or groups break the rules above.

    Examples:
        >>> tasks = ["seg", "depth", "edges"]
        >>> split = Split(tasks, {"conv1": [["seg", "edges"], ["depth"]]})
        >>> split.layers["conv1"]
        (('seg', 'edges'), ('depth',))
        >>> Split.private(["conv1"], tasks).layers["conv1"]
        (('seg',), ('depth',), ('edges',))
        >>> split.for_tasks(["age", "sex"], {"age": "depth", "sex": "seg"}).layers["conv1"]
        (('age',), ('sex',))
    """

    tasks: tuple[str, ...]
    layers: Mapping[str, tuple[Group, ...]]
    backbone: Mapping[str, Any] = field(default_factory=dict, compare=False)
    chosen: Mapping[str, Any] = field(default_factory=dict, compare=False)
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        tasks = _checked_tasks(self.tasks)
        if not isinstance(self.layers, Mapping):
            raise SplitError(
                "The layers of a split must be given with their groups of tasks, got "
                f"{self.layers!r}. Write {{layer: [[task, ...], ...]}}, or use Split.private."
            )
        names_of(self.layers, "The layers of a split")
        layers = {name: _ordered(name, groups, tasks) for name, groups in self.layers.items()}
        object.__setattr__(self, "tasks", tasks)
        object.__setattr__(self, "layers", layers)

    def __hash__(self) -> int:
        return hash(self.digest)

    @classmethod
    def private(
        cls,
        names: Iterable[str],
        tasks: Sequence[str],
        *,
        backbone: Mapping[str, Any] | None = None,
        chosen: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> Split:
        """Give every task a copy of its own of each layer in `names`; none named is no split."""
        tasks = _checked_tasks(tasks)
        alone = tuple((task,) for task in tasks)
        return cls(
            tasks,
            dict.fromkeys(names_of(names, "The layers of a split"), alone),
            backbone or {},
            chosen or {},
            provenance or {},
        )

    @property
    def digest(self) -> str:
        """Digest of tasks and layers alone."""
        return digest({"tasks": self.tasks, "layers": self.layers})

    def save(self, path: str | Path) -> None:
        """Write JSON that reads and diffs well: one layer a line."""
        parts = {
            "format": FORMAT,
            "backbone": dict(self.backbone),
            "tasks": self.tasks,
            "chosen": dict(self.chosen),
            "provenance": dict(self.provenance),
        }
        parts[KEY] = seal({**parts, "layers": self.layers})[KEY]
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in parts.items()]
        rows = [
            f"    {json.dumps(name)}: {json.dumps(groups)}" for name, groups in self.layers.items()
        ]
        body = '  "layers": {' + ("\n" + ",\n".join(rows) + "\n  }" if rows else "}")
        write_text(path, "\n".join(["{", *lines, body, "}"]) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Split:
        """Read a split that `save` wrote, or a person, who leaves the digest out.

        Raises:
            ArtefactError: the file is missing, damaged, changed or of another format.
            SplitError: its tasks are no list of names, or its groups no partitions of them.
        """
        value = read_object(path, "split", FORMAT, by_hand=True)
        if unknown := [key for key in value if key not in KEYS]:
            raise ArtefactError(
                f"A split must have no keys but {', '.join(KEYS)}, {path} has "
                f"'{unknown[0]}'.{nearest(unknown[0], KEYS)} Rename or remove it."
            )
        try:
            tasks, layers = value["tasks"], value["layers"]
            extra = [dict(value.get(key, {})) for key in ("backbone", "chosen", "provenance")]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ArtefactError(
                f"A split must have tasks and layers with groups of tasks, {path} has not "
                f"({type(error).__name__}: {error}). Write it again."
            ) from None
        try:
            return cls(tasks, layers, *extra)
        except SplitError as error:
            raise SplitError(f"{path}: {shortened(str(error))}") from None

    def for_tasks(
        self,
        tasks: Sequence[str],
        mapping: Mapping[str, str] | None = None,
        *,
        grouped: Literal["refuse", "private", "share"] = "refuse",
    ) -> Split:
        """Carry the split over to other tasks, for instance those of another data set.

        A fully private layer becomes fully private for the new tasks. Where a layer's copies are
        shared by groups, new tasks share one if the old tasks they map to do; a layer that all of
        them share is no longer split.

        Args:
            tasks: the new tasks.
            mapping: new task to old task. Needed only for grouped layers; where the new tasks are
                the old ones, each maps to itself.
            grouped: what becomes of grouped layers without a mapping.

        Raises:
            SplitError: a grouped layer has no mapping, or the mapping misses a task.
        """
        tasks = _checked_tasks(tasks)
        if mapping is None and set(tasks) <= set(self.tasks):
            mapping = {task: task for task in tasks}
        alone = tuple((task,) for task in tasks)
        layers: dict[str, tuple[Group, ...]] = {}
        for name, groups in self.layers.items():
            if len(groups) == len(self.tasks):
                layers[name] = alone
            elif mapping is not None:
                layers[name] = _map_groups(groups, tasks, mapping)
            elif grouped == "private":
                layers[name] = alone
            elif grouped == "refuse":
                raise SplitError(
                    f"A split with grouped tasks needs a mapping of the tasks {list(tasks)} to "
                    f"{list(self.tasks)}: layer '{name}' has the groups {_show(groups)}. Give the "
                    "mapping, or choose grouped='private' or grouped='share'."
                )
        split = {name: groups for name, groups in layers.items() if len(groups) > 1}
        return Split(tasks, split, self.backbone, self.chosen, self.provenance)

    def check(self, backbone: nn.Module, *, example: Any = None) -> None:
        """Make sure that `backbone` has every layer of this split and the digest it was made for.

        Raises:
            SplitError: naming the first missing layer and near names, or both digests.
            BackboneError: the backbone cannot be traced.
        """
        self.check_trace(trace(backbone, example))

    def check_trace(self, traced: Trace) -> None:
        """Do what `check` does for a backbone that is traced already."""
        known = layer_names(traced)
        for name in self.layers:
            if name not in known:
                raise SplitError(
                    "A split layer must be one of the backbone's trainable layers in use, "
                    f"{type(traced.root).__name__} {_why_not(name, traced)} '{name}'."
                    f"{nearest(name, known)} List them with recon_search.layers."
                )
        expected = self.backbone.get("digest")
        found = expected and digest_of(traced)
        if found != expected:
            raise SplitError(
                f"The split must fit the backbone: it was made for {self.backbone.get('name')} "
                f"with digest {expected}, this {type(traced.root).__name__} has {found}. Use the "
                "same timm name and arguments, or leave the digest out of the split."
            )


def load_counts(path: str | Path) -> dict[str, int]:
    """Read a JSON object of layer to conflict count, as Recon's authors publish, most first.

    Equal counts keep the order of the file. The first k names, given to `Split.private`, are
    Recon's split.

    Raises:
        ArtefactError: the file is missing or no object of numbers.
    """
    counts = read_json(path, "table of conflict counts")
    if not isinstance(counts, dict) or not all(
        isinstance(n, int | float) and not isinstance(n, bool) for n in counts.values()
    ):
        raise ArtefactError(
            f"A table of conflict counts must be a JSON object of layer to number, {path} is not. "
            'Write {"layer": count, ...}.'
        )
    return {name: int(counts[name]) for name in sorted(counts, key=lambda name: -counts[name])}


def _why_not(name: str, traced: Trace) -> str:
    """Say why the backbone has no splittable layer of that name."""
    owned = [n for n in traced.names if name in (n, n.rpartition(".")[0])]
    if not owned:
        return "does not have"
    own = named_tensors(traced.root)
    return "its forward pass does not use" if any(own[n].requires_grad for n in owned) else "froze"


def _checked_tasks(tasks: Iterable[str]) -> tuple[str, ...]:
    named = names_of(tasks, "The tasks of a split")
    for task in named:
        if not task or not task.isprintable():
            raise SplitError(
                f"A task name must be printable text of a character or more, got {task!r}. Rename "
                "the task."
            )
    if not named or len(set(named)) < len(named):
        raise SplitError(
            f"A split needs at least one task, each named once, got {list(named)}. Mend the names."
        )
    return named


def _ordered(
    name: str, groups: Iterable[Iterable[str]], tasks: tuple[str, ...]
) -> tuple[Group, ...]:
    what = f"Each of the groups of layer '{name}'"
    if isinstance(groups, str) or not isinstance(groups, Iterable):
        raise SplitError(
            f"{what} must be a list of tasks, got {groups!r} for all. Write [[task, ...], ...]."
        )
    named = [names_of(group, what) for group in groups]
    members = [task for group in named for task in group]
    if sorted(members) != sorted(tasks) or not all(named):
        raise SplitError(
            f"The groups of layer '{name}' must hold every task of {list(tasks)} once, got "
            f"{_show(named)}. Mend the groups."
        )
    if len(named) < 2:
        raise SplitError(
            f"A split layer needs at least two groups of tasks, '{name}' has {_show(named)}. "
            "Leave the layer out to share it."
        )
    return to_groups(from_groups(named, tasks), tasks)


def _map_groups(
    groups: Sequence[Group], tasks: Sequence[str], mapping: Mapping[str, str]
) -> tuple[Group, ...]:
    if not isinstance(mapping, Mapping):
        raise SplitError(
            f"The mapping must give the old task of every new one, got {mapping!r}. Write "
            "{new: old}."
        )
    old = {task: index for index, group in enumerate(groups) for task in group}
    for task in tasks:
        if mapping.get(task) not in old:
            raise SplitError(
                f"The mapping must send every new task to one of {sorted(old)}, '{task}' goes to "
                f"{mapping.get(task)!r}. Complete the mapping."
            )
    found: dict[int, list[str]] = {}
    for task in tasks:
        found.setdefault(old[mapping[task]], []).append(task)
    return tuple(tuple(group) for group in found.values())


def _show(groups: Sequence[Sequence[str]]) -> str:
    return " | ".join(" ".join(map(str, group)) or "(empty)" for group in groups)
