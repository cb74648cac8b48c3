"""Which tasks may keep sharing a copy of a layer: colouring its conflict graph."""

from __future__ import annotations

import networkx as nx

from recon_search.conflict.scores import ConflictScores
from recon_search.errors import RecipeError, nearest


def group_tasks(
    scores: ConflictScores, layer: str, threshold: float, share: float
) -> tuple[tuple[str, ...], ...]:
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

    Returns:
        The groups, in task order; one group of all tasks where nobody conflicts often, and one
        group a task where all do.

    Raises:
        RecipeError: the share or the threshold is out of range, the layer is unknown, no step was
            measured, or a pair of tasks never was, which is named.
    """
    if not 0 < share <= 1:
        raise RecipeError(
            f"`split.group_share` must lie in (0, 1], got {share}. 0.5 separates tasks that "
            "conflict on half of the steps."
        )
    if layer not in scores.layers:
        raise RecipeError(
            f"The layer must be one that was measured, got '{layer}'."
            f"{nearest(layer, scores.layers)}"
        )
    counts = scores.counts(threshold)[scores.layers.index(layer)].tolist()
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
    return tuple(tuple(group) for group in groups.values())
