"""The command line. Heavy imports happen inside commands; nothing imports this package."""

from __future__ import annotations

import sys

import click

from recon_search import __version__
from recon_search.cli import conflict, data, looking, run, search, split, training
from recon_search.errors import ReconSearchError


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit code 2."""
    debug = "--debug" in sys.argv[1:]
    try:
        cli.main(standalone_mode=True)
    except ReconSearchError as error:
        if debug:
            raise
        for line in str(error).splitlines():  # a recipe has one for each mistake
            click.echo(f"error: {line}", err=True)
        sys.exit(2)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="recon-search")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """Find the layers in which tasks' gradients conflict, split them, retrain, and prove it."""


COMMANDS = (
    run.run,
    conflict.probe,
    conflict.rank,
    split.split,
    training.train,
    training.compare,
    search.search,
    data.data,
    *looking.COMMANDS,
)
for _command in COMMANDS:
    cli.add_command(_command)
