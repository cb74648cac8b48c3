"""Data by name: the built-in sets, and readers of what a user has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from recon_search.data.arrays import read_arrays
from recon_search.data.celeba import read_celeba
from recon_search.data.chestxray14 import read_chestxray14
from recon_search.data.cifar100 import NAME as CIFAR100
from recon_search.data.cifar100 import read_cifar100
from recon_search.data.cityscapes import read_cityscapes
from recon_search.data.compose import Composed
from recon_search.data.digits import multi_digits
from recon_search.data.factory import call_factory
from recon_search.data.image_folder import read_folders
from recon_search.data.images import Images
from recon_search.data.mnist import SOURCES, multi_mnist
from recon_search.data.nyuv2 import read_nyuv2
from recon_search.data.office import OFFICES, read_office
from recon_search.data.parquet import read_parquet
from recon_search.data.pascal_context import read_pascal_context
from recon_search.data.scenes import SMALLEST, Scenes, scenes
from recon_search.data.source import PARTS, Source
from recon_search.data.table import read_images_and_table
from recon_search.data.task_data import TaskData
from recon_search.data.transforms import Pretraining
from recon_search.errors import DataError, RecipeError, ReconSearchError, nearest
from recon_search.recipe import DataConfig, TaskConfig
from recon_search.recipe.data import BENCHMARKS
from recon_search.tasks.registry import create_task
from recon_search.tasks.task import Task

DEFAULTS = {
    "multi-digits": (24, 8_000, 2_000, 10_000),
    "scenes": (64, 1_600, 400, 400),
    **dict.fromkeys(SOURCES, (36, 120000, 10000, 20000)),
}
"""Canvas, and pairs or scenes in train, validation and test where the recipe says nothing."""

Tables = Mapping[str, TaskConfig]
"""The tables `[tasks.NAME]` of a recipe."""

READERS: dict[str, Callable[[DataConfig, Tables], TaskData]] = {
    "table": read_images_and_table,
    "image-folder": read_folders,
    "parquet": read_parquet,
    "arrays": read_arrays,
    "nyuv2": read_nyuv2,
    "cityscapes": read_cityscapes,
    "celeba": read_celeba,
    "chestxray14": read_chestxray14,
    "pascal-context": read_pascal_context,
}
"""What reads files, by `data.name`; it makes the tasks that `[tasks]` describes, or papers have."""

DOMAINS: dict[str, Callable[[DataConfig], TaskData]] = {
    **dict.fromkeys(OFFICES, read_office),
    CIFAR100: read_cifar100,
}
"""What reads data sets whose tasks are known, and have data of their own, by `data.name`."""

FACTORY, GIVEN = "factory", "given"
"""Data that a function of the user's returns, and data that is given from Python."""

_COMPOSED_KEYS = ("train", "validation", "test", "canvas", "download")
_IMAGE_KEYS = ("image_size", "channels", "resize", "crop", "interpolation", "statistics", "augment")


def find_source(
    config: DataConfig,
    tasks: Tables | None = None,
    *,
    given: TaskData | None = None,
    pretraining: Pretraining | None = None,
    is_checked: bool = True,
) -> Source:
    """Find the data that `[data]` names; no more than the first image of a part is read yet.

    Args:
        config: `[data]`.
        tasks: `[tasks]`.
        given: data from Python, for the name "given".
        pretraining: how the backbone's weights want images; None where it has none.
        is_checked: whether the first image of each part is read, to see that it can be.

    Raises:
        DataError: the name is unknown, or files are missing or malformed.
        RecipeError: `[data]` or `[tasks]` does not fit the data.
    """
    name, tables = config.name, tasks or {}
    if (name == GIVEN) != (given is not None):
        raise DataError(
            f'`data.name` = "{GIVEN}" is for data from Python (rs.run(recipe, data=...)), got '
            f"'{name}' {'with' if given else 'without'} such data. Name a data set."
        )
    if name in READERS:
        _refuse(config, [k for k in _COMPOSED_KEYS if name not in BENCHMARKS or k != "download"])
        return Images(READERS[name](config, tables), config, pretraining, is_checked=is_checked)
    if name == FACTORY or name in DOMAINS or given is not None:
        _refuse(config, _COMPOSED_KEYS)
        data = DOMAINS.get(name, call_factory)(config) if given is None else given
        return Images(
            replace(data, tasks=_override(data.tasks, tables)),
            config,
            pretraining,
            is_checked=is_checked,
        )
    if name not in DEFAULTS:
        known = (*DEFAULTS, *READERS, *DOMAINS, FACTORY)
        raise DataError(
            f"`data.name` must be one of {', '.join(known)}, got '{name}'.{nearest(name, known)}"
        )
    _refuse(config, _IMAGE_KEYS)
    source = _compose(config)
    schema = source.schema
    return replace(source, schema=replace(schema, tasks=_override(schema.tasks, tables)))


def _compose(config: DataConfig) -> Composed | Scenes:
    name = config.name
    default_canvas, *default_sizes = DEFAULTS[name]
    wanted = (config.train, config.validation, config.test)
    sizes = {
        part: default if size is None else size
        for part, size, default in zip(PARTS, wanted, default_sizes, strict=True)
    }
    side = default_canvas if config.canvas is None else config.canvas
    if name == "multi-digits":
        return multi_digits(sizes, side, config.seed)
    least = SMALLEST if name == "scenes" else 28
    if side < least:
        raise DataError(f"`data.canvas` must be at least {least} for {name}, got {side}. Raise it.")
    if name == "scenes":
        return scenes(sizes, side, config.seed)
    return multi_mnist(name, sizes, side, config.seed, config.root, config.download)


def _refuse(config: DataConfig, keys: Sequence[str]) -> None:
    """Refuse keys of `[data]` that data of this name does not read."""
    for key in keys:
        found = getattr(config, key)
        if found != DataConfig.model_fields[key].get_default():
            raise RecipeError(
                f"`data.{key}` is of no use to '{config.name}' data, got {found!r}. Remove it."
            )


def _override(tasks: Sequence[Task], tables: Tables) -> tuple[Task, ...]:
    """Change options of tasks that data brings with it, as `[tasks]` says."""
    names = [task.name for task in tasks]
    for name, table in tables.items():
        if name not in names:
            raise RecipeError(
                f"`tasks.{name}` must be a task of the data, which has {', '.join(names)}."
                f"{nearest(name, names)} Rename or remove the table."
            )
        for key in ("kind", "target"):
            if (found := getattr(table, key)) is not None:
                raise RecipeError(
                    f"`tasks.{name}.{key}` is known for data that brings its tasks with it, got "
                    f"{found!r}. Remove it."
                )
    return tuple(_with_options(task, tables.get(task.name)) for task in tasks)


def _with_options(task: Task, table: TaskConfig | None) -> Task:
    if table is None or not table.options:
        return task
    try:
        return create_task({**task.spec(), **table.options})
    except ReconSearchError as error:
        raise RecipeError(f"`tasks.{task.name}`: {error}") from None
