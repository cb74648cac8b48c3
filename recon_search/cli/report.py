"""`recon-search report`: what a finished run shows."""

from __future__ import annotations

from pathlib import Path

import click

from recon_search.cli.options import FOLDER


@click.command()
@click.argument("run_directory", metavar="RUN", type=FOLDER)
def report(run_directory: Path) -> None:
    """Write report.html of a finished run anew.

    Example: recon-search report runs/mine
    """
    from recon_search.stages.report import write_report

    click.echo(f"Written: {write_report(run_directory)}")
