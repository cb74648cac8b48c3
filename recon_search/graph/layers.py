"""The splittable layers of a backbone.

A layer is the smallest module that directly owns trainable parameters (a convolution, a linear map,
a norm), its weight and bias taken together. A parameter that a composite module owns directly
(`cls_token`, `pos_embed`, a layer-scale `gamma`) is a layer of its own, under its own name. The
order is that of first use in the graph of the training forward pass; what that graph never uses is
no layer. A tensor with several names (tied weights) belongs to the layer that its first name gives.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx, nn

from recon_search.artefact import digest
from recon_search.graph.tensors import with_tensors
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


def layers(module: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Return the splittable layers of `module` in order of first use.

    Args:
        module: a backbone that torch.fx can trace, or a branched one; left untouched.

    Returns:
        the parameters of each layer, the very objects of `module`. Of a branched one those of all
        copies, under the plain backbone's names.

    Raises:
        BackboneError: the module cannot be traced.
    """
    if callable(of_copies := getattr(module, "layer_parameters", None)):
        found: dict[str, list[nn.Parameter]] = of_copies()
        return found
    return {
        layer: [module.get_parameter(name) for name in names]
        for layer, names in layer_names(trace(module)).items()
    }


def describe(module: nn.Module) -> list[LayerInfo]:
    """Return type, shape and parameter count of each splittable layer, in order of first use.

    Of a branched backbone the parameters of all copies count.

    Raises:
        BackboneError: the module cannot be traced.
    """
    rows = []
    blueprint = getattr(module, "blueprint", None)
    parts = dict((blueprint.template if blueprint else module).named_modules())
    for layer, parameters in layers(module).items():
        kind = type(parts[layer]).__name__ if layer in parts else "Parameter"
        size = sum(parameter.numel() for parameter in parameters)
        rows.append(LayerInfo(layer, kind, tuple(parameters[0].shape), size, "Norm" in kind))
    return rows


def layer_names(traced: Trace) -> dict[str, tuple[str, ...]]:
    """Return the first names of the parameters of each splittable layer, in order of first use."""
    trainable = {n: p for n, p in traced.root.named_parameters() if p.requires_grad}
    owners = {name.rpartition(".")[0] for name in trainable}
    composite = {owner for owner in owners if any(_is_inside(other, owner) for other in owners)}
    used = dict.fromkeys(n for node in traced.graphs[True].nodes for n in traced.uses(node))
    found: dict[str, list[str]] = {}
    for name in used:
        if name in trainable:
            owner = name.rpartition(".")[0]
            found.setdefault(name if owner in composite or not owner else owner, []).append(name)
    order = {name: index for index, name in enumerate(trainable)}
    return {layer: tuple(sorted(names, key=order.__getitem__)) for layer, names in found.items()}


def _is_inside(path: str, parent: str) -> bool:
    return path != parent and path.startswith(f"{parent}." if parent else "")


def backbone_digest(module: nn.Module) -> str:
    """Return a digest of the names and shapes of the layers, blind to input channels and classes.

    Left out are the classifier (what timm's `reset_classifier(0)` removes) and the second
    dimension, the input channels, of weights that read the input with no other layer in between.

    Raises:
        BackboneError: the module cannot be traced.
    """
    bare = with_tensors(module, {})
    reset = getattr(bare, "reset_classifier", None)
    if callable(reset):
        reset(0)
    traced = trace(bare)
    readers = _input_readers(traced)
    shapes = {
        layer: [_shape(traced.root.get_parameter(name), name in readers) for name in names]
        for layer, names in layer_names(traced).items()
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
