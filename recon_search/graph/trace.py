"""From a module to torch.fx graphs, one as it trains and one as it evaluates.

Tracing freezes every Python branch on `training`, so one graph cannot serve both modes; both graphs
call the same modules. timm's own no-trace modules and functions stay whole. The module given is
never touched: a deep copy is traced.
"""

from __future__ import annotations

import gc
import operator
import os
import random
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from unittest import mock

import torch
from timm.models import get_notrace_functions, get_notrace_modules
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.nn.modules import module as module_hooks

from recon_search.errors import BackboneError, in_one_line
from recon_search.graph.admission import check_hooks, copy_of
from recon_search.graph.example import (
    Inputs,
    as_inputs,
    example_input,
    input_names,
    needed_names,
)
from recon_search.graph.exported import detach, export_graph
from recon_search.graph.tensors import find, first_names, named_tensors

NO_GRAD = "computes under no_grad with weights that train"


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
    """fx's tracer with timm's leaves, given inputs, and every parameter and buffer a graph node.

    fx by itself reads buffers while it traces, so what the forward pass writes into them, or reads
    from them later, is lost.
    """

    def __init__(self, root: nn.Module, inputs: Sequence[str]) -> None:
        super().__init__(autowrap_functions=tuple(get_notrace_functions()))
        self.inputs = inputs
        self.untracked: set[fx.Node] = set()  # needs no gradient whatever enters
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
        """Make the named arguments the only inputs; every other one keeps its default.

        The root is called as a module is, with its hooks.
        """
        inputs = [self.create_proxy("placeholder", name, (), {}) for name in self.inputs]
        return nn.Module._call_impl, [self.root, *inputs]

    def create_node(
        self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **named: Any
    ) -> fx.Node:
        """Detach what enters a region under `no_grad`, for a graph cannot say so otherwise.

        Raises:
            ValueError: trainable parameters are used there.
        """
        if torch.is_grad_enabled() or kind in ("get_attr", "output"):
            return super().create_node(kind, target, args, kwargs, *more, **named)
        is_module = kind == "call_module"
        if is_module and _is_trainable(self.root.get_submodule(target).parameters()):
            raise ValueError(NO_GRAD)
        args, kwargs = map_arg((args, kwargs), self._detached)
        node = super().create_node(kind, target, args, kwargs, *more, **named)
        self.untracked.add(node)
        return node

    def _detached(self, node: fx.Node) -> fx.Node:
        if node in self.untracked:
            return node
        if node.op == "get_attr":
            tensor = find(self.root, str(node.target))
            if isinstance(tensor, nn.Parameter) and _is_trainable([tensor]):
                raise ValueError(NO_GRAD)
            return node
        twin = super().create_node("call_function", detach, (node,), {})
        self.untracked.add(twin)
        return twin


@dataclass(frozen=True)
class Trace:
    """The graphs of a module.

    Attributes:
        root: the traced copy; the graphs' targets are its submodules, parameters and buffers.
        graphs: the graph of each mode, by `training`.
        example: the inputs that were given to trace with.
    """

    root: nn.Module
    graphs: Mapping[bool, fx.Graph]
    example: Inputs | None = None

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


def trace(module: nn.Module, example: Any = None) -> Trace:
    """Trace a deep copy of `module` in training and in evaluation mode.

    The copy keeps the training flag of every submodule. Tensors that tracing found outside the
    registries (constants) become non-persistent buffers of the copy, so that they move with it.

    Args:
        module: left untouched.
        example: what it is called with: a tensor, a tuple of its arguments, a dict of them by name.
            For modules with several inputs, and for those that torch.fx cannot trace but
            torch.export can, where it is made from the module's configuration if None.

    Raises:
        BackboneError: neither can: the forward pass branches on the values of tensors, draws
            numbers that a graph would repeat, or sets contexts that a graph would lose. Or the
            module hides its layers, or has hooks or several inputs that a graph would lose.
    """
    root = copy_of(module)
    inputs = None if example is None else as_inputs(root, example)
    names = needed_names(root) if inputs is None else input_names(root, len(inputs))
    hooked = check_hooks(root, Tracer(root, names).is_leaf_module, lambda: _example(root, inputs))
    flags = {name: part.training for name, part in root.named_modules()}
    graphs = {}
    for training in (True, False):
        graphs[training] = _trace_mode(root, training, names, inputs)
        if inputs is None:
            _check_input(root, graphs[training])
        if hooked and _has_leaked():
            raise BackboneError(
                "A hook on a module that is taken apart must not keep what it sees, one of "
                f"{type(root).__name__} does. Remove it before branching."
            )
    for name, part in root.named_modules():
        part.training = flags.get(name, module.training)
    return Trace(root, graphs, inputs)


def is_metadata(node: fx.Node) -> bool:
    """Tell whether a node asks a tensor for its sizes, type or device, not for its values."""
    if node.op == "call_method":
        return node.target in ("size", "dim", "numel", "stride")
    return node.target is getattr and node.args[1] in ("shape", "ndim", "dtype", "device")


def _example(root: nn.Module, inputs: Inputs | None) -> Inputs:
    return (example_input(root),) if inputs is None else inputs


