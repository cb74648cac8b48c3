"""One task's way through a branched network: the modules it calls and the tensors it reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recon_search.errors import BackboneError
from recon_search.graph.blueprint import Blueprint
from recon_search.graph.changes import replaced, stranger, trained, value
from recon_search.graph.partition import blocks
from recon_search.graph.tensors import find, fresh, named_tensors, place, with_tensors

_COUNT = ".num_batches_tracked"  # frozen norms keep none


@dataclass(frozen=True)
class Path:
    """The path of the task at a position.

    Attributes:
        network: as it is now, maybe with modules changed after branching.
        blueprint: what it was built from.
        position: of the task.
    """

    network: nn.Module
    blueprint: Blueprint
    position: int

    def places(self, name: str) -> list[str]:
        """Say where a tensor of the plain backbone is read, or where it is kept if nowhere."""
        layout = self.blueprint.layout
        home = layout.home(name, self.position)
        return [
            f"{layout.home(target, self.position)}.{inner}" if target else home
            for target, inner in self.blueprint.readers.get(name, ())
        ] or [home]

    def read(self, name: str) -> Tensor:
        """Return a tensor of the plain backbone as the forward pass reads it now.

        Raises:
            BackboneError: a module that had it was replaced, or has another than its namesakes.
        """
        places = self.places(name)
        found = [value(self.network, path) for path in places]
        tensor = found[0]
        if tensor is None and name.endswith(_COUNT):
            return torch.zeros((), dtype=torch.long, device=next(self.network.parameters()).device)
        for other, path in zip(found, places, strict=True):
            if tensor is None or other is None:
                raise BackboneError(
                    f"A task's weights must be those of the plain backbone, '{name}' is no longer "
                    f"at '{path}' since a module was replaced. Undo that, or change the plain "
                    "backbone and branch that."
                )
            if other is not tensor and not torch.equal(other, tensor):
                raise BackboneError(
                    f"A tensor with several names must be one, '{name}' has two values since a "
                    "module was changed. Change the plain backbone and branch that."
                )
        assert tensor is not None
        return tensor

    def kept(self, name: str) -> list[Tensor]:
        """Return every tensor to write into for this task, and all that share it, to read another.

        Raises:
            BackboneError: it is computed from others since a module was changed.
        """
        layout = self.blueprint.layout
        partition = layout.tensors[name]
        sharing = (i for i, label in enumerate(partition) if label == partition[self.position])
        paths = {path for i in sharing for path in self._of(i).places(name)}
        found = {path: find(self.network, path) for path in sorted(paths)}
        for path, tensor in found.items():
            if tensor is None and not name.endswith(_COUNT):
                raise BackboneError(
                    f"Weights must be loaded where they are kept, '{path}' is computed from others "
                    "since its module was changed. Load them before, or undo the change."
                )
        found[""] = find(self.network, layout.home(name, self.position))
        return list({id(t): t for t in found.values() if isinstance(t, Tensor)}.values())

    def is_computed(self, name: str) -> bool:
        """Tell whether the forward pass computes a tensor of the plain backbone from others."""
        return any(
            find(self.network, path) is None and value(self.network, path) is not None
            for path in self.places(name)
        )

    def check(self) -> None:
        """Make sure that no module was replaced by one with tensors that no plain one has.

        Raises:
            BackboneError: one was.
        """
        for target, now, before in self._called():
            if found := stranger(now, before):
                raise BackboneError(
                    "A task's weights must be those of the plain backbone, which has no "
                    f"'{target}.{found[0]}' (of a {type(found[1]).__name__}). Merge it into the "
                    "module that was there, or change the plain backbone and branch that."
                )

    def single(self) -> nn.Module:
        """Return the plain backbone with copies of this path's tensors (see `read`).

        Raises:
            BackboneError: it has other tensors.
        """
        self.check()
        template = self.blueprint.template
        own = {}
        for name, tensor in named_tensors(template).items():
            if name in self.blueprint.layout.tensors:
                own[name] = fresh(self.read(name))
                if isinstance(tensor, nn.Parameter) and not isinstance(own[name], nn.Parameter):
                    own[name] = nn.Parameter(own[name], tensor.requires_grad)
        model = with_tensors(template, own)
        for target, now, before in self._called():
            for path, module in replaced(now, before):
                place(model, f"{target}.{path}".rstrip("."), with_tensors(module, {}))
        return model

    def _of(self, position: int) -> Path:
        return Path(self.network, self.blueprint, position)

    def _called(self) -> Iterator[tuple[str, nn.Module, nn.Module]]:
        """Yield the modules that are called: plain name, as it is, as it was."""
        layout = self.blueprint.layout
        for target in layout.modules:
            now = find(self.network, layout.home(target, self.position))
            assert isinstance(now, nn.Module)
            yield target, now, self.blueprint.template.get_submodule(target)


def parameters(
    network: nn.Module, blueprint: Blueprint, names: Sequence[str], positions: Sequence[int]
) -> list[nn.Parameter]:
    """Return what trains the tensors of a layer's copy that the tasks at some positions share."""
    layout = blueprint.layout
    found: dict[nn.Parameter, None] = {}
    for name in names:
        called = [(target, inner) for target, inner in blueprint.readers.get(name, ()) if target]
        for target, inner in called:
            part = f"{target}.{inner}".rpartition(".")[0]
            before = blueprint.template.get_submodule(part)
            for block in blocks(layout.modules[target], positions):
                path = f"{layout.home(target, block[0])}.{inner}"
                found.update(dict.fromkeys(trained(network, path, before)))
        if not called:
            home = layout.home(name, positions[0])
            found.update(dict.fromkeys(trained(network, home, None)))
    return list(found)
