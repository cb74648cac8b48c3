"""Attributes of a plain backbone that a graph has fixed: never changed without a word."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from recon_search.errors import BackboneError

METADATA = ("default_cfg", "pretrained_cfg", "feature_info", "_model_args", "_traits")
"""What timm's models say of themselves beside what they compute; may be set at any time."""


class Part(nn.Module):
    """A module in the place of one of the plain backbone, whose code ran when it was traced.

    It has the submodules and tensors that the graph calls and reads. What else the plain module
    has cannot be set here, for nothing would read it.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute.

        Raises:
            BackboneError: it is one that the graph has fixed.
        """
        if name in self.__dict__.get("__fixed__", ()):
            raise BackboneError(
                "What a backbone's graph has read is fixed once it is branched, got "
                f"'{name}' set afterwards. Set it on the plain backbone and branch that."
            )
        super().__setattr__(name, value)

    def fix(self, names: Iterable[str]) -> None:
        """Refuse from now on that any of these attributes is set."""
        self.__dict__["__fixed__"] = frozenset(names)


def fix(tree: nn.Module, plain: nn.Module) -> None:
    """Fix what every `Part` in `tree` has no tensor or module for, and its plain module has."""
    parts = dict(plain.named_modules(remove_duplicate=False))
    for name, part in tree.named_modules():
        if isinstance(part, Part):
            own = {*part._modules, *part._parameters, *part._buffers}
            part.fix(attributes(parts[name]) - own)


def attributes(module: nn.Module) -> set[str]:
    """Name all attributes of a module that not every module has."""
    return {*dir(module)} - {*dir(nn.Module())}


def data(module: nn.Module) -> dict[str, Any]:
    """Return the attributes of a module that are neither modules, tensors nor functions."""
    found = {}
    for name in sorted(attributes(module)):
        try:
            value = getattr(module, name)
        except Exception:  # whatever a property raises on a module without memory
            continue
        dull = callable(value) or isinstance(value, nn.Module | Tensor)
        if not dull and not name.startswith("__"):
            found[name] = value
    return found
