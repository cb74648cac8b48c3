"""The state of objects that keep more of it than `state_dict` shows, as plain values.

TorchJD's stateful weightings and scalarisers hold part of their state in plain attributes and in
buffers that are None until the first call; `state_dict` loses the former and cannot load the
latter. These functions carry every attribute that plain values can express.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_OWN = frozenset(vars(nn.Module()))
"""Attributes every module has."""


def read_state(module: nn.Module) -> dict[str, Any]:
    """Return all attributes, buffers and parameters of a module and its children as plain values.

    What plain values cannot express (functions, solver objects) is left out: whoever builds the
    module anew builds that anew.
    """
    values: dict[str, Any] = {}
    for name, value in _attributes(module).items():
        try:
            values[name] = _encode(value)
        except TypeError:
            continue
    children = {name: read_state(child) for name, child in module.named_children()}
    return {"values": values, "children": children}


def write_state(module: nn.Module, state: dict[str, Any]) -> None:
    """Put back what `read_state` returned, into a module built the same way."""
    attributes = _attributes(module)
    for name, encoded in state["values"].items():
        current = attributes.get(name)
        value = _decode(encoded, current)
        if isinstance(current, nn.Parameter):
            with torch.no_grad():
                current.copy_(value)
        elif isinstance(current, torch.optim.Optimizer):
            current.load_state_dict(value)
        else:
            setattr(module, name, value)
    for name, child in module.named_children():
        write_state(child, state["children"][name])


def _attributes(module: nn.Module) -> dict[str, Any]:
    own = {name: value for name, value in vars(module).items() if name not in _OWN}
    return own | module._buffers | module._parameters


def _encode(value: Any) -> Any:
    """Turn a value into dicts, lists, tensors and JSON scalars.

    Raises:
        TypeError: it cannot be expressed so.
    """
    if isinstance(value, Tensor):
        return value.detach()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray):
        return {"array": torch.from_numpy(value.copy())}
    if isinstance(value, tuple | list):
        return {type(value).__name__: [_encode(item) for item in value]}
    if isinstance(value, torch.dtype | torch.device):
        return {type(value).__name__: str(value)}
    if isinstance(value, torch.optim.Optimizer):
        return {"optimizer": value.state_dict()}
    raise TypeError(type(value).__name__)


def _decode(encoded: Any, current: Any) -> Any:
    """Undo `_encode`; tensors go where the current value lives, if that is a tensor."""
    if isinstance(encoded, Tensor):
        return encoded.to(current.device) if isinstance(current, Tensor) else encoded
    if not isinstance(encoded, dict):
        return encoded
    ((kind, value),) = encoded.items()
    if kind == "array":
        return value.numpy()
    if kind == "dtype":
        return getattr(torch, value.removeprefix("torch."))
    if kind == "device":
        return torch.device(value)
    if kind == "optimizer":
        return value
    return {"tuple": tuple, "list": list}[kind](_decode(item, None) for item in value)
