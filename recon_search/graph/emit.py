"""From a laid-out network to the Python function that runs it for some of its tasks."""

from __future__ import annotations

import linecache
import weakref
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import fx
from torch.fx.node import map_arg

from recon_search.graph.layout import Layout
from recon_search.graph.partition import blocks

Forward = Callable[..., dict[str, Any]]


class Forwards(dict[tuple[bool, tuple[str, ...]], Forward]):
    """Generated functions by mode and tasks. Deep copies share them, pickles have none."""

    def __deepcopy__(self, memo: object) -> Self:
        return type(self)(self)

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()


def emit(graph: fx.Graph, layout: Layout, wanted: tuple[int, ...]) -> fx.Graph:
    """Write a graph that computes `{task: output}` for the tasks at the positions `wanted`.

    Each node is emitted once per block of its partition that holds a wanted task. What is left out
    belongs to other tasks alone, so the paths of the wanted tasks are computed and nothing else.
    """
    new = fx.Graph()
    copies: dict[int, dict[fx.Node, fx.Node]] = {i: {} for i in wanted}
    for node in graph.nodes:
        if node.op == "output":
            outputs = {
                layout.tasks[i]: map_arg(_read(node.args[0], layout, i), copies[i].__getitem__)
                for i in wanted
            }
            new.output(outputs)
            continue
        for block in blocks(layout.computed[node], layout.members(node, wanted)):
            copy = new.node_copy(node, copies[block[0]].__getitem__)
            if node.op in ("call_module", "get_attr"):
                copy.target = layout.home(str(node.target), block[0])
            for index, part in enumerate(blocks(layout.held[node], block)):
                value = new.call_function(torch.clone, (copy,)) if index else copy
                for i in part:
                    copies[i][node] = value
    return new


def _read(output: Any, layout: Layout, position: int) -> Any:
    """Return what a task takes of the output."""
    if not layout.reads:
        return output
    return output[("vector", "pyramid").index(layout.reads[position])]


def compile_forward(graph: fx.Graph, name: str) -> Forward:
    """Turn a graph into a function `(module, *inputs) -> {task: output}`.

    The function holds no tensors: it finds modules and parameters by path in the module given.
    """
    code = graph.python_code("self")
    filename = f"<recon-search {name} {id(graph):#x}>"
    scope: dict[str, Any] = dict(code.globals)
    exec(compile(code.src, filename, "exec"), scope)
    lines = code.src.splitlines(keepends=True)
    linecache.cache[filename] = (len(code.src), None, lines, filename)  # readable tracebacks
    forward: Forward = scope["forward"]
    weakref.finalize(forward, linecache.cache.pop, filename, None)
    return forward
