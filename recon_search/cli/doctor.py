"""`recon-search doctor`: what this environment has, and what mends it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from recon_search.cli.options import FOLDER, tell_json


@click.command()
@click.option("--out", type=FOLDER, default="runs", show_default=True, help="Where runs will be.")
@click.option("--data-root", "roots", type=FOLDER, multiple=True, help="Folder with data.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(out: Path, roots: tuple[Path, ...], as_json: bool) -> None:
    """Show versions, devices, memory, disk and what is missing, with what mends it.

    The exit code is 1 where nothing can be trained as it is.

    Example: recon-search doctor --json
    """
    from recon_search.stages.checkup import check_up
    from recon_search.views.doctor import examine, finding_lines

    found, findings = examine(), check_up(out, roots)
    has_fault = any(finding.state == "fault" for finding in findings)
    if as_json:
        tell_json({**found, "checks": [asdict(finding) for finding in findings]})
    else:
        for name in ("recon-search", "python", "platform"):
            click.echo(f"       {name:<20} {found[name]}")
        for name, version in found["packages"].items():
            click.echo(f"       {name:<20} {version}")
        click.echo("\n".join(finding_lines(findings)))
    if has_fault:
        raise SystemExit(1)
