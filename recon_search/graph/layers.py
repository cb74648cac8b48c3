"""The splittable layers of a backbone.

A layer is the smallest module that directly owns trainable parameters (a convolution, a linear map,
a norm), its weight and bias taken together. A parameter that a composite module owns directly
(`cls_token`, `pos_embed`, a layer-scale `gamma`) is a layer of its own, under its own name. The
order is that of first use in the graph of the training forward pass; what that graph never uses is
no layer. A tensor with several names (tied weights) belongs to the layer that its first name gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from recon_search.artefact import digest
from recon_search.errors import BackboneError
from recon_search.graph.admission import copy_of, is_sharded, is_wrapper
from recon_search.graph.trace import Trace, is_metadata, trace


@dataclass(frozen=True)
class LayerInfo:
    """One row of a table of layers.

    Attributes:
        name: qualified name.
        type: class of the module, or `Parameter` for one owned by a composite module.
        shape: of its first parameter, as a rule the weight.
        n_parameters: over all its parameters.
        is_norm: whether it is a normalisation layer.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    n_parameters: int
    is_norm: bool


def layers(module: nn.Module, *, example: Any = None) -> dict[str, list[nn.Parameter]]:
    """Return the splittable layers of `module` in order of first use.

    Args:
        module: a backbone, or a branched one; left untouched.
        example: what it is called with, as for `branch`; only some modules need one.

    Returns:
        the parameters of each layer, the very objects of `module`; at least one. Of a branched
        one those of all copies, under the plain backbone's names.

    Raises:
        BackboneError: the module cannot be traced, or nothing in it is trained.

    Examples:
        >>> import timm
        >>> list(layers(timm.create_model("test_resnet", num_classes=0)))[:3]
        ['conv1.0', 'conv1.1', 'conv1.3']
    """
    if _is_branched(module):
        found: dict[str, list[nn.Parameter]] = module.layer_parameters()  # type: ignore[operator]
        return found
    names = _some_layers(trace(module, example))
    return {layer: [module.get_parameter(name) for name in own] for layer, own in names.items()}


def _is_branched(module: nn.Module) -> bool:
    """Whether a module has copies of layers; wrappers pass on what they are asked."""
    if not isinstance(module, nn.Module) or is_wrapper(module) or is_sharded(module):
        return False
    return callable(getattr(module, "layer_parameters", None))


def _some_layers(traced: Trace) -> dict[str, tuple[str, ...]]:
    """Return what `layer_names` does, or say why there is nothing."""
    names = layer_names(traced)
    if not names:
        parameters = list(traced.root.parameters())
        is_frozen = parameters and not any(p.requires_grad for p in parameters)
        raise BackboneError(
            f"A backbone must have a trainable layer in use, {type(traced.root).__name__} has "
            f"{len(parameters)} parameters and {'all are frozen' if is_frozen else 'uses none'}. "
            "Call requires_grad_(True) on what is to be trained."
        )
    return names


def describe(module: nn.Module, *, example: Any = None) -> list[LayerInfo]:
    """Return type, shape and parameter count of each splittable layer, in order of first use.

    Of a branched backbone, or a model with one, the parameters of all copies count.

    Raises:
        BackboneError: the module cannot be traced, or nothing in it is trained.
    """
    if _is_branched(module):
        branched: Any = getattr(module, "backbone", module)  # a model's, which has heads beside it
        return _describe(layers(module), branched.blueprint.template)
    return describe_traced(trace(module, example))


def describe_traced(traced: Trace) -> list[LayerInfo]:
    """Do what `describe` does for a module that is traced already."""
    own = {
        layer: [traced.root.get_parameter(name) for name in names]
        for layer, names in _some_layers(traced).items()
    }
    return _describe(own, traced.root)


def _describe(
    parameters_by_layer: Mapping[str, list[nn.Parameter]], root: nn.Module
) -> list[LayerInfo]:
    modules = dict(root.named_modules())
    rows = []
    for layer, parameters in parameters_by_layer.items():
        kind = type(modules[layer]).__name__ if layer in modules else "Parameter"
        size = sum(parameter.numel() for parameter in parameters)
        rows.append(LayerInfo(layer, kind, tuple(parameters[0].shape), size, "Norm" in kind))
    return rows


def layer_names(traced: Trace, *, frozen: bool = False) -> dict[str, tuple[str, ...]]:
    """Return the first names of the parameters of each splittable layer, in order of first use.

    Args:
        traced: the module.
        frozen: count what is not trained, too. A layer is called alike whatever else is frozen.
    """
    every = dict(traced.root.named_parameters())
    counted = {n: p for n, p in every.items() if frozen or p.requires_grad}
    owners = {name.rpartition(".")[0] for name in every}
    composite = {owner for owner in owners if any(_is_inside(other, owner) for other in owners)}
    used = dict.fromkeys(n for node in traced.graphs[True].nodes for n in traced.uses(node))
    found: dict[str, list[str]] = {}
    for name in used:
        if name in counted:
            owner = name.rpartition(".")[0]
            found.setdefault(name if owner in composite or not owner else owner, []).append(name)
    order = {name: index for index, name in enumerate(counted)}
    return {layer: tuple(sorted(names, key=order.__getitem__)) for layer, names in found.items()}


def _is_inside(path: str, parent: str) -> bool:
    return path != parent and path.startswith(f"{parent}." if parent else "")


def backbone_digest(module: nn.Module, *, example: Any = None) -> str:
    """Return a digest of the names and shapes of the layers, blind to input channels and classes.

    Frozen layers count as the others do: what is split may be trained with some of it frozen.

    Left out are the classifier (what timm's `reset_classifier(0)` removes) and the second
    dimension, the input channels, of weights that read the input with no other layer in between.

    Raises:
        BackboneError: the module cannot be traced.
    """
    return digest_of(trace(module, example))


def digest_of(traced: Trace) -> str:
    """Do what `backbone_digest` does for a module that is traced already."""
    bare = copy_of(traced.root)
    reset = getattr(bare, "reset_classifier", None)
    if callable(reset):
        reset(0)
    if dict(bare.named_parameters()).keys() != dict(traced.root.named_parameters()).keys():
        traced = trace(bare, traced.example)  # what stood behind the classifier may change, too
    readers = _input_readers(traced)
    shapes = {
        layer: [_shape(traced.root.get_parameter(name), name in readers) for name in names]
        for layer, names in layer_names(traced, frozen=True).items()
    }
    return digest(shapes)


def _shape(parameter: nn.Parameter, reads_input: bool) -> list[int]:
    shape = list(parameter.shape)
    return shape[:1] + shape[2:] if reads_input else shape


def _input_readers(traced: Trace) -> set[str]:
    """Return the first names of the tensors that meet the raw input.

    They may be computed with before that, as standardised weights are.
    """
    raw: set[fx.Node] = set()
    computed_from: dict[fx.Node, set[str]] = {}
    readers: set[str] = set()
    for node in traced.graphs[True].nodes:
        inputs = node.all_input_nodes
        names = set(traced.uses(node)).union(*(computed_from.get(n, set()) for n in inputs))
        if node.op == "placeholder":
            raw.add(node)
        elif raw.isdisjoint(inputs):
            if all(n in computed_from for n in inputs):
                computed_from[node] = names
        elif names:
            readers |= names
        elif not is_metadata(node):
            raw.add(node)
    return readers
