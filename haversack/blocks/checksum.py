"""The MD5 of a sparse file, computed by a thread while the file is being filled, so that little is left at the end.

The thread reads blocks soon after they were written, mostly from the page cache. It does not notice a block that is
written again after it was hashed. A caller whose expected MD5 differs must therefore hash the whole file before it
calls the file damaged.
"""

from __future__ import annotations

import hashlib
import threading
from typing import Any

from haversack.blocks.sparse import SparseFile

_CHUNK = 4 << 20
_POLL_INTERVAL = 0.05  # seconds


class BackgroundMd5:
    """Computes the MD5 of `file` in a thread that runs from the start to the end of the `with` block.

    `_stopped` ends the thread at once; `_no_more` tells it that no more blocks will come. `_failure` is the error that
    ended it, read after the thread was joined.
    """

    def __init__(self, file: SparseFile) -> None:
        self._file = file
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._stopped, self._no_more = threading.Event(), threading.Event()
        self._failure: OSError | ValueError | None = None
        self._thread = threading.Thread(target=self._follow, name="haversack-md5", daemon=True)

    def __enter__(self) -> BackgroundMd5:
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stopped.set()
        self._thread.join()

    def hexdigest(self) -> str:
        """Wait until the thread has hashed the file, and return the MD5 in hex; call it once every block is present.

        If blocks are missing, this does not wait for them and returns a wrong MD5, that of fewer bytes. Raises
        `OSError` if the file could not be read, and `OSError` or `ValueError` if it was closed.
        """
        self._no_more.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._md5.hexdigest()

    def _follow(self) -> None:
        """Hash the file from start to end; wait at a missing block until it is present or no more will come."""
        at, size = 0, self._file.size
        try:
            while at < size and not self._stopped.is_set():
                present_to = next((start for start, _ in self._file.missing(at, size)), size)
                if present_to < min(at + _CHUNK, size):
                    if self._no_more.is_set():
                        return
                    self._stopped.wait(_POLL_INTERVAL)
                    continue
                data = self._file.read_at(at, min(_CHUNK, present_to - at))
                self._md5.update(data)
                at += len(data)
        except (OSError, ValueError) as error:  # ValueError: the file was closed
            self._failure = error
