"""Locks between processes for things that cannot have a lock file beside them: a user's folder, a remote data set."""

from __future__ import annotations

import hashlib
import os

from filelock import FileLock

from haversack import settings


def lock_of(key: str | os.PathLike[str]) -> FileLock:
    """Return the file lock for `key`, any string or path: `with lock_of(key):` waits until no other process holds it.

    The lock file is in the cache, so it excludes only processes that use the same cache folder.
    """
    folder = settings.load().cache / "datasets" / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:16]}.lock")
