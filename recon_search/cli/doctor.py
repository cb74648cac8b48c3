"""`recon-search doctor`: what this environment has."""

from __future__ import annotations

import click

from recon_search.cli.options import tell_json


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Show versions, devices and which optional packages are missing.

    Example: recon-search doctor --json
    """
    from recon_search.views.doctor import OPTIONAL, examine

    found = examine()
    if as_json:
        tell_json(found)
        return
    for name in ("recon-search", "python", "platform", "cores"):
        click.echo(f"{name:<14} {found[name]}")
    click.echo(
        f"{'cuda devices':<14} {', '.join(found['cuda devices']) or 'none; training on the CPU'}"
    )
    for name, version in found["packages"].items():
        click.echo(f"{name:<14} {version}")
    for name, version in found["optional packages"].items():
        click.echo(f"{name:<14} {version or f'missing: pip install {OPTIONAL[name]!r}'}")
