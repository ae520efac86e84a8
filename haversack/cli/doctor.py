"""`haversack doctor`: what this machine has, and what to do about what it lacks (`haversack.machine`)."""

from __future__ import annotations

import typer

from haversack.cli.options import Json
from haversack.cli.output import show

commands = typer.Typer()


@commands.command(epilog="Example: `haversack doctor --json`")
def doctor(json: Json = False) -> None:
    """Show what this machine has and what to do about each lack; for the drive's own health use `drive doctor`."""
    from haversack.machine import examine

    found = examine()
    show(found.json(), json, str(found))
