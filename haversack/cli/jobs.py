"""`haversack jobs`."""

from __future__ import annotations

from typing import Annotated

import typer

from haversack import progress
from haversack.cli.options import Json
from haversack.cli.output import show
from haversack.errors import InputError

app = typer.Typer(help="Look at executed notebooks, and remove what is kept of them.", invoke_without_command=True)


@app.callback()
def jobs_options(context: typer.Context, json: Json = False) -> None:
    """List the jobs of this machine: done or not, their sessions and size."""
    if context.invoked_subcommand is None:
        from haversack.notebook.job.jobs import every

        found = every()
        show({"jobs": [job.json() for job in found]}, json, "\n".join(map(str, found)) or "There are no jobs yet.")


@app.command("rm", epilog="Example: `haversack jobs rm --done`")
def jobs_rm(
    names: Annotated[list[str] | None, typer.Argument(metavar="JOB", help="The jobs' names.")] = None,
    done: Annotated[bool, typer.Option("--done", help="Every job whose notebook is done.")] = False,
) -> None:
    """Remove jobs: their folders with downloads and /content, and the trainings named by them."""
    from haversack.notebook.job.jobs import every, remove

    if not names and not done:
        raise InputError("No job is named.", "Name one, or give --done for all that are done.")
    chosen = [*(names or []), *(job.name for job in every() if done and job.state == "done")]
    for job in remove(dict.fromkeys(chosen)):
        print(f"Removed {job.name}, {progress.size(job.size)}.")
