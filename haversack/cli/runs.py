"""`haversack runs …`: list and show trainings, plot their loss, and export their checkpoints."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from haversack.cli.options import Json
from haversack.cli.output import show

app = typer.Typer(help="List trainings: their sessions, epochs and checkpoints.", invoke_without_command=True)

Where = Annotated[
    str | None, typer.Option(metavar="DIR|URL", help="The folder or URL that was given to the training, if any.")
]


@app.callback()
def runs_options(context: typer.Context, where: Where = None, json: Json = False) -> None:
    """List the trainings that were logged on this machine, the most recent one last."""
    if context.invoked_subcommand is None:
        from haversack.runs import every

        found = every(where)
        show({"runs": [run.json() for run in found]}, json, "\n".join(map(str, found)) or "There are no runs yet.")


@app.command("show", epilog="Example: `haversack runs show rsna`")
def runs_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The run's name.")],
    where: Where = None,
    json: Json = False,
) -> None:
    """Show a training's sessions and epochs, and read its checkpoints in full to verify them."""
    from haversack import runs

    run, checkpoints = runs.show(name, where), runs.verified(name, where)
    show(
        {**run.json(), "checkpoints": [asdict(one) for one in checkpoints]},
        json,
        "\n".join([run.report, *map(str, checkpoints)]),
    )


@app.command("plot", epilog="Example: `haversack runs plot rsna -o rsna.png`")
def runs_plot(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The run's name.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="OUT.png", help="The image file: .png, .svg or .pdf; default NAME.png."),
    ] = None,
    where: Where = None,
) -> None:
    """Plot a training's loss over its epochs into an image file; marks show where sessions ended."""
    from haversack.runs import plot

    print(plot(name, where).save(output or Path(f"{name}.png")))


@app.command("export", epilog="Example: `haversack runs export rsna rsna.keras --checkpoint best`")
def runs_export(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The run's name.")],
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="The file to write; .weights.h5 for weights, .keras for the model.")
    ],
    checkpoint: Annotated[
        str, typer.Option(metavar="STEP|best|latest", help="Which checkpoint; `haversack runs show NAME` lists them.")
    ] = "latest",
    where: Where = None,
) -> None:
    """Write a checkpoint of a training as a file of Keras's own: weights, or the whole model."""
    from haversack.training.keras.export import export, parse_checkpoint

    print(export(name, output, where, checkpoint=parse_checkpoint(checkpoint)))
