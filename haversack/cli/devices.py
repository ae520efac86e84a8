"""`haversack devices`: the cores that JAX, PyTorch and TensorFlow can train on (`haversack.device_report`)."""

from __future__ import annotations

from typing import Annotated

import typer

from haversack.cli.options import Json
from haversack.cli.output import show

commands = typer.Typer()


@commands.command(epilog="Examples: `haversack devices`, `haversack devices --cores 8`, `haversack devices --json`")
def devices(
    cores: Annotated[
        int | None, typer.Option(metavar="N", help="Simulate N accelerator cores on the CPU, as `haversack run` does.")
    ] = None,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="How long a framework may take to answer.")] = "2m",
    json: Json = False,
) -> None:
    """List the cores, workers and memory that JAX, PyTorch and TensorFlow find here, and why they use no GPU."""
    from haversack.device_report import examine
    from haversack.training import clock

    found = examine(cores, clock.seconds(timeout))
    show(found.json(), json, str(found))
