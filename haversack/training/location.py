"""Where a run is kept: the folder of its log, where its checkpoints go, and how an old run makes room for a new one.

A notebook that only names its training must find the run again in the next session. If the data folder outlives the
session, the run stays there. If it goes with the machine (Colab, Kaggle, a container's own layer), the run goes to the
drive of the configured hub; without a hub it is trained all the same, and the user is told once what that means. The
embedded hub is no way out: it is stored in the same data folder.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import fsspec

from haversack import place, settings

STORE = "drive://haversack/runs"

_RENAMED = re.compile(r"(.+)\.before-(\d+)")
_printed: set[str] = set()


def of(name: str, where: str | Path | None = None) -> tuple[str | Path | None, str]:
    """Decide where the run `name` is kept if the user gave `where`.

    Returns `where` as `Checkpoints` takes it, and a line to print, "" for none. The same line is returned only once in
    a process.
    """
    chosen = settings.load()
    if where is not None or chosen.hub == "embedded" or place.disk_outlives_session(chosen.data):
        return where, ""
    if chosen.hub:
        return STORE, _once(
            f"{name}: saved to {STORE} on {chosen.hub}, because this machine's disk is lost with its session"
        )
    return None, _once(
        f"{name}: saved in {chosen.data / 'runs'}, which is lost with this machine's session; to resume in the next "
        "one, name a hub in HAVERSACK_HUB, or give a lasting folder or URL with where="
    )


def local_folder(where: str | Path | None) -> Path:
    """The folder on this machine that holds the runs kept at `where`: their logs and newest checkpoints."""
    if where is None or _is_url(where):
        return settings.load().data / "runs"
    return Path(where).expanduser().absolute()


def rename_run(name: str, where: str | Path | None = None) -> str | None:
    """Rename the run `name` to `name.before-N`, here and in the store at the URL `where`, so that a new one can begin.

    Returns the new name; None if there is no such run. Raises what fsspec raises for the store.
    """
    folder = local_folder(where)
    stores: list[tuple[Any, str]] = [(fsspec.filesystem("file"), str(folder))]
    if _is_url(where):
        stores.append(fsspec.core.url_to_fs(str(where)))
    stores = [(files, root) for files, root in stores if files.exists(f"{root}/{name}")]
    others = [Path(path).name for files, root in stores for path in files.ls(root, detail=False)]
    numbers = [int(match[2]) for match in map(_RENAMED.fullmatch, others) if match and match[1] == name]
    renamed = f"{name}.before-{max(numbers, default=0) + 1}"
    for files, root in stores:
        files.mv(f"{root}/{name}", f"{root}/{renamed}", recursive=True)
    return renamed if stores else None


def _is_url(where: str | Path | None) -> bool:
    return isinstance(where, str) and "://" in where


def _once(text: str) -> str:
    """`text`, or "" if a line that differs only in the run's name was returned before."""
    subject = text.partition(": ")[2]
    if subject in _printed:
        return ""
    _printed.add(subject)
    return text
