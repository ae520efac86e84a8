"""`haversack env`: what a notebook needs, its lock, and the environments that are kept on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from haversack import progress
from haversack.cli.options import Json
from haversack.cli.output import show
from haversack.errors import InputError

if TYPE_CHECKING:
    from haversack.packages.store import Store

app = typer.Typer(
    help="Show what a notebook needs, lock it, and manage the environments on this machine.", no_args_is_help=True
)

_Notebook = Annotated[
    str,
    typer.Argument(
        metavar="NOTEBOOK",
        help="The notebook, as `haversack run` takes it; none of its cells is executed.",
        show_default=False,
    ),
]
_AsOf = Annotated[
    str | None, typer.Option(metavar="DATE", help="Use no release of a package after this day or month: 2026-07.")
]
_Python = Annotated[
    str | None, typer.Option(metavar="VERSION", help="The version of Python, such as 3.12.", show_default=False)
]


@app.command("show", epilog="Example: `haversack env show https://github.com/OWNER/REPO/blob/main/x.ipynb`")
def env_show(notebook: _Notebook, json: Json = False) -> None:
    """Show what a notebook imports, which package provides each import and why, what is unknown, and its lock."""
    from haversack import settings
    from haversack.notebook.record import document
    from haversack.notebook.sources import source
    from haversack.packages import report
    from haversack.packages.cache import open_cache
    from haversack.packages.imports import code_cells
    from haversack.packages.requirements import requirements_of

    with source.opened(notebook) as given:
        content = document.read(given.path, given.address)
        found = requirements_of(code_cells(content), content["metadata"], given.path.resolve().parent)
    lock = open_cache(settings.load(), builds=given.is_own)[0].kept(found)
    show(report.as_json(found, lock), json, report.as_text(found, lock))


@app.command("lock", epilog="Example: `haversack env lock train.ipynb -o train.lock`")
def env_lock(
    notebook: _Notebook,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write it to this file instead of printing it."),
    ] = None,
    as_of: _AsOf = None,
    python: _Python = None,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Ask the package indexes, even if it was locked within a day.")
    ] = False,
    json: Json = False,
) -> None:
    """Print the exact version and hashes of every package that a notebook needs, as pip and uv read them."""
    from haversack import disk
    from haversack.notebook.job.packages import lock_notebook
    from haversack.notebook.sources import source

    with source.opened(notebook) as given:
        _, lock = lock_notebook(
            given.path, given.address, python=python, as_of=as_of, fresh=upgrade, trusted=given.is_own
        )
    if output:
        disk.write(output, lock.text)
    told = {"python": lock.python, "platform": lock.platform, "accelerator": lock.accelerator, "locked": lock.packages}
    text = f"{len(lock.packages)} packages locked in {output}." if output else lock.text.rstrip()
    show({**told, "text": lock.text, "output": str(output) if output else None}, json, text)


@app.command("sync", epilog="Example: `haversack env sync train.ipynb`")
def env_sync(notebook: _Notebook, as_of: _AsOf = None, python: _Python = None, json: Json = False) -> None:
    """Make a notebook's environment now, so that its next job starts at once."""
    from haversack.notebook.job import packages
    from haversack.notebook.sources import source

    with source.opened(notebook) as given:
        made = packages.sync(given.path, given.address, python=python, as_of=as_of, trusted=given.is_own)
    show(made.json(), json, f"{made.summary} ({made.held.environment.key})")


@app.command("ls", epilog="Example: `haversack env ls --json`")
def env_ls(json: Json = False) -> None:
    """List the environments on this machine: key, Python, packages, size, last use, and whether a job uses it."""
    from haversack.packages import store

    found = _store().all()
    text = store.as_text(found) or "There are no environments yet."
    show({"environments": [one.json() for one in found]}, json, text)


@app.command("rm", epilog="Example: `haversack env rm 71bc1cc2f013b348`")
def env_rm(
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="KEY", help="The key of an environment, or how it begins.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all that no job uses.")] = False,
    json: Json = False,
) -> None:
    """Remove environments from this machine; they are made again when they are needed."""
    if everything == bool(keys):
        raise InputError(
            "Both an environment and --all are given." if keys else "No environment is named.",
            "Name the environments to remove, or use --all; `haversack env ls` lists them.",
        )
    store = _store()
    wanted = keys or [one.key for one in store.all() if not one.in_use]
    removed = [store.remove(key) for key in wanted]
    lines = [f"Removed {one.key}, {progress.size(one.size)}." for one in removed]
    text = "\n".join(lines) or "Nothing to remove."
    show({"removed": [one.json() for one in removed]}, json, text)


def _store() -> Store:
    from haversack import settings
    from haversack.packages.cache import open_cache

    return open_cache(settings.load())[1]