def _trace_mode(
    root: nn.Module, training: bool, names: Sequence[str], inputs: Inputs | None
) -> fx.Graph:
    root.train(training)
    before = {part: dict(vars(part)) for part in root.modules()}
    try:
        with _nothing_frozen():
            graph = Tracer(root, names).trace(root)
        _check_buffers(root)
    except Exception as error:  # whatever the forward pass raises when it meets a proxy
        # Export would make another module's parameters constants, and keep what is assigned.
        if isinstance(error, NameError | _BufferError):
            raise _refusal(root, error, None, inputs) from error
        for part, attributes in before.items():
            vars(part).clear()
            vars(part).update(attributes)
        try:
            with _nothing_frozen():
                return export_graph(root, _example(root, inputs))
        except Exception as second:
            raise _refusal(root, error, second, inputs) from error
    # A parameter that the forward pass reads and never uses is no layer.
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op != "get_attr")
    for node in graph.find_nodes(op="get_attr"):
        _register_constant(root, str(node.target))
    return graph


def _check_input(root: nn.Module, graph: fx.Graph) -> None:
    """Refuse an input that may be a dict or list as long as no example says what it is."""
    for node in graph.find_nodes(op="call_function", target=operator.getitem):
        source, key = node.args
        if (
            isinstance(source, fx.Node)
            and source.op == "placeholder"
            and isinstance(key, int | str)
        ):
            raise BackboneError(
                "A backbone that takes a dict or list needs an example of it, "
                f"{type(root).__name__} reads its input at {key!r}. Pass example=."
            )


class _BufferError(ValueError):
    """A buffer is replaced, not written into."""


def _check_buffers(root: nn.Module) -> None:
    buffers: dict[str, Any] = dict(root.named_buffers())
    for name, buffer in buffers.items():
        if isinstance(buffer, fx.Proxy):
            raise _BufferError(f"assigns its buffer '{name}' instead of writing into it")


def _refusal(
    root: nn.Module, error: Exception, second: Exception | None, inputs: Inputs | None
) -> BackboneError:
    """Say what each front end met, where, and what helps."""
    reasons = f"torch.fx: {in_one_line(error)}"
    culprit = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        owner, path = frame.f_locals.get("self"), frame.f_code.co_filename
        if isinstance(owner, nn.Module) and not path.startswith(os.path.dirname(torch.__file__)):
            culprit = owner
            where = f"{type(owner).__name__}.{frame.f_code.co_name}, {os.path.basename(path)}"
            found_at = f" in {where}:{line}"
    if culprit is not None:
        reasons += found_at
    if second is not None:
        reasons += f"; torch.export: {in_one_line(second)}"
    inside = culprit is not None and culprit is not root
    keep = (
        f"keep {type(culprit).__name__} whole: mark it with"
        if inside
        else "move what branches into a module of its own and mark that with"
    )
    return BackboneError(
        "A backbone's graph must be traceable by torch.fx or torch.export, "
        f"{type(root).__name__} is not ({reasons}). Choose another backbone, "
        f"{'' if inputs is not None or second is None else 'pass example= of the size you use, '}"
        f"or {keep} timm.models.register_notrace_module."
    )


def _has_leaked() -> bool:
    """Tell whether somebody keeps a stand-in although tracing is over."""
    gc.collect()
    return any(issubclass(type(thing), fx.Proxy) for thing in gc.get_objects())


@contextmanager
def _nothing_frozen() -> Iterator[None]:
    """Refuse what happens while a module is traced, once, and ought to happen at every call.

    Random state is put back.

    Raises:
        ValueError: numbers were drawn, or autocast was entered.
    """
    state, python_state = torch.get_rng_state(), random.getstate()
    no_autocast = mock.patch.object(torch.autocast, "__enter__", _refuse_autocast)
    with torch.random.fork_rng(), torch.enable_grad(), no_autocast, ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch.inference_mode, "__enter__", _as_no_grad))
        for name in ("_global_forward_hooks", "_global_forward_pre_hooks"):
            stack.enter_context(mock.patch.dict(getattr(module_hooks, name), clear=True))
        try:
            yield
            if random.getstate() != python_state or not torch.equal(state, torch.get_rng_state()):
                raise ValueError("draws random numbers that a graph would repeat")
        finally:
            random.setstate(python_state)


def _refuse_autocast(_: torch.autocast) -> None:
    raise ValueError("computes under autocast of its own")


def _as_no_grad(mode: Any) -> None:
    """Enter `inference_mode` as `no_grad`, which is the same to a gradient; export overlooks it."""
    mode._inference_mode_context = torch.no_grad() if mode.mode else nullcontext()
    mode._inference_mode_context.__enter__()


def _is_trainable(parameters: Iterable[nn.Parameter]) -> bool:
    return any(parameter.requires_grad for parameter in parameters)


def _register_constant(root: nn.Module, target: str) -> None:
    if find(root, target) is not None:
        return
    parent, _, name = target.rpartition(".")
    owner = root.get_submodule(parent)
    value = getattr(owner, name)
    if isinstance(value, Tensor):
        delattr(owner, name)
        owner.register_buffer(name, value.detach(), persistent=False)
