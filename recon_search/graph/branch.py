"""Building a branched backbone from a backbone and a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from recon_search.errors import BackboneError, SplitError
from recon_search.graph.blueprint import Blueprint
from recon_search.graph.branched import BranchedBackbone
from recon_search.graph.example import example_input
from recon_search.graph.fixed import Part
from recon_search.graph.layers import layer_names
from recon_search.graph.layout import Layout, lay_out
from recon_search.graph.mutation import watch
from recon_search.graph.partition import blocks, from_groups, is_refinement
from recon_search.graph.split import Split
from recon_search.graph.tensors import find, fresh, named_tensors, on_meta, place, with_tensors
from recon_search.graph.trace import Trace, trace


def branch(
    backbone: nn.Module,
    split: Split,
    tasks: Sequence[str] | None = None,
    *,
    example: Tensor | None = None,
) -> BranchedBackbone:
    """Rewrite `backbone` so that every layer of `split` has one copy per group of tasks.

    Copies start equal to the backbone. With nothing split the network is bit-equal to the backbone.

    The backbone is followed in both modes as a whole: a part of it that is in another mode stays so
    if it is a module of torch.nn or one that timm keeps from being traced (its BatchNorms and drop
    layers), and follows the network otherwise. Gradient checkpointing is not carried over.

    Args:
        backbone: an unsplit backbone, or a branched one to be split further; left untouched.
        split: the plan.
        tasks: carry the plan over to these tasks first (`Split.for_tasks`).
        example: an input the backbone accepts, run once to find in-place operations; made from the
            backbone's configuration if None.

    Returns:
        a network in the mode of `backbone`, sharing no tensor with it.

    Raises:
        SplitError: the split does not fit the backbone, or does not refine the split it has.
        BackboneError: the backbone's graph cannot be taken apart.
    """
    if tasks is not None:
        split = split.for_tasks(tasks)
    plain = backbone
    if isinstance(backbone, BranchedBackbone):
        plain = backbone.single(backbone.tasks[0])
    traced, layout, _ = plan(plain, split, example)
    keys = {key: traced.names[key] for key in plain.state_dict()}
    template = with_tensors(
        plain, {name: on_meta(tensor) for name, tensor in named_tensors(plain).items()}
    )
    blueprint = Blueprint(layout, traced.graphs, layer_names(traced), keys, template)
    value = _values(backbone, traced, layout)
    network = BranchedBackbone(split, blueprint, *_grow(traced, layout, value))
    network.training = plain.training
    return network


def plan(
    backbone: nn.Module, split: Split, example: Tensor | None = None
) -> tuple[Trace, Layout, Tensor]:
    """Trace an unsplit backbone and find out who shares what when `split` is applied to it.

    Returns:
        the trace, the layout and the example, made from the backbone's configuration if not given.

    Raises:
        SplitError: the split does not fit the backbone.
        BackboneError: the backbone's graph cannot be taken apart.
    """
    traced = trace(backbone, example)
    split.check_trace(traced)
    layers = layer_names(traced)
    example = example_input(backbone) if example is None else example
    effects = {training: watch(traced, training, example) for training in traced.graphs}
    partitions = {
        name: from_groups(groups, split.tasks)
        for layer, groups in split.layers.items()
        for name in layers[layer]
    }
    return traced, lay_out(traced, effects, split.tasks, partitions), example


def _values(backbone: nn.Module, traced: Trace, layout: Layout) -> Callable[[str, int], Tensor]:
    """Return where the first value of a task's tensor comes from."""
    own = named_tensors(traced.root)
    if not isinstance(backbone, BranchedBackbone):
        return lambda name, position: own[name]
    old = backbone.blueprint.layout
    if old.tasks != layout.tasks:
        raise SplitError(
            f"A branched backbone must keep its tasks {list(old.tasks)} when it is split further, "
            f"got {list(layout.tasks)}. Use the same tasks."
        )
    for name, partition in old.tensors.items():
        if name in layout.tensors and not is_refinement(layout.tensors[name], partition):
            raise SplitError(
                f"A further split must keep what is split already, '{name}' is split into "
                f"{old.groups(name)} and would become {layout.groups(name)}. Add its layer."
            )
    paths = [backbone.path(task) for task in layout.tasks]
    for path in paths:
        path.check()
        for name in old.tensors:
            if path.is_computed(name):
                raise BackboneError(
                    f"A backbone must keep its weights to be split further, '{name}' is computed "
                    "from others since a module was changed. Undo that, or split first."
                )
    return lambda name, position: paths[position].read(name) if name in old.tensors else own[name]


def _grow(
    traced: Trace, layout: Layout, value: Callable[[str, int], Tensor]
) -> tuple[nn.Module, nn.Module]:
    """Build the module trees: every copy of every tensor, and the leaf modules around them."""
    root = traced.root
    tensors = {
        layout.home(name, block[0]): fresh(value(name, block[0]))
        for name, partition in layout.tensors.items()
        for block in blocks(partition)
    }
    tree = Part()
    place(tree, "shared", Part())
    place(tree, "branches", Part())
    # Large groups first, so that the first name of a shared tensor is the one where it lives.
    groups = {block for partition in layout.tensors.values() for block in blocks(partition)}
    for group in sorted(groups, key=lambda group: (-len(group), group)):
        if len(group) < len(layout.tasks):
            place(tree, layout.tree(group), Part())
    for target in sorted(layout.modules, key=lambda target: target.count(".")):
        leaf = root.get_submodule(target)
        for block in blocks(layout.modules[target]):
            home = layout.home(target, block[0])
            if find(tree, home) is None:
                own = {
                    name: tensors[layout.home(traced.names[f"{target}.{name}"], block[0])]
                    for name in named_tensors(leaf)
                }
                place(tree, home, with_tensors(leaf, own))
    for name, partition in layout.tensors.items():
        for block in blocks(partition):
            home = layout.home(name, block[0])
            if find(tree, home) is None:
                place(tree, home, tensors[home], persistent=_is_persistent(root, name))
    return tree.get_submodule("shared"), tree.get_submodule("branches")


def _is_persistent(root: nn.Module, name: str) -> bool:
    owner, _, buffer = name.rpartition(".")
    return buffer not in root.get_submodule(owner)._non_persistent_buffers_set
