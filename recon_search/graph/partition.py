"""Partitions of the tasks: which tasks share one copy of a node, a module or a tensor.

A partition of T tasks is a tuple of T block labels, numbered in order of first appearance: of three
tasks, (0, 0, 0) share one copy, (0, 1, 2) have one each, and in (0, 1, 0) the first and the last
share. Equal partitions are equal tuples.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Sequence

Partition = tuple[int, ...]
Group = tuple[str, ...]


def canonical(labels: Iterable[Hashable]) -> Partition:
    """Number arbitrary block labels, one a task, in order of first appearance."""
    numbers: dict[Hashable, int] = {}
    return tuple(numbers.setdefault(label, len(numbers)) for label in labels)


def whole(n_tasks: int) -> Partition:
    """Return the coarsest partition: all tasks share."""
    return (0,) * n_tasks


def refine(first: Partition, *others: Partition) -> Partition:
    """Return the coarsest common refinement: two tasks share only where they share in every one."""
    if all(other == first for other in others):
        return first
    return canonical(zip(first, *others, strict=True))


def merged(partition: Partition, members: Collection[int]) -> Partition:
    """Let all that are no members join the block of the first member; all are one without any."""
    if len(members) == len(partition):
        return partition
    first = partition[min(members)] if members else None
    return canonical(
        label if position in members else first for position, label in enumerate(partition)
    )


def is_refinement(fine: Partition, coarse: Partition) -> bool:
    """Tell whether every block of `fine` lies inside one block of `coarse`."""
    return refine(fine, coarse) == fine


def from_groups(groups: Sequence[Sequence[str]], tasks: Sequence[str]) -> Partition:
    """Turn groups of task names, which must cover every task once, into a partition."""
    number = {task: index for index, group in enumerate(groups) for task in group}
    return canonical(number[task] for task in tasks)


def to_groups(partition: Partition, tasks: Sequence[str]) -> tuple[Group, ...]:
    """Turn a partition into groups of task names, in task order."""
    groups: list[list[str]] = [[] for _ in range(max(partition, default=-1) + 1)]
    for label, task in zip(partition, tasks, strict=True):
        groups[label].append(task)
    return tuple(tuple(group) for group in groups)


def blocks(partition: Partition, members: Iterable[int] | None = None) -> list[tuple[int, ...]]:
    """List the blocks as task positions; with `members`, of those positions alone."""
    wanted = range(len(partition)) if members is None else members
    found: dict[int, list[int]] = {}
    for position in wanted:
        found.setdefault(partition[position], []).append(position)
    return [tuple(block) for block in found.values()]
