"""One object that takes a step's losses to gradients, whatever the method needs.

In a loop of one's own:

    surgeon = create_surgeon(model, "pcgrad")
    optimizer = torch.optim.SGD([*model.parameters(), *surgeon.parameters()], lr=0.01)
    for images, targets in loader:
        optimizer.zero_grad()
        outputs = model(images)
        losses = {task: loss(outputs[task], targets[task]) for task in model.tasks}
        gramians = surgeon.backward(losses, measure=True)  # (L, T, T), for ConflictScores.update
        optimizer.step()
        surgeon.step()
    surgeon.finish(model)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recon_search import parallel
from recon_search.conflict.sketch import Sketch
from recon_search.methods.combiner import GradientCombiner
from recon_search.methods.gradients import (
    LockstepGradients,
    Measurement,
    SketchedGradients,
    TaskGradients,
)
from recon_search.methods.losses import Joint, Scalarised
from recon_search.methods.method import Method
from recon_search.methods.protocol import Surgeon
from recon_search.methods.registry import find_inner, find_method
from recon_search.methods.scaling import Scaling
from recon_search.methods.sharing import Sharing, TaskNetwork


def create_surgeon(
    model: TaskNetwork,
    method: str,
    options: Mapping[str, Any] | None = None,
    *,
    low_memory: bool = False,
    sketch: Sketch | None = None,
) -> Surgeon:
    """Make a method work on a model, which RotoGrad gives rotations.

    Args:
        model: any module with a branched `backbone`, `heads` by task, and `tasks`. Parameters that
            it has beside those count as used by the tasks whose losses reach them; those that do
            not require gradients now are left alone, and so is what is not the model's.
        method: the method's name.
        options: of the method.
        low_memory: where only Gramians need the tasks' gradients, take these a parameter at a time
            (see `lockstep_gramians`); measured steps are then of one batch.
        sketch: where only Gramians need the tasks' gradients, keep random projections of them and
            estimate the Gramians, with the error that `Sketch` states; in low memory too, which
            then has nothing left to save, and measured steps may be of several batches.

    Raises:
        RecipeError: the method or an option is unknown or does not fit, or a package is missing.
        TrainingError: the model does not fit.

    Examples:
        >>> import timm, torch
        >>> from recon_search import MultiTaskModel, Split, branch
        >>> backbone = timm.create_model("test_resnet", num_classes=0)
        >>> heads = {task: torch.nn.Linear(backbone.num_features, 1) for task in ("seg", "depth")}
        >>> model = MultiTaskModel(branch(backbone, Split(tuple(heads), {})), heads, {})
        >>> outputs = model(torch.randn(2, 3, 32, 32))
        >>> surgeon = create_surgeon(model, "pcgrad")
        >>> surgeon.backward({task: own.square().mean() for task, own in outputs.items()})
        >>> all(parameter.grad is not None for parameter in model.parameters())
        True
    """
    entry = find_method(method)
    complete = entry.complete(options or {})
    if entry.needs in ("Gramian", "gradients"):
        return GradientCombiner(model, method, complete)
    if entry.needs == "features":
        name = find_inner(entry, complete).name
        inner = create_surgeon(model, name, low_memory=low_memory, sketch=sketch)
        surgeon: Surgeon = entry.create(model, inner, options=complete)
        return surgeon
    return _create_on_losses(model, entry, complete, low_memory, sketch)


def _create_on_losses(
    model: TaskNetwork,
    entry: Method,
    options: Mapping[str, Any],
    low_memory: bool,
    sketch: Sketch | None,
) -> Joint:
    sharing, scaling = Sharing(model), Scaling()
    n_tasks = len(model.tasks)
    measurement: Measurement = TaskGradients(sharing.parameters, sharing.layers, n_tasks, scaling)
    if sketch is not None:
        blocks = [[copy.parameters for copy in own] for own in model.backbone.layers().values()]
        measurement = SketchedGradients(sharing.parameters, blocks, n_tasks, sketch, scaling)
    elif low_memory and parallel.size() == 1:  # it would see one process's part of the gradients
        measurement = LockstepGradients(sharing.layers, n_tasks)
    if entry.needs == "nothing":
        return Joint(model, sharing, measurement, scaling)
    with next(model.parameters()).device:
        scalariser = entry.create(tuple(model.tasks), options=options)
    return Scalarised(model, sharing, measurement, entry.name, scalariser, scaling)
