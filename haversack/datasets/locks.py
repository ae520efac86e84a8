"""Locks between processes for things that cannot have a lock file beside them: a user's folder, a remote data set."""

from __future__ import annotations

import hashlib
import os

from filelock import FileLock

from haversack import settings


def lock_of(key: str | os.PathLike[str]) -> FileLock:
    """Return the file lock for `key`, in the cache folder; it is one lock for all processes that share that folder."""
    folder = settings.load().cache / "datasets" / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:16]}.lock")
