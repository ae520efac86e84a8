"""Locks between processes, for work on what has no place for a lock beside it: a user's folder, a set on a server."""

from __future__ import annotations

import hashlib
import os

from filelock import FileLock

from haversack import settings


def lock_of(what: str | os.PathLike[str]) -> FileLock:
    """The lock of `what`, the same one for every process of this user."""
    folder = settings.load().cache / "datasets" / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{hashlib.sha256(os.fsencode(what)).hexdigest()[:16]}.lock")
