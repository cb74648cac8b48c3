"""What `validate` looks at, and every command before it begins."""

from __future__ import annotations

from recon_search.conflict.rules import find_rule
from recon_search.conflict.sums import bins_below
from recon_search.errors import RecipeError, nearest
from recon_search.methods.registry import check_method, find_method
from recon_search.model.backbone import check_weights
from recon_search.model.heads import create_heads
from recon_search.model.room import check_room
from recon_search.model.rotation import refuse_pyramids
from recon_search.recipe import Recipe
from recon_search.runs.paired import detectable
from recon_search.runs.run import Run
from recon_search.search.space import check_space
from recon_search.stages.baselines import judged_tasks
from recon_search.stages.borrow import borrowed_splits
from recon_search.stages.split import check_k, reading_of
from recon_search.training.branching import check_goes_on
from recon_search.training.optimisation import check_optimizer

MOST_UNTOLD = 2
"""Seeds with which hardly any difference is told from chance."""


def check(run: Run) -> int:
    """Find what would end a run later: names, data, weights, images; returns the layer count.

    Nothing is trained and nothing is written. The backbone is made once, with random weights.

    Raises:
        ReconSearchError: the first thing that does not fit.
    """
    recipe = run.recipe
    searched = check_space(recipe)
    for each in (recipe, *searched):
        _check_names(each)
    judged_tasks(run)
    tasks, names, shape = run.schema.tasks, run.schema.names, run.schema.shape
    if len(names) < 2:
        raise RecipeError(
            f"Tasks conflict with each other, so there must be two at least, the data have "
            f"{names[0]} alone. Add a table [tasks.NAME], or another label."
        )
    for each in (recipe, *searched):
        _check_weights(each, names)
        _check_methods(each, names)
        rotating = [name for name in _methods(each) if find_method(name).needs == "features"]
        if rotating:
            refuse_pyramids({task.name: task.reads for task in tasks})
        if rotating and run.schema.apart:
            raise RecipeError(
                f"Method '{rotating[0]}' turns the tasks' gradients of one image's features "
                f"towards one another, but {names[0]} and {names[1]} have images of their own. "
                "Choose another method, such as pcgrad: recon-search ls methods."
            )
    if recipe.split.when == "during" or recipe.compare.during:
        for name in (recipe.train.method, *recipe.compare.methods):
            options = recipe.train.options if name == recipe.train.method else {}
            check_goes_on(name, options)
    if recipe.backbone.levels is not None and all(task.reads == "vector" for task in tasks):
        raise RecipeError(
            "`backbone.levels` is for tasks that predict for every pixel, there is none among "
            f"{', '.join(names)}. Remove it."
        )
    check_room(recipe.backbone, check_weights(recipe.backbone, shape[0]), shape)
    facts = run.facts
    create_heads(recipe.heads, facts.width, tasks, pyramid=facts.pyramid)
    n_layers = len(facts.analysis.layers)
    for each in (recipe, *searched):
        check_k(each, n_layers)
    borrowed_splits(run)
    return n_layers


def remark(recipe: Recipe) -> str:
    """Say what a recipe's comparison cannot tell, before it is trained; "" where nothing is."""
    n = recipe.compare.seeds
    if n > MOST_UNTOLD:
        return ""
    if n == 1:
        can = "no difference has an interval, so none is told from chance"
    else:
        can = (
            "a difference is found in four of five runs only where it is "
            f"{detectable(1.0, n):.0f} times as large as it scatters from seed to seed"
        )
    return (
        f"Note: with `compare.seeds` = {n} {can}. That is enough to try things out; take 3 or more "
        "to compare."
    )


def _check_names(recipe: Recipe) -> None:
    """Check the rules, window, threshold and optimiser that a recipe names."""
    reading_of(recipe).blocks()
    bins_below(recipe.split.threshold)
    for rule in (recipe.split.rule, *recipe.compare.rules):
        find_rule(rule)
    check_optimizer(recipe.train.optimizer, recipe.train.momentum, recipe.train.weight_decay)


def _check_weights(recipe: Recipe, tasks: tuple[str, ...]) -> None:
    """Check that weights are those of tasks."""
    for name in recipe.train.weights:
        if name not in tasks:
            raise RecipeError(
                f"`train.weights` must name tasks ({', '.join(tasks)}), got '{name}'."
                f"{nearest(name, tasks)}"
            )


def _check_methods(recipe: Recipe, tasks: tuple[str, ...]) -> None:
    """Check every method that a recipe names on the tasks it would combine."""
    check_method(recipe.train.method, recipe.train.options, tasks=tasks, where="train.options")
    for method in _methods(recipe)[1:]:
        check_method(method, tasks=tasks)


def _methods(recipe: Recipe) -> tuple[str, ...]:
    """Return the method that a recipe trains by, and the others that it names."""
    return recipe.train.method, recipe.probe.method, *recipe.compare.methods
