"""What commands have in common: options, and how a run is opened."""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recon_search import json_text
from recon_search.cli.completion import complete_override, complete_recipe, complete_writer
from recon_search.disk import refuse_special, refuse_unnamed
from recon_search.errors import ReconSearchError
from recon_search.interruption import Interrupted, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from rich.console import Console

    from recon_search.recipe import Recipe
    from recon_search.runs.run import Run


class _Regular(click.Path):
    """A path that is neither pipe, socket nor device; those are refused before they are opened."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Refuse what is no file and no folder, and what cannot be said in a line."""
        refuse_unnamed(value)
        refuse_special(value)
        return super().convert(value, param, ctx)


FILE = _Regular(dir_okay=False, path_type=Path)
FOLDER = _Regular(file_okay=False, path_type=Path)
ANYTHING = _Regular(path_type=Path)
RANKING = ANYTHING


def device_option(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a device."""
    choices = click.Choice(["auto", "cpu", "cuda"])
    return click.option("--device", type=choices, default="auto", show_default=True)(command)


def recipe_options(command: Callable[..., None], required: bool = True) -> Callable[..., None]:
    """Give a command the recipe and everything that can override it."""
    metavar = "RECIPE" if required else "[RECIPE]"
    options = [
        click.argument(
            "recipe_path",
            metavar=metavar,
            type=FILE,
            required=required,
            shell_complete=complete_recipe,
        ),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="PATH=VALUE",
            shell_complete=complete_override,
            help="Override a recipe key.",
        ),
        click.option("--data-root", type=FOLDER, help="Folder with the data set's files."),
        click.option("--seed", type=click.IntRange(min=0), help="Override the recipe's seed."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def map_option(text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command names of tasks beside those of the recipe, as a dictionary `renamed`."""
    return click.option(
        "--map", "renamed", multiple=True, metavar="NEW=OLD", callback=_read_pairs, help=text
    )


def map_splits(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--map`, which is the recipe's `compare.map`."""

    @functools.wraps(command)
    def mapped(renamed: dict[str, str], **options: Any) -> None:
        if renamed:
            pairs = ", ".join(f"{json.dumps(a)} = {json.dumps(b)}" for a, b in renamed.items())
            options["overrides"] = (*options["overrides"], f"compare.map={{ {pairs} }}")
        command(**options)

    return map_option("The recipe's task NEW is what a split from elsewhere calls OLD.")(mapped)


def _read_pairs(context: Any, option: Any, pairs: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        new, separator, old = pair.partition("=")
        if not (new and separator and old):
            raise click.UsageError(f"--map must be NEW=OLD, got '{pair}'. Example: --map kind=tree")
        if found.setdefault(new, old) != old:
            raise click.UsageError(
                f"--map must name each NEW once, got '{new}={found[new]}' and '{pair}'. Drop one."
            )
    return found


def _in_step(command: Callable[..., None]) -> Callable[..., None]:
    """Under `torchrun`, run a command in the first process; the others train along."""

    @functools.wraps(command)
    def led(**options: Any) -> None:
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            command(**options)
            return

        from recon_search import parallel
        from recon_search.runs.follow import in_step

        device = choose_device(options["device"])
        with parallel.group(device):
            in_step(functools.partial(command, **options), device)

    return led


def _to_go_on(command: Callable[..., None]) -> Callable[..., None]:
    """Say what is left where a command ends before it is done: out of time is no failure."""

    @functools.wraps(command)
    def told(**options: Any) -> None:
        how = "the same command" if command.__name__ == "search" else "--resume"
        try:
            command(**options)
        except Interrupted as left:
            left.args = (f"{str(left) or 'nothing was begun'}. Go on with {how}.",)
            raise
        except Stopped as left:
            click.echo(
                f"Time is up (--max-hours {options['max_hours']:g}): {left}. Go on with {how}.",
                err=bool(options.get("as_json")),
            )

    return told


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a run directory, a device and workers; let `torchrun` run it."""
    command = _in_step(_to_go_on(command))
    options: list[Callable[[Callable[..., None]], Callable[..., None]]] = [
        click.option(
            "--out",
            type=FOLDER,
            help="Run directory [default: runs/<recipe name>, of a search <recipe name>-search].",
        ),
        click.option("--resume", is_flag=True, help="Go on with the run in --out."),
        device_option,
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            help="Trainings at once [default: one a core, one on a GPU].",
        ),
        click.option("--quiet", is_flag=True, help="Show results and warnings alone."),
        click.option("--verbose", is_flag=True, help="Show every epoch, and who waits for whom."),
        click.option(
            "--log",
            "writers",
            multiple=True,
            metavar="WRITER",
            shell_complete=complete_writer,
            help="Also write curves for tensorboard, trackio or wandb, an epoch a point.",
        ),
        click.option(
            "--max-hours",
            type=click.FloatRange(min=0, min_open=True),
            help="End in order before that: after an epoch, to go on another time.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def seeds_option(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that compares the number of seeds."""
    return click.option(
        "--seeds",
        type=click.IntRange(min=1),
        help="Override compare.seeds; with --resume, those that are trained count.",
    )(command)


def load_overridden(options: dict[str, Any]) -> Recipe:
    """Load the recipe with every override a command was given."""
    from recon_search.recipe import load_recipe

    overrides = list(options["overrides"])
    if options.get("seed") is not None:
        overrides.append(f"seed={options['seed']}")
    if options.get("seeds") is not None:
        overrides.append(f"compare.seeds={options['seeds']}")
    if options.get("data_root") is not None:
        overrides.append(f"data.root={json.dumps(str(options['data_root']))}")
    return load_recipe(options["recipe_path"], overrides)


def open_run(
    options: dict[str, Any],
    read_inputs: Callable[[Run], None] | None = None,
    *,
    is_search: bool = False,
    as_json: bool = False,
) -> Run:
    """Load the recipe, choose the device, open the run folder.

    Args:
        options: of the command.
        read_inputs: reads what else the command takes, or refuses it, before anything is written.
        is_search: the command is `search`.
        as_json: standard output is for JSON alone, so sentences go to standard error.
    """
    if options["quiet"] and options["verbose"]:
        raise click.UsageError("--quiet and --verbose exclude each other. Drop one.")
    recipe = load_overridden(options)  # before the heavy imports, so that its errors come at once

    from recon_search.runs.deadline import Deadline
    from recon_search.runs.folder import open_folder
    from recon_search.runs.lock import held
    from recon_search.runs.run import Run
    from recon_search.runs.writers import check_writers, logged
    from recon_search.stages.check import check
    from recon_search.stages.origin import write_origin
    from recon_search.views.display import ConsoleListener, Level

    out = run_directory(options, "-search" if is_search else "")
    device = choose_device(options["device"])
    hours = options["max_hours"]
    deadline = None if hours is None else Deadline.after(hours)
    check_writers(options["writers"])
    if options["verbose"]:
        _show_log()
    level: Level = "quiet" if options["quiet"] else "verbose" if options["verbose"] else "normal"
    listener = ConsoleListener(make_console(stderr=as_json), level)
    run = Run(recipe, out, device, options["workers"], listener, deadline)
    check(run)
    if read_inputs is not None:
        read_inputs(run)
    if not is_search:  # whose processes share a folder
        context = click.get_current_context()
        context.with_resource(held(out, str(context.info_name)))
    open_folder(recipe, out, resume=options["resume"], is_search=is_search)
    name = options["recipe_path"].stem
    write_origin(out, str(device), sys.argv[1:], recipe=name, goes_on=options["resume"])
    return logged(run, options["writers"])


def _show_log() -> None:
    """Show on standard error what the package logs, until the command ends."""
    logger, handler = logging.getLogger("recon_search"), logging.StreamHandler()
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    context = click.get_current_context()
    context.call_on_close(lambda: logger.removeHandler(handler))
    context.call_on_close(lambda: logger.setLevel(before))


def run_directory(options: dict[str, Any], suffix: str = "") -> Path:
    """Return --out, or the folder named after the recipe."""
    folder: Path = options["out"] or Path("runs") / f"{options['recipe_path'].stem}{suffix}"
    return folder


def choose_device(name: str) -> torch.device:
    """Return the device that --device names; `auto` takes a GPU where there is one."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise click.UsageError("--device cuda needs a CUDA device, found none. Use --device cpu.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def make_console(minimum: int = 0, *, stderr: bool = False) -> Console:
    """A console; tables get at least `minimum` columns where output is piped."""
    from rich.console import Console

    console = Console(stderr=stderr)
    if not console.is_terminal and console.width < minimum:
        return Console(width=minimum, stderr=stderr)
    return console


def check_picture(path: Path, option: str) -> None:
    """Refuse a picture to write whose ending is none."""
    if path.suffix not in (".png", ".svg"):
        raise ReconSearchError(
            f"{option} must end in .png or .svg, got '{path}'. Change the ending."
        )


def tell(text: str) -> None:
    """Print a line as it is, brackets and all, however long."""
    from recon_search.views.markup import escape

    make_console().print(escape(text), highlight=False, soft_wrap=True)


def tell_json(value: Any) -> None:
    """Print a value as JSON, which knows no number that is not finite: null stands for it."""
    click.echo(json.dumps(json_text.finite(value), indent=2, allow_nan=False))
