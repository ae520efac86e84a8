"""The arguments of a job, checked before anything of it is made: its options, hub, output and uploads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from haversack import credentials
from haversack.errors import InputError, NotebookInvalid
from haversack.gpus import taken
from haversack.notebook.place import sandbox
from haversack.notebook.record import document
from haversack.notebook.record.store import Options
from haversack.packages import lock
from haversack.training import devices


def check_options(options: Options) -> None:
    """Raise `InputError` for unusable options, and what `taken.check` and `check_hub` raise."""
    if options.cores is not None:
        devices.check_simulated(options.cores)
    if options.max_sessions < 1:
        raise InputError(
            f"A job cannot have {options.max_sessions} sessions.", "Give --max-sessions a number of at least 1."
        )
    if options.rehearse and options.plain:
        raise InputError("With --plain no training resumes, so --rehearse is useless.", "Leave out one of the two.")
    if options.gpus and options.cores is not None:
        raise InputError("--cores simulates cores on the CPU, so --gpus is useless.", "Leave out one of the two.")
    if options.gpus is not None:
        taken.check(options.gpus)
    if not options.trusted:
        sandbox.check()
    check_hub(options.hub)


def package_options(install: bool, as_of: str | None, python: str | None) -> dict[str, Any]:
    """Return the options about packages. Raises `InputError` for an invalid day, and for options without `install`."""
    if not install and (as_of or python):
        raise InputError(
            "With --no-install nothing is resolved, so --as-of and --python are useless.", "Leave them out."
        )
    return {"install": install, "as_of": as_of and lock.day_of(as_of), "python": python}


def default_output(notebook: Path) -> Path:
    return Path(f"{notebook.stem}.executed.ipynb")


def free_output(notebook: Path, address: str) -> tuple[Path, str]:
    """Return the default path of the executed notebook, and a sentence for the user, or "".

    A notebook that was fetched from `address` takes a name that no other notebook's result has: `name-2`, `name-3`, ….
    """
    usual = default_output(notebook)
    path, number = usual, 1
    while address and path.exists() and document.address_of(path) != address:
        number += 1
        path = usual.with_name(f"{notebook.stem}-{number}.executed.ipynb")
    return path, "" if path == usual else f"{usual} exists and is another's, so the executed notebook is {path}."


def uploads_of(given: Sequence[Path], source: Any, notebook: Path) -> list[Path]:
    """Return the absolute paths of the job's uploads: those given, or else those named in the notebook's metadata.

    The latter are relative to the notebook's folder. Raises `InputError` if a file does not exist or the notebook names
    one outside its folder, and `NotebookInvalid` for invalid metadata.
    """
    own = [] if given else _uploads_in_metadata(source, notebook)
    folder = notebook.absolute().parent
    paths = [path.absolute() for path in given] or [folder / name for name in own]
    for path in paths:
        if own and not path.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"The notebook names an upload outside its folder: {path}.", "Give it with --upload FILE.")
        if not path.is_file():
            raise InputError(f"There is no file {path} to upload.", "Check the path after --upload.")
    return paths


def _uploads_in_metadata(source: Any, notebook: Path) -> list[str]:
    """Return `haversack.uploads` of the notebook's metadata; [] by default. Raises `NotebookInvalid`."""
    ours = source.metadata.get("haversack", {})
    names = ours.get("uploads", []) if isinstance(ours, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise NotebookInvalid(
            f'{notebook} has invalid "haversack" metadata.',
            'Write {"haversack": {"uploads": ["a.png"]}}.',
        )
    return names


def check_hub(hub: str | None) -> None:
    """Send one request to a named hub, so that a problem shows before the notebook runs. Does nothing without one.

    Raises `SignInError` without a token or if the hub refuses it, `ConnectionFailed` if the hub does not answer,
    `RemoteError` if it answers with another error, and `InputError` for an invalid URL.
    """
    if not hub or hub == "embedded":
        return
    from haversack.http import Http, wait

    server = credentials.drive(hub)

    async def ask() -> None:
        http = Http(server, attempts=2)
        try:
            await http.request("GET", "/drive/v3/about", params={"fields": "user"})
        finally:
            await http.close()

    wait(ask())
