"""Where a run is kept: the folder of its log, where its checkpoints go, and how an old run is renamed for a new one.

A notebook that gives its training only a name must find the run again in the next session. If the data folder outlives
the session, the run is kept there. If the folder is lost with the machine (Colab, Kaggle, a container's own layer), the
run also goes to the drive of the configured hub. Without a hub the run is still trained, and a line tells the user once
that its checkpoints are lost with the session. The embedded hub does not help: it stores in the same data folder.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from haversack import place, settings

STORE = "drive://haversack/runs"

_RENAMED = re.compile(r"(.+)\.before-(\d+)")
_returned: set[str] = set()
"""The lines that `resolve` has returned in this process, without the run's name."""


def resolve(name: str, where: str | Path | None = None) -> tuple[str | Path | None, str]:
    """Choose where to keep the run `name`; `where` is the folder or URL that the user gave, None if the user gave none.

    Returns the argument `where` for `Checkpoints`, and a line to print that tells the user about a choice made for
    them, "" for none. In one process each line is returned once, even for runs of different names.
    """
    chosen, kept = settings.load(), checkpoints_of(where)
    if where is not None or chosen.hub == "embedded" or place.disk_outlives_session(chosen.data):
        return kept, ""
    if chosen.hub:
        return kept, _once(
            f"{name}: saved to {STORE} on {chosen.hub}, because this machine's disk is lost with its session"
        )
    return None, _once(
        f"{name}: saved in {chosen.data / 'runs'}, which is lost with this machine's session; to resume in the next "
        "one, name a hub in HAVERSACK_HUB, or give a lasting folder or URL with where="
    )


def checkpoints_of(where: str | Path | None) -> str | Path | None:
    """Return the argument `where` for the `Checkpoints` of a run whose training was given `where`."""
    chosen = settings.load()
    is_lost = where is None and not place.disk_outlives_session(chosen.data)
    return STORE if is_lost and chosen.hub not in (None, "embedded") else where


def local_folder(where: str | Path | None) -> Path:
    """Return the folder on this machine for the runs kept at `where`: their logs, and their newest checkpoints.

    It is `where` if that is a folder, and the data folder's `runs` for None or a URL.
    """
    if where is None or _is_url(where):
        return settings.load().data / "runs"
    return Path(where).expanduser().absolute()


def rename_run(name: str, where: str | Path | None = None) -> str | None:
    """Rename the run `name` to `NAME.before-N`, on this machine and, if `where` is a URL, in that store.

    `where` is the argument of `Checkpoints`. N is one more than the largest that exists. The caller must make sure that
    no session owns the run. Returns the new name; None if there is no such run. Raises `OSError`, or any exception of
    the store's fsspec file system.
    """
    import fsspec

    folder = local_folder(where)
    stores: list[tuple[Any, str]] = [(fsspec.filesystem("file"), str(folder))]
    if _is_url(where):
        stores.append(fsspec.core.url_to_fs(str(where)))
    stores = [(files, root) for files, root in stores if files.exists(f"{root}/{name}")]
    siblings = [Path(path).name for files, root in stores for path in files.ls(root, detail=False)]
    numbers = [int(match[2]) for match in map(_RENAMED.fullmatch, siblings) if match and match[1] == name]
    renamed = f"{name}.before-{max(numbers, default=0) + 1}"
    for files, root in stores:
        files.mv(f"{root}/{name}", f"{root}/{renamed}", recursive=True)
    return renamed if stores else None


def _is_url(where: str | Path | None) -> bool:
    return isinstance(where, str) and "://" in where


def _once(text: str) -> str:
    """Return `text`, or "" if it returned a line before that differs in the run's name only."""
    without_name = text.partition(": ")[2]
    if without_name in _returned:
        return ""
    _returned.add(without_name)
    return text
