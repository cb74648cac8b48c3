"""The first front end's tracer: torch.fx, with what it loses by itself put right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from timm.models import get_notrace_functions, get_notrace_modules
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from recon_search.graph.exported import detach
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

    def call_module(
        self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Follow a slice of a `Sequential`, which is no module of the root, into its parts."""
        is_slice = type(m) is nn.Sequential and m not in (self.submodule_paths or {})
        if is_slice and not m._forward_hooks and not m._forward_pre_hooks:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

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


def _is_trainable(parameters: Iterable[nn.Parameter]) -> bool:
    return any(parameter.requires_grad for parameter in parameters)
