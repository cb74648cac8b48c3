"""From a module to torch.fx graphs, one as it trains and one as it evaluates.

Tracing freezes every Python branch on `training`, so one graph cannot serve both modes; both graphs
call the same modules. timm's own no-trace modules and functions stay whole. The module given is
never touched: a deep copy is traced.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from unittest import mock

import torch
from timm.models import get_notrace_functions, get_notrace_modules
from torch import Tensor, fx, nn

from recon_search.errors import BackboneError
from recon_search.graph.example import example_input
from recon_search.graph.exported import export_graph
from recon_search.graph.tensors import (
    find,
    first_names,
    is_writable,
    named_tensors,
    with_tensors,
)


class _Stored(fx.Proxy):
    """A parameter or buffer while tracing: its shape is known, its values are not."""

    def __init__(self, tracer: fx.Tracer, node: fx.Node, tensor: Tensor) -> None:
        super().__init__(node, tracer)
        self.shape = tensor.shape
        self.ndim = tensor.ndim

    def size(self, dim: int | None = None) -> int | torch.Size:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return self.ndim

    def numel(self) -> int:
        return self.shape.numel()


class Tracer(fx.Tracer):
    """fx's tracer with timm's leaves, one input, and every parameter and buffer a graph node.

    fx by itself reads buffers while it traces, so what the forward pass writes into them, or reads
    from them later, is lost.
    """

    def __init__(self, root: nn.Module) -> None:
        super().__init__(autowrap_functions=tuple(get_notrace_functions()))
        self.leaves = tuple(get_notrace_modules())
        names = first_names(root)
        self.stored = {id(tensor): names[name] for name, tensor in named_tensors(root).items()}

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Return one proxy for each parameter and buffer, whatever module asks for it."""
        name = self.stored.get(id(attr_val))
        if name is None:
            return attr_val
        if name not in parameter_proxy_cache:
            parameter_proxy_cache[name] = self.create_proxy(
                "get_attr", name, (), {}, proxy_factory_fn=lambda n: _Stored(self, n, attr_val)
            )
        return parameter_proxy_cache[name]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Keep timm's no-trace modules whole, beside those of torch.nn."""
        return isinstance(m, self.leaves) or super().is_leaf_module(m, module_qualified_name)

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        """Make the first argument the only input; every other one keeps its default.

        The root is called as a module is, with its hooks.
        """
        return nn.Module._call_impl, [self.root, self.create_proxy("placeholder", "x", (), {})]

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """Refuse what is computed under `no_grad`, for a graph cannot say so."""
        if not torch.is_grad_enabled():
            raise ValueError("computes under no_grad")
        return super().create_node(*args, **kwargs)


@dataclass(frozen=True)
class Trace:
    """The graphs of a module.

    Attributes:
        root: the traced copy; the graphs' targets are its submodules, parameters and buffers.
        graphs: the graph of each mode, by `training`.
    """

    root: nn.Module
    graphs: Mapping[bool, fx.Graph]

    @cached_property
    def names(self) -> dict[str, str]:
        """The first name of each tensor of `root`, by each of its names."""
        return first_names(self.root)

    @cached_property
    def _inside(self) -> dict[str, tuple[str, ...]]:
        return {}

    def uses(self, node: fx.Node) -> tuple[str, ...]:
        """Return the first names of the tensors that `node` reads from `root`, in module order."""
        if node.op not in ("call_module", "get_attr"):
            return ()
        target = str(node.target)
        if target in self.names:
            return (self.names[target],)
        if target not in self._inside:
            inside = first_names(self.root.get_submodule(target))
            named = dict.fromkeys(self.names[f"{target}.{name}"] for name in inside)
            self._inside[target] = tuple(named)
        return self._inside[target]


