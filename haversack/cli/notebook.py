"""Executing a notebook, and when this session ends."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from haversack.cli.options import Hub, Json
from haversack.cli.output import show
from haversack.errors import InputError

commands = typer.Typer()


@commands.command(epilog="Example: `haversack run train.ipynb -o done.ipynb --upload labels.csv --session 12h`")
def run(
    notebook: Annotated[
        Path | None, typer.Argument(metavar="NB.ipynb", help="The notebook to execute; none with --resume.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="OUT", help="Where the executed notebook goes.")
    ] = None,
    hub: Hub = None,
    upload: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A file that files.upload() receives; may be repeated.")
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option(metavar="k=v", help="A variable's value in the notebook; may be repeated.")
    ] = None,
    cores: Annotated[int | None, typer.Option(metavar="N", help="Simulate N accelerator cores on the CPU.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the result as a web page.")] = None,
    session: Annotated[
        str | None, typer.Option(metavar="12h", help="End each session after this long, as Colab would, and go on.")
    ] = None,
    cell_timeout: Annotated[
        str | None, typer.Option(metavar="30m", help="Take a cell for hung that is not heard of for this long.")
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Leave model.fit as it is: it will not go on.")] = False,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Kill the kernel once in the middle of an epoch, to see that it goes on.")
    ] = False,
    resume: Annotated[
        str | None, typer.Option(metavar="JOB", help="Go on with a job that ended early, here or elsewhere.")
    ] = None,
    json: Json = False,
) -> None:
    """Execute a Colab notebook here, unchanged, over as many sessions as it takes."""
    from haversack.notebook.job import job
    from haversack.training import clock

    limit = clock.seconds(session) if session else None
    timeout = clock.seconds(cell_timeout) if cell_timeout else None
    if resume:
        if notebook or upload or param or cores or plain or rehearse:
            raise InputError(
                "A job that is resumed has its notebook, uploads, parameters, cores, --plain and --rehearse already.",
                "Give --resume with --output, --html, --hub, --session or --cell-timeout only.",
            )
        report = job.resume(resume, output, hub=hub, html=html, session=limit, cell_timeout=timeout)
    elif notebook:
        report = job.run(
            notebook,
            output,
            hub=hub,
            uploads=upload or [],
            parameters=job.parse_parameters(param or []),
            cores=cores,
            html=html,
            session=limit,
            cell_timeout=timeout,
            plain=plain,
            rehearse=rehearse,
        )
    else:
        raise InputError("No notebook is given.", "Name one, or a job to go on with: haversack run --resume JOB")
    show(report.json(), json, report.summary)
    if report.failure is not None:
        raise report.failure


@commands.command(epilog="Example: `haversack clock --json`")
def clock(json: Json = False) -> None:
    """Say what ends this session, and when."""
    from haversack import place
    from haversack.training import clock as clock_

    end = clock_.end()
    found = {"place": place.here(), "ends": end and end.at, "remaining": end and end.remaining, "by": end and end.by}
    show(found, json, str(end) if end else "Nothing is known to end this session.")
