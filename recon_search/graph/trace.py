"""From a module to torch.fx graphs, one as it trains and one as it evaluates.

Tracing freezes every Python branch on `training`, so one graph cannot serve both modes; both graphs
call the same modules. timm's own no-trace modules and functions stay whole. The module given is
never touched: a deep copy is traced.
"""

from __future__ import annotations

import gc
import io
import logging
import operator
import os
import random
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from unittest import mock

import torch
from torch import Tensor, fx, nn
from torch.nn.modules import module as module_hooks

from recon_search.chance import forked
from recon_search.errors import BackboneError
from recon_search.graph.admission import check_hooks, copy_of
from recon_search.graph.calls import FORWARD, Call, find_call
from recon_search.graph.example import (
    Inputs,
    as_inputs,
    example_input,
    first_line,
    input_names,
    needed_names,
)
from recon_search.graph.exported import export_graph
from recon_search.graph.tensors import find, first_names
from recon_search.graph.tracer import Tracer

_HERE = os.path.dirname(__file__)


@dataclass(frozen=True)
class Trace:
    """The graphs of a module.

    Attributes:
        root: the traced copy; the graphs' targets are its submodules, parameters and buffers.
        graphs: the graph of each mode, by `training`.
        example: the inputs that were given to trace with.
        call: what of the module was followed.
    """

    root: nn.Module
    graphs: Mapping[bool, fx.Graph]
    example: Inputs | None = None
    call: Call = FORWARD

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


def trace(
    module: nn.Module,
    example: Any = None,
    *,
    call: str = "forward",
    levels: Sequence[int] | None = None,
) -> Trace:
    """Trace a deep copy of `module` in training and in evaluation mode.

    The copy keeps the training flag of every submodule. Tensors that tracing found outside the
    registries (constants) become non-persistent buffers of the copy, so that they move with it.

    Args:
        module: left untouched.
        example: what it is called with: a tensor, a tuple of its arguments, a dict of them by name.
            For modules with several inputs, and for those that torch.fx cannot trace but
            torch.export can, where it is made from the module's configuration if None.
        call: `forward`; `pyramid`, the maps that timm's `forward_intermediates` gives; or `both`,
            a pair of the two from one pass.
        levels: which of timm's intermediate features make the pyramid (see `calls.find_call`).

    Raises:
        BackboneError: neither can: the forward pass branches on the values of tensors, draws
            numbers that a graph would repeat, or sets contexts that a graph would lose. Or the
            module hides its layers, or has hooks or several inputs that a graph would lose.
    """
    root = copy_of(module)
    inputs = None if example is None else as_inputs(root, example)
    what = FORWARD if call == "forward" else find_call(root, call, levels, _example(root, inputs))
    with what.made_of(root):
        return _trace(root, inputs, what)


def _trace(root: nn.Module, inputs: Inputs | None, call: Call) -> Trace:
    names = needed_names(root) if inputs is None else input_names(root, len(inputs))
    hooked = check_hooks(root, Tracer(root, names).is_leaf_module, lambda: _example(root, inputs))
    flags = {name: part.training for name, part in root.named_modules()}
    graphs = {}
    known = _count_stand_ins() if hooked else 0
    for training in (True, False):
        graphs[training] = _trace_mode(root, training, names, inputs)
        if inputs is None:
            _check_input(root, graphs[training])
        if hooked and _count_stand_ins() > known:
            raise BackboneError(
                "A hook on a module that is taken apart must not keep what it sees, one of "
                f"{type(root).__name__} does. Remove it before branching."
            )
    for name, part in root.named_modules():
        part.training = flags.get(name, root.training)
    return Trace(root, graphs, inputs, call)


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
        _forget_stand_ins(before)
    except Exception as error:  # whatever the forward pass raises when it meets a proxy
        # Export would make another module's parameters constants, and keep what is assigned.
        if isinstance(error, NameError | _BufferError):
            raise _refusal(root, error, None, inputs) from error
        for part, attributes in before.items():
            vars(part).clear()
            vars(part).update(attributes)
        try:
            with _nothing_frozen(), _quiet():
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
    reasons = f"torch.fx: {first_line(error)}"
    culprit = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        owner = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        is_own = not code.co_filename.startswith((os.path.dirname(torch.__file__), _HERE))
        if isinstance(owner, nn.Module) and is_own:
            culprit = owner
            file = os.path.basename(code.co_filename)
            place = f" in {type(owner).__name__}.{code.co_name}, {file}:{line}"
    if culprit is not None:
        reasons += place
    if second is not None:
        reasons += f"; torch.export: {first_line(second)}"
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


def _forget_stand_ins(attributes: Mapping[nn.Module, Mapping[str, Any]]) -> None:
    """Put back the attributes in which the forward pass kept what it computed."""
    for part, before in attributes.items():
        for name in [n for n, value in vars(part).items() if isinstance(value, fx.Proxy)]:
            if name in before:
                vars(part)[name] = before[name]
            else:
                del vars(part)[name]


def _count_stand_ins() -> int:
    """Count what somebody keeps although tracing is over."""
    gc.collect()
    return sum(issubclass(type(thing), fx.Proxy) for thing in gc.get_objects())


@contextmanager
def _nothing_frozen() -> Iterator[None]:
    """Refuse what happens while a module is traced, once, and ought to happen at every call.

    Random state is put back.

    Raises:
        ValueError: numbers were drawn, or autocast was entered.
    """
    state, python_state = torch.get_rng_state(), random.getstate()
    no_autocast = mock.patch.object(torch.autocast, "__enter__", _refuse_autocast)
    with forked(), torch.enable_grad(), no_autocast, ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch.inference_mode, "__enter__", _as_no_grad))
        for name in ("_global_forward_hooks", "_global_forward_pre_hooks"):
            stack.enter_context(mock.patch.dict(getattr(module_hooks, name), clear=True))
        try:
            yield
            if random.getstate() != python_state or not torch.equal(state, torch.get_rng_state()):
                raise ValueError("draws random numbers that a graph would repeat")
        finally:
            random.setstate(python_state)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch.export from logging what the message of a refusal says."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    nowhere = io.StringIO()
    try:
        with redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield
    finally:
        logging.disable(before)


def _refuse_autocast(_: torch.autocast) -> None:
    raise ValueError("computes under autocast of its own")


def _as_no_grad(mode: Any) -> None:
    """Enter `inference_mode` as `no_grad`, which is the same to a gradient; export overlooks it."""
    mode._inference_mode_context = torch.no_grad() if mode.mode else nullcontext()
    mode._inference_mode_context.__enter__()


def _register_constant(root: nn.Module, target: str) -> None:
    if find(root, target) is not None:
        return
    parent, _, name = target.rpartition(".")
    owner = root.get_submodule(parent)
    value = getattr(owner, name)
    if isinstance(value, Tensor):
        delattr(owner, name)
        owner.register_buffer(name, value.detach(), persistent=False)
