"""`factory`: a function of the user's own, by import path, which returns a `TaskData`.

By import path, because training processes that are started anew must find it. It is called with
`data.args`, and with `root=data.root` and `seed=data.seed` where it takes arguments of these names.
"""

from __future__ import annotations

import inspect
from dataclasses import replace

from recon_search.artefact import digest
from recon_search.data.task_data import TaskData
from recon_search.errors import DataError, RecipeError
from recon_search.identity import content
from recon_search.imports import call, import_callable
from recon_search.recipe import DataConfig

WHAT = "`data.factory`"


def call_factory(config: DataConfig) -> TaskData:
    """Call the factory that `[data]` names.

    Data without a fingerprint gets that of the file that defines the factory: results are kept
    under it, `data.factory` and `data.args`, and not used again once the file has changed.

    Raises:
        RecipeError: there is no such function, it cannot be called with these arguments, or fails.
        DataError: it returns something else.
    """
    assert config.factory is not None
    function = import_callable(config.factory, WHAT)
    offered = {"root": config.root, "seed": config.seed}
    try:
        taken = set(inspect.signature(function).parameters)
    except ValueError:  # it does not tell what it takes
        taken = set()
    known = {key: value for key, value in offered.items() if key in taken and value is not None}
    if twice := known.keys() & config.args.keys():
        key = min(twice)
        raise RecipeError(f"`data.args.{key}` is given as `data.{key}`, too. Remove one of them.")
    found = call(config.factory, WHAT, **known, **config.args)
    if not isinstance(found, TaskData):
        raise DataError(
            f"{WHAT} {config.factory} must return a recon_search.TaskData, got "
            f"{type(found).__name__}. Return TaskData(tasks, parts)."
        )
    return found if found.fingerprint else replace(found, fingerprint=_of_file(function))


def _of_file(function: object) -> str:
    try:
        file = inspect.getsourcefile(function)  # type: ignore[arg-type]
    except TypeError:
        file = None
    return "" if file is None else digest(["factory", content(file)])
