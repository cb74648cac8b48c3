"""Building a branched backbone from a backbone and a split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from recon_search.errors import BackboneError, SplitError
from recon_search.graph.analysis import Analysis, analyse
from recon_search.graph.blueprint import Blueprint
from recon_search.graph.branched import BranchedBackbone
from recon_search.graph.calls import Reads
from recon_search.graph.checkpointing import find_cuts
from recon_search.graph.fixed import Part
from recon_search.graph.layout import Layout
from recon_search.graph.partition import blocks, is_refinement
from recon_search.graph.split import Split
from recon_search.graph.tensors import find, fresh, named_tensors, on_meta, place, with_tensors
from recon_search.graph.trace import Trace


def branch(
    backbone: nn.Module,
    split: Split,
    tasks: Sequence[str] | None = None,
    *,
    call: str | Mapping[str, Reads] | None = None,
    levels: Sequence[int] | None = None,
    example: Any = None,
    analysis: Analysis | None = None,
) -> BranchedBackbone:
    """Rewrite `backbone` so that every layer of `split` has one copy per group of tasks.

    Copies start equal to the backbone. With nothing split the network is bit-equal to the backbone.

    The backbone is followed in both modes as a whole: a part of it that is in another mode stays so
    if it is a module of torch.nn or one that timm keeps from being traced (its BatchNorms and drop
    layers), and follows the network otherwise. Gradient checkpointing is not carried over: the
    network has its own (`set_grad_checkpointing`).

    Args:
        backbone: an unsplit backbone, or a branched one to be split further; left untouched.
        split: the plan.
        tasks: carry the plan over to these tasks first (`Split.for_tasks`).
        call: what tasks get: `forward`, what the backbone gives; `pyramid`, the list of maps that
            timm's `forward_intermediates` gives; or for each task whether it reads the `vector` or
            the `pyramid`, both computed in one pass. If None as a branched backbone has it, or
            `forward`.
        levels: which of timm's intermediate features make the pyramid, by index. If None the last
            of each size; of a backbone whose features have one size, such as a ViT, four at even
            distances.
        example: what the backbone is called with (a tensor, a tuple of its arguments, a dict of
            them by name), run once to find in-place operations; made from the backbone's
            configuration if None. A backbone with several inputs needs one.
        analysis: of a backbone that differs from this one in its weights alone; saves following it.
            What tasks get is then what it was made for.

    Returns:
        a network in the mode of `backbone`, sharing no tensor with it.

    Raises:
        SplitError: the split does not fit the backbone, or does not refine the split it has.
        BackboneError: the backbone's graph cannot be taken apart.

    Examples:
        >>> import timm, torch
        >>> backbone = timm.create_model("test_resnet", num_classes=0)
        >>> split = Split.private(["conv1.0"], ["seg", "depth"])
        >>> network = branch(backbone, split)
        >>> {task: found.shape for task, found in network(torch.ones(2, 3, 64, 64)).items()}
        {'seg': torch.Size([2, 96]), 'depth': torch.Size([2, 96])}
        >>> backbone.load_state_dict(network.task_state_dict("seg"))
        <All keys matched successfully>
    """
    if tasks is not None:
        split = split.for_tasks(tasks)
    plain = backbone
    if isinstance(backbone, BranchedBackbone):
        plain = backbone.single(backbone.tasks[0])
    if analysis is None:
        reads, levels = _settle(call, levels, backbone, split.tasks)
        known = analyse(plain, example, call=reads, levels=levels)
    else:
        known = analysis
    traced, layout = known.trace, known.lay_out(split)
    keys = {key: traced.names[key] for key in plain.state_dict()}
    template = with_tensors(
        plain, {name: on_meta(tensor) for name, tensor in named_tensors(plain).items()}
    )
    cuts = {mode: find_cuts(graph, known.effects[mode]) for mode, graph in traced.graphs.items()}
    blueprint = Blueprint(layout, traced.graphs, known.layers, keys, template, cuts, traced.call)
    value = _values(backbone, plain, traced, layout)
    network = BranchedBackbone(split, blueprint, *_grow(traced, layout, value))
    network.training = plain.training
    return network


def _settle(
    call: str | Mapping[str, Reads] | None,
    levels: Sequence[int] | None,
    backbone: nn.Module,
    tasks: Sequence[str],
) -> tuple[dict[str, Reads], Sequence[int] | None]:
    """Return what each task reads, and the levels of the pyramid.

    Raises:
        BackboneError: tasks are missing or unknown, or the call is.
    """
    if call is None and isinstance(backbone, BranchedBackbone):
        old = backbone.tasks
        call = {task: backbone.reads(task if task in old else old[0]) for task in tasks}
        levels = levels or backbone.blueprint.call.indices or None
    if isinstance(call, Mapping):
        if {*call} != {*tasks}:
            raise BackboneError(
                f"What is read must be given for each task of {list(tasks)}, got it for "
                f"{list(call)}. Name them all."
            )
        return {task: call[task] for task in tasks}, levels
    known: dict[str | None, Reads] = {
        None: "vector",
        "forward": "vector",
        "pyramid": "pyramid",
    }
    if call not in known:
        raise BackboneError(
            f"What tasks get must be forward, pyramid, or vector or pyramid by task, got {call!r}. "
            "Name one."
        )
    return dict.fromkeys(tasks, known[call]), levels


def _values(
    backbone: nn.Module, plain: nn.Module, traced: Trace, layout: Layout
) -> Callable[[str, int], Tensor]:
    """Return where the first value of a task's tensor comes from; constants are the trace's own."""
    own = named_tensors(traced.root) | named_tensors(plain)
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
