"""The command line. Heavy imports happen inside commands; nothing imports this package."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
import signal
import sys

import click

from recon_search import __version__, interruption
from recon_search.cli import (
    ablate,
    conflict,
    data,
    doctor,
    evaluation,
    ls,
    model,
    plan,
    prediction,
    recipe,
    report,
    run,
    search,
    split,
    training,
)
from recon_search.disk import describe
from recon_search.disk import in_one_line as shown
from recon_search.errors import FileError, ReconSearchError, in_one_line
from recon_search.interruption import Interrupted
from recon_search.memory import is_exhausted

EXAMPLE = "Example: "
"""Begins the last paragraph of a command's docstring."""

SHORT = 65
"""Letters that the list of commands has for each, on a terminal of 80 columns."""


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit code 2.

    What the disk refuses is one too. A signal (see `interruption`) ends with exit code 128 and its
    number.
    """
    debug = "--debug" in sys.argv[1:]
    _occupy_streams()
    _show_anything()
    try:
        with interruption.handled():
            try:
                cli.main(standalone_mode=True)
            finally:
                _flush()
    except Interrupted as left:
        name = signal.Signals(left.signal).name
        _complain(f"Interrupted by {name}: {str(left) or 'nothing was written'}")
        sys.exit(128 + left.signal)
    except ReconSearchError as error:
        if debug:
            raise
        for line in str(error).splitlines():  # a recipe has one for each mistake
            _complain(f"error: {shown(line)}")
        sys.exit(2)
    except OSError as error:
        if debug:
            raise
        _complain(f"error: {describe(error)}")
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if debug or not is_exhausted(error):
            raise
        _complain(
            "error: Memory must hold what the command works on, it is exhausted "
            f"({in_one_line(error)}). Lower batches (train.batch_size, --batch-size), images, or "
            "--workers."
        )
        sys.exit(2)


def _complain(line: str) -> None:
    """Write to standard error; where that takes nothing, the exit code says it alone."""
    with contextlib.suppress(OSError):
        click.echo(line, err=True)


def _flush() -> None:
    """Write what was printed: a full disk behind it is told here, not in a way of Python's own.

    Raises:
        FileError: it cannot be written; that nobody reads it any more is no such error.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more
        if not isinstance(error, BrokenPipeError):
            raise FileError(describe(error, "Standard output", "written")) from error


def _occupy_streams() -> None:
    """Open what the caller has closed of the three streams, or files would take their numbers.

    What libraries print would then be written into those files.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _show_anything() -> None:
    """Let no character end a command that the console's encoding does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="recon-search")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """Find the layers in which tasks' gradients conflict, split them, retrain, and prove it.

    Example: recon-search run quickstart
    """


COMMANDS = (
    run.run,
    conflict.probe,
    conflict.rank,
    split.split,
    training.train,
    training.compare,
    search.search,
    ablate.ablate,
    data.data,
    evaluation.evaluate,
    prediction.predict,
    model.export,
    model.convert,
    report.report,
    recipe.init,
    recipe.validate,
    plan.plan,
    ls.ls,
    doctor.doctor,
)
for _command in COMMANDS:
    cli.add_command(_command)


def _end_with_example(command: click.Command) -> None:
    """Move the example of a command's docstring to the end of its help, in one line."""
    said, _, example = inspect.cleandoc(command.help or "").partition(EXAMPLE)
    command.help, command.epilog = said.rstrip(), f"\b\n{EXAMPLE}{example}"
    clause = re.split(r"[.:;](?:\s|$)", " ".join(said.split()))[0]
    command.short_help = clause if len(clause) <= SHORT else clause[:SHORT].rpartition(",")[0]
    for each in command.commands.values() if isinstance(command, click.Group) else ():
        _end_with_example(each)


_end_with_example(cli)
