"""`haversack jobs`: list the jobs stored on this machine, and remove them."""

from __future__ import annotations

from typing import Annotated

import typer

from haversack import progress
from haversack.cli.options import Json
from haversack.cli.output import show
from haversack.errors import InputError

app = typer.Typer(help="List executed notebooks, and remove them.", invoke_without_command=True)


@app.callback()
def jobs_options(context: typer.Context, json: Json = False) -> None:
    """List the jobs on this machine with their state, sessions and size."""
    if context.invoked_subcommand is None:
        from haversack.notebook.job.jobs import all_jobs

        found = all_jobs()
        show({"jobs": [job.json() for job in found]}, json, "\n".join(map(str, found)) or "There are no jobs yet.")


@app.command("rm", epilog="Example: `haversack jobs rm --done`")
def jobs_rm(
    names: Annotated[list[str] | None, typer.Argument(metavar="JOB", help="The name of a job.")] = None,
    done: Annotated[bool, typer.Option("--done", help="Remove all jobs whose notebook is done.")] = False,
) -> None:
    """Remove jobs: their folders, with downloads and /content, and the trainings that the jobs gave names to."""
    from haversack.notebook.job.jobs import all_jobs, remove

    if not names and not done:
        raise InputError("No job is named.", "Name one, or give --done to remove all that are done.")
    chosen = [*(names or []), *(job.name for job in all_jobs() if done and job.state == "done")]
    for job in remove(dict.fromkeys(chosen)):
        print(f"Removed {job.name}, {progress.size(job.size)}.")
