"""`haversack run` and `haversack clock`: execute a notebook, and show when this session ends."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from haversack.cli.options import Hub, Json
from haversack.cli.output import show
from haversack.errors import InputError

commands = typer.Typer()


class _RunCommand(typer.core.TyperCommand):
    """Takes `--rehearse=compare` too: an option with an optional value would take the notebook that follows for it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, ["--compare" if one == "--rehearse=compare" else one for one in args])


@commands.command(
    cls=_RunCommand,
    epilog="Examples: `haversack run train.ipynb -o done.ipynb --upload labels.csv --session 12h`, "
    "`haversack run https://github.com/OWNER/REPO/blob/main/x.ipynb`, `haversack run 'drive:/My Drive/x.ipynb'`",
)
def run(
    notebook: Annotated[
        str | None,
        typer.Argument(
            metavar="NOTEBOOK",
            help="The notebook to execute: a path, drive:/My Drive/x.ipynb, or the address of an .ipynb file or of its "
            "page on GitHub, Colab, Kaggle, Hugging Face, nbviewer. Leave it out with --resume.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="OUT", help="Where to write the executed notebook.")
    ] = None,
    hub: Hub = None,
    upload: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A file for files.upload() to receive; may be repeated.")
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="SOURCE",
            help="A data set for /kaggle/input: kaggle:owner/name, kaggle:c/competition, drive:/…, a path; repeatable.",
        ),
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option(metavar="k=v", help="Set a variable of the notebook; may be repeated.")
    ] = None,
    cores: Annotated[int | None, typer.Option(metavar="N", help="Simulate N accelerator cores on the CPU.")] = None,
    gpus: Annotated[
        int | None,
        typer.Option(metavar="N", help="Have N GPUs for this job alone, and wait until they are free; 0 hides all."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the executed notebook as a web page.")
    ] = None,
    session: Annotated[
        str | None,
        typer.Option(metavar="12h", help="End each session after this time, as Colab does, and start the next."),
    ] = None,
    cell_timeout: Annotated[
        str | None,
        typer.Option(
            metavar="30m", help="Restart the kernel if a cell shows no output and no training step for this time."
        ),
    ] = None,
    max_sessions: Annotated[
        int | None,
        typer.Option(metavar="N", help="Give the job up after this many sessions. [default: 100]", show_default=False),
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Leave model.fit unchanged: trainings do not resume.")] = False,
    rehearse: Annotated[
        bool,
        typer.Option(
            "--rehearse",
            help="Kill the kernel once in the middle of an epoch, to test that the training resumes. "
            "--rehearse=compare also runs the notebook unbroken, and compares how its trainings end.",
        ),
    ] = False,
    compare: Annotated[bool, typer.Option("--compare", hidden=True)] = False,
    no_install: Annotated[
        bool,
        typer.Option(
            "--no-install", help="Install nothing: run with the packages that are installed beside haversack."
        ),
    ] = False,
    as_of: Annotated[
        str | None, typer.Option(metavar="DATE", help="Use no release of a package after this day or month: 2026-07.")
    ] = None,
    python: Annotated[
        str | None, typer.Option(metavar="VERSION", help="The version of Python, such as 3.12.", show_default=False)
    ] = None,
    env: Annotated[
        Path | None,
        typer.Option(metavar="PAGE.ipynb", help="An environment page: a notebook to run before the first cell."),
    ] = None,
    private_caches: Annotated[
        bool,
        typer.Option(
            "--private-caches", help="Share no cached models and data sets (Hugging Face, torch, …) with other jobs."
        ),
    ] = False,
    unseeded: Annotated[
        bool,
        typer.Option(
            "--unseeded", help="Draw other random numbers in each session, also where a training goes on on its data."
        ),
    ] = False,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Run a notebook from the web like your own: not isolated, with your sign-ins and secrets."
        ),
    ] = False,
    resume: Annotated[
        str | None,
        typer.Option(metavar="JOB", help="Resume a job that is not done, from this machine or from the hub's drive."),
    ] = None,
    json: Json = False,
) -> None:
    """Execute a Colab or Kaggle notebook on this machine, unchanged, over as many sessions as it takes."""
    from haversack import settings
    from haversack.notebook.job import comparison, job
    from haversack.notebook.sources import source
    from haversack.training import clock

    limit = clock.seconds(session) if session else None
    timeout = clock.seconds(cell_timeout) if cell_timeout else None
    if resume:
        chosen = (notebook, upload, inputs, param, cores, plain, rehearse or compare)
        kept = (*chosen, no_install, as_of, python, env, private_caches, unseeded, trust)
        if any(kept):
            raise InputError(
                "A resumed job keeps its notebook and all options about what is executed, and with which packages.",
                "Give --resume with --output, --html, --hub, --gpus, --session, --cell-timeout or --max-sessions only.",
            )
        report = job.resume(
            resume,
            output,
            hub=hub,
            gpus=gpus,
            html=html,
            session=limit,
            cell_timeout=timeout,
            max_sessions=max_sessions,
        )
    elif notebook:
        if compare and (plain or unseeded):
            raise InputError(
                "--rehearse=compare compares trainings that resume, on the same random numbers.",
                "Leave out --plain and --unseeded.",
            )
        same: dict[str, Any] = {"--upload": upload, "--input": inputs, "--param": param, "--cores": cores}
        same |= {"--gpus": gpus, "--as-of": as_of, "--python": python, "--env": env, "--no-install": no_install}
        same |= {"--private-caches": private_caches}
        with source.opened(notebook, hub) as given:
            trusted = trust or given.is_own
            execute = partial(
                job.run,
                given.path,
                output,
                hub=hub,
                uploads=upload or [],
                inputs=inputs or [],
                parameters=job.parse_parameters(param or []),
                cores=cores,
                gpus=gpus,
                html=html,
                session=limit,
                cell_timeout=timeout,
                max_sessions=max_sessions,
                plain=plain,
                rehearse=rehearse or compare,
                install=False if no_install else None,
                as_of=as_of,
                python=python,
                page=env,
                private_caches=private_caches,
                unseeded=unseeded,
                address=given.address,
                trusted=trusted,
            )
            if compare:
                report = comparison.rehearse(
                    given.path, _arguments(same), execute, hub=hub or settings.load().hub, trusted=trusted
                )
            else:
                report = execute()
    else:
        raise InputError("No notebook is given.", "Name one, or resume a job: haversack run --resume JOB")
    show(report.json(), json, report.summary)
    if report.failure is not None:
        raise report.failure


def _arguments(options: dict[str, Any]) -> list[str]:
    """The command line that gives these options: True is a flag, a list an option for each of its values."""
    arguments = []
    for name, value in options.items():
        if value is True:
            arguments.append(name)
        elif value is not None and value is not False:  # 0 is a value
            for one in value if isinstance(value, list) else [value]:
                arguments += [name, str(one)]
    return arguments


@commands.command(epilog="Example: `haversack clock --json`")
def clock(json: Json = False) -> None:
    """Show when this session of Colab, Kaggle or `haversack run` ends, and what ends it."""
    from haversack import place
    from haversack.training import clock as clock_

    end = clock_.end()
    found = {"place": place.here(), "ends": end and end.at, "remaining": end and end.remaining, "by": end and end.by}
    show(found, json, str(end) if end else "This session has no known end.")
