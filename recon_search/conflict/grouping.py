"""Which tasks may share a copy of a layer: by colouring its conflict graph, or by affinity."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import cut_tree, fcluster, linkage
from scipy.spatial.distance import squareform

from recon_search.conflict.scores import ConflictScores
from recon_search.conflict.sums import BINS
from recon_search.errors import RecipeError, nearest

Groups = tuple[tuple[str, ...], ...]


def group_tasks(
    scores: ConflictScores,
    layer: str,
    threshold: float,
    share: float,
    max_groups: int | None = None,
) -> Groups:
    """Group the tasks of a layer so that no two of a group conflict often.

    Tasks are the vertices of a graph, with an edge where cos < `threshold` on at least `share` of
    the steps in which both tasks were measured, of the whole probe. A colouring
    (networkx, DSATUR: the most constrained task first) gives each colour's tasks one copy. DSATUR
    is exact on bipartite graphs and needs few colours in general.

    Args:
        scores: of a probe.
        layer: one of its layers.
        threshold: S.
        share: in (0, 1].
        max_groups: of more groups, the two that agree most (see `affinities`) are joined until
            there are so many; tasks that conflict may then share a copy.

    Returns:
        The groups, in task order; one group of all tasks where nobody conflicts often, and one
        group a task where all do.

    Raises:
        RecipeError: the share or the threshold is out of range, the layer is unknown, no step was
            measured, or a pair of tasks never was, which is named.

    Examples:
        Depth fights both others, which get along, and so has a copy of its own:

        >>> import torch
        >>> scores = ConflictScores(["stem"], ["seg", "depth", "edges"])
        >>> scores.update(torch.tensor([[[1.0, -0.5, 0.5], [-0.5, 1.0, -0.5], [0.5, -0.5, 1.0]]]))
        >>> group_tasks(scores, "stem", threshold=0.0, share=0.5)
        (('seg', 'edges'), ('depth',))
    """
    if not 0 < share <= 1:
        raise RecipeError(
            f"`split.group_share` must lie in (0, 1], got {share}. 0.5 separates tasks that "
            "conflict on half of the steps."
        )
    counts = scores.counts(threshold)[_place(layer, scores)].tolist()
    steps = scores.pair_steps
    scores.check_pairs(steps)
    graph = nx.Graph()
    graph.add_nodes_from(scores.tasks)
    graph.add_edges_from(
        pair
        for pair, count, n in zip(scores.pairs, counts, steps.tolist(), strict=True)
        if count >= share * n
    )
    colours = nx.greedy_color(graph, strategy="DSATUR")
    groups: dict[int, list[str]] = {}
    for task in scores.tasks:
        groups.setdefault(colours[task], []).append(task)
    found = tuple(tuple(group) for group in groups.values())
    if max_groups is None or len(found) <= max_groups:
        return found
    return _join_most_alike(found, affinities(scores, [layer]), scores.tasks, max_groups)


def cluster_tasks(
    scores: ConflictScores, layers: Sequence[str], threshold: float, max_groups: int | None = None
) -> Groups:
    """Group the tasks once for several layers, those that agree most together.

    Average linkage (scipy) of the distances 1 - affinity: every copy of a layer then has the same
    users, and a network has as many branches as there are groups. The idea, affinities from
    gradients in place of trained pairs, is that of AutoBRANE (arXiv 2512.01113).

    Args:
        scores: of a probe.
        layers: those that are to be split.
        threshold: S; without `max_groups`, groups whose mean affinity is below it stay apart.
        max_groups: so many groups, however much they agree; fewer where there are fewer tasks.

    Returns:
        The groups, in task order.

    Raises:
        RecipeError: a layer is unknown, no step was measured, or a pair of tasks never was.
    """
    affinity = affinities(scores, layers)
    if len(scores.tasks) < 2 or not layers:
        return (scores.tasks,)
    tree = linkage(squareform(1 - affinity, checks=False), method="average")
    if max_groups is None:
        labels = fcluster(tree, 1 - threshold, criterion="distance")
    else:
        n = min(max_groups, len(scores.tasks))
        labels = cut_tree(tree, n_clusters=n)[:, 0]  # fcluster makes fewer of equal affinities
    groups: dict[int, list[str]] = {}
    for task, label in zip(scores.tasks, labels.tolist(), strict=True):
        groups.setdefault(label, []).append(task)
    return tuple(tuple(group) for group in groups.values())


def affinities(scores: ConflictScores, layers: Sequence[str]) -> NDArray[np.float64]:
    """Mean cosine (T, T) of each pair's gradients over layers and the steps in which both met.

    From the histograms, whose bins are 0.01 wide: exact to 0.005. The diagonal is 1.

    Raises:
        RecipeError: a layer is unknown, no step was measured, or a pair of tasks never was.
    """
    rows = [_place(layer, scores) for layer in layers]
    scores.check_pairs(scores.pair_steps)
    middles = np.asarray(BINS[:-1]) + np.diff(BINS) / 2
    counts = scores.tensors["counts"].cpu().numpy()[rows].astype(np.float64)  # (L, pairs, bins)
    means = (counts @ middles) / np.maximum(counts.sum(2), 1)  # (L, pairs)
    n = len(scores.tasks)
    found = np.eye(n)
    first, second = np.triu_indices(n, 1)
    found[first, second] = found[second, first] = means.mean(0) if rows else 0.0
    return found


def _join_most_alike(
    groups: Groups, affinity: NDArray[np.float64], tasks: Sequence[str], n: int
) -> Groups:
    """Join the two groups of the highest mean affinity until there are `n`, in task order."""
    place = {task: index for index, task in enumerate(tasks)}
    left = [[place[task] for task in group] for group in groups]
    while len(left) > n:
        pairs = itertools.combinations(range(len(left)), 2)
        a, b = max(pairs, key=lambda pair: affinity[np.ix_(left[pair[0]], left[pair[1]])].mean())
        left[a] = sorted(left[a] + left.pop(b))
    return tuple(tuple(tasks[index] for index in group) for group in sorted(left))


def _place(layer: str, scores: ConflictScores) -> int:
    """The row of a layer.

    Raises:
        RecipeError: it was not measured.
    """
    if layer not in scores.layers:
        raise RecipeError(
            f"The layer must be one that was measured, got '{layer}'."
            f"{nearest(layer, scores.layers)}"
        )
    return scores.layers.index(layer)
