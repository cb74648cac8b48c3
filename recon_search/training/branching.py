"""A training that goes on in a network with more copies: its state carried over, copy by copy.

Copies start equal, so the network computes what it computed. At the switch, up to rounding,

- outputs, losses and metrics are those of the network before, in both modes;
- a parameter that is not split has the same gradient, and so the same next step, whatever the
  optimiser, as long as nothing looks at all gradients at once (`train.clip_grad`, methods on
  gradients or Gramians, which combine those of shared parameters alone);
- the gradients of a parameter's copies add up to its gradient before, each the part of the tasks
  that share the copy (of methods that sum the tasks' losses with weights);
- by optimisers that are linear in the gradient (SGD with momentum and weight decay), what the
  copies' next steps add to the step without a gradient adds up to what it was.

Every copy takes the moments of what it is a copy of: those of all tasks together. So after the
switch the second moments of Adam and its kin are too large for a copy's smaller gradients, and its
steps too short, until they have faded: 1 / (1 - beta2) steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from recon_search.errors import RecipeError, TrainingError
from recon_search.graph.partition import blocks
from recon_search.methods.surgeon import create_surgeon
from recon_search.model.network import MultiTaskModel
from recon_search.recipe import TrainConfig
from recon_search.training.optimisation import create_optimizer

REMEMBERS = frozenset({"excess-mtl"})
"""Methods that remember gradients of the shared parameters, which are others after a split."""

MODELS = ("model", "average", "best")
"""Parts of a training's state that are tensors by the names of the network."""


def branch_state(
    state: Mapping[str, Any],
    before: MultiTaskModel,
    after: MultiTaskModel,
    config: TrainConfig,
    scores: Mapping[str, Tensor] | None = None,
) -> dict[str, Any]:
    """Turn the state of a training into that of one that goes on in a network split further.

    With nothing split the state stays as it is, but for conflict scores: those so far are of the
    network before.

    Args:
        state: what the checkpoint after an epoch holds.
        before: a network like the one that was trained, with whatever weights; changed by methods
            that turn features.
        after: one like the one that goes on, likewise.
        config: of the training, which stays the same.
        scores: tensors of those that go on; None measures nothing.

    Raises:
        RecipeError: the method remembers what belongs to the parameters that were shared.
        TrainingError: the optimiser treats the copies of a parameter unlike each other.
    """
    check_method_state(state["method"], config.method, len(before.tasks))
    indices, groups = [], []
    for model in (before, after):
        surgeon = create_surgeon(model, config.method, config.options)
        learned = list(surgeon.parameters())
        optimizer = create_optimizer(model, config, learned)
        names = {parameter: name for name, parameter in model.named_parameters()}
        names |= {parameter: f"method {place}" for place, parameter in enumerate(learned)}
        own = [[names[parameter] for parameter in g["params"]] for g in optimizer.param_groups]
        groups.append(own)
        indices.append({name: i for i, name in enumerate(name for group in own for name in group)})
    source = sources(before, after)
    carried = {
        part: {name: state[part][source.get(name, name)] for name in after.state_dict()}
        for part in MODELS
        if state.get(part) is not None
    }
    optimizer_state = _carry_optimizer(state["optimizer"], source, indices, groups)
    return {**state, **carried, "optimizer": optimizer_state, "scores": dict(scores or {})}


def sources(before: MultiTaskModel, after: MultiTaskModel) -> dict[str, str]:
    """Say for each tensor of the later backbone of which one of the earlier it is a copy."""
    old, new = before.backbone.blueprint.layout, after.backbone.blueprint.layout
    return {
        f"backbone.{new.home(name, block[0])}": f"backbone.{old.home(name, block[0])}"
        for name, partition in new.tensors.items()
        for block in blocks(partition)
    }


def check_goes_on(method: str, options: Mapping[str, Any]) -> None:
    """Refuse a method that cannot go on, before anything is trained (see `check_method_state`).

    Raises:
        RecipeError: naming it, or the one that it is made of.
    """
    for name in (method, options.get("weighting")):
        if name in REMEMBERS:
            raise RecipeError(_refusal(name))


def check_method_state(state: Any, method: str, n_tasks: int) -> None:
    """Refuse a method that remembers something as large as the shared parameters.

    Weights, losses and inner products of tasks go on, and so do the rotations of features.

    Raises:
        RecipeError: naming the method.
    """
    combiner = state.get("combiner", state) if isinstance(state, Mapping) else {}
    for tensor in _tensors(combiner.get("operators", [])):
        if any(size > n_tasks for size in tensor.shape):
            raise RecipeError(_refusal(method))


def _refusal(method: str) -> str:
    return (
        f"A method must go on in a split network, '{method}' remembers gradients of the shared "
        'parameters, which are others then. Set `split.when` "before" and `compare.during` false, '
        "or choose another method."
    )


def _carry_optimizer(
    saved: Mapping[str, Any],
    source: Mapping[str, str],
    indices: list[dict[str, int]],
    groups: list[list[list[str]]],
) -> dict[str, Any]:
    """Give every parameter the optimiser's state of its source, and every group its settings."""
    old, new = indices
    home = {name: place for place, names in enumerate(groups[0]) for name in names}
    found = []
    for names in groups[1]:
        of = {home[source.get(name, name)] for name in names}
        if len(of) != 1:
            raise TrainingError(
                "The copies of a parameter must be trained as it was, the optimiser would put "
                f"'{names[0]}' and others of its group into {len(of)} groups. Choose another "
                "train.optimizer, or train.layer_decay 1."
            )
        settings = {k: v for k, v in saved["param_groups"][of.pop()].items() if k != "params"}
        found.append({**settings, "params": [new[name] for name in names]})
    numbers = {new[name]: old[source.get(name, name)] for name in new}
    state = {key: own for key, own in saved["state"].items() if not isinstance(key, int)}
    for number, origin in numbers.items():
        if origin in saved["state"]:
            state[number] = _copied(saved["state"][origin])
    return {**saved, "state": state, "param_groups": found}


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    return {key: _copied(own) for key, own in value.items()} if isinstance(value, dict) else value


def _tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor of nested dicts and lists."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for own in value.values():
            yield from _tensors(own)
    elif isinstance(value, list | tuple):
        for own in value:
            yield from _tensors(own)
