"""The md5 of a file that is still being filled: read behind the bytes that came, so that little is left at the end.

What is read was just written, so it comes from memory. Bytes that are mended after they were read are not seen again:
who finds another hash than was promised looks at the whole file before that is believed.
"""

from __future__ import annotations

import hashlib
import threading
from typing import Any

from haversack.blocks.sparse import SparseFile

_PIECE = 4 << 20
# Seconds between two looks for more.
_PAUSE = 0.05


class FollowingMd5:
    """The md5 of `file`, as a context manager; its thread ends with the block."""

    def __init__(self, file: SparseFile) -> None:
        self._file = file
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._over, self._whole = threading.Event(), threading.Event()
        self._failure: OSError | ValueError | None = None
        self._thread = threading.Thread(target=self._follow, name="haversack-md5", daemon=True)

    def __enter__(self) -> FollowingMd5:
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._over.set()
        self._thread.join()

    def hexdigest(self) -> str:
        """The hash of the file, every block of which is here."""
        self._whole.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._md5.hexdigest()

    def _follow(self) -> None:
        at, size = 0, self._file.size
        try:
            while at < size and not self._over.is_set():
                come = next((start for start, _ in self._file.missing(at, size)), size)
                if come < min(at + _PIECE, size):
                    if self._whole.is_set():
                        return
                    self._over.wait(_PAUSE)
                    continue
                data = self._file.read_at(at, min(_PIECE, come - at))
                self._md5.update(data)
                at += len(data)
        except (OSError, ValueError) as error:  # ValueError: the file was closed meanwhile
            self._failure = error