def trace(module: nn.Module, example: Tensor | None = None) -> Trace:
    """Trace a deep copy of `module` in training and in evaluation mode.

    The copy keeps the training flag of every submodule. Tensors that tracing found outside the
    registries (constants) become non-persistent buffers of the copy, so that they move with it.

    Args:
        module: left untouched.
        example: an input, for modules that torch.fx cannot trace but torch.export can; made from
            the module's configuration if None.

    Raises:
        BackboneError: neither can: the forward pass branches on the values of tensors, draws
            numbers that a graph would repeat, or sets contexts that a graph would lose.
    """
    root = _copy(module)
    flags = {name: part.training for name, part in root.named_modules()}
    graphs = {training: _trace_mode(root, training, example) for training in (True, False)}
    for name, part in root.named_modules():
        part.training = flags.get(name, module.training)
    return Trace(root, graphs)


def is_metadata(node: fx.Node) -> bool:
    """Tell whether a node asks a tensor for its sizes, type or device, not for its values."""
    if node.op == "call_method":
        return node.target in ("size", "dim", "numel", "stride")
    return node.target is getattr and node.args[1] in ("shape", "ndim", "dtype", "device")


def _trace_mode(root: nn.Module, training: bool, example: Tensor | None) -> fx.Graph:
    root.train(training)
    try:
        with _nothing_frozen():
            graph = Tracer(root).trace(root)
        buffers: dict[str, Any] = dict(root.named_buffers())
        for name, buffer in buffers.items():
            if isinstance(buffer, fx.Proxy):
                raise ValueError(f"assigns its buffer '{name}' instead of writing into it")
    except Exception as error:  # whatever the forward pass raises when it meets a proxy
        try:
            if isinstance(error, NameError):
                raise  # it reads another module's parameters, which export would make constants
            with _nothing_frozen():
                return export_graph(root, example_input(root) if example is None else example)
        except Exception:
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            raise BackboneError(
                "A backbone's graph must be traceable by torch.fx or torch.export, "
                f"{type(root).__name__} is not ({reason}). Choose another backbone, or mark the "
                "module that branches with timm.models.register_notrace_module."
            ) from error
    # A parameter that the forward pass reads and never uses is no layer.
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op != "get_attr")
    for node in graph.find_nodes(op="get_attr"):
        _register_constant(root, str(node.target))
    return graph


def _copy(module: nn.Module) -> nn.Module:
    try:
        copy = with_tensors(module, {})
        for tensor in named_tensors(copy).values():
            _ = tensor.shape  # lazy ones have none
    except Exception as error:  # whatever deepcopy raises
        raise BackboneError(
            f"A backbone must be copyable and initialised, {type(module).__name__} is not "
            f"({type(error).__name__}: {str(error).partition(chr(10))[0]}). Run lazy modules once, "
            "and use torch.nn.utils.parametrizations for normed weights."
        ) from error
    for part in {part for name, _ in copy.named_modules() for part in name.split(".")}:
        if not is_writable(part):
            raise BackboneError(
                "The names of a backbone's modules must be free of Python keywords, quotes and "
                f"backslashes, {type(module).__name__} has {part!r}. Rename the module."
            )
    return copy


@contextmanager
def _nothing_frozen() -> Iterator[None]:
    """Refuse what happens while a module is traced, once, and ought to happen at every call.

    Random state is put back.

    Raises:
        ValueError: numbers were drawn, or autocast was entered.
    """
    state, python_state = torch.get_rng_state(), random.getstate()
    no_autocast = mock.patch.object(torch.autocast, "__enter__", _refuse_autocast)
    with torch.random.fork_rng(), torch.enable_grad(), no_autocast:
        try:
            yield
            if random.getstate() != python_state or not torch.equal(state, torch.get_rng_state()):
                raise ValueError("draws random numbers that a graph would repeat")
        finally:
            random.setstate(python_state)


def _refuse_autocast(_: torch.autocast) -> None:
    raise ValueError("computes under autocast of its own")


def _register_constant(root: nn.Module, target: str) -> None:
    if find(root, target) is not None:
        return
    parent, _, name = target.rpartition(".")
    owner = root.get_submodule(parent)
    value = getattr(owner, name)
    if isinstance(value, Tensor):
        delattr(owner, name)
        owner.register_buffer(name, value.detach(), persistent=False)
