"""The cache of decoded pixels on the disk: later epochs copy pixels from memory instead of decoding images again.

The file `pixels` is a memory-mapped uint8 array of shape (images, height, width, channels). The file `here` has one
byte per image, which is set only once the image's pixels are synced to the disk, so it is correct after SIGKILL and
after a power cut. Processes share both files. If two of them decode the same image, they write the same bytes.
"""

from __future__ import annotations

import logging
import mmap
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from haversack.datasets.decode import Form, Pixels

log = logging.getLogger(__name__)

_MAX_SHARE_OF_FREE_SPACE = 0.5
# Sync after this many written bytes.
_SYNC_AFTER = 64 << 20
# Release the mapped pages after this many read bytes.
_RELEASE_AFTER = 16 << 20


class PixelCache:
    """The decoded pixels of `count` images in the form `form`, in files in `folder`; a row is an image's number from 0.

    Files of another size are replaced. Thread-safe, and safe for several processes with the same folder. Pickling
    reopens the cache. Use `open_cache`, which checks the disk's space. Raises `OSError` if the files cannot be opened.
    """

    def __init__(self, folder: Path, count: int, form: Form) -> None:
        self._arguments = folder, count, form
        folder.mkdir(parents=True, exist_ok=True)
        data, present = folder / "pixels", folder / "here"
        with FileLock(folder / "lock"):
            if not (_has_size(data, count * form.bytes) and _has_size(present, count)):
                present.write_bytes(bytes(count))  # no hole: a write to a mapped hole on a full disk raises SIGBUS
                with open(data, "wb") as file:
                    file.truncate(count * form.bytes)
        with open(data, "rb") as file:
            self._pixel_map = mmap.mmap(file.fileno(), count * form.bytes, access=mmap.ACCESS_READ)
        self._pixels = np.frombuffer(self._pixel_map, np.uint8).reshape(count, *form.shape)
        with open(present, "r+b") as file:
            self._present_map = mmap.mmap(file.fileno(), count)
        self._present = np.frombuffer(self._present_map, np.uint8)
        self._descriptor = os.open(data, os.O_WRONLY)
        self._full = False
        # Rows whose pixels are written and not synced, and bytes written since the last sync began; guarded by _lock.
        self._written: list[NDArray[np.int64]] = []
        self._unsynced_bytes = 0
        self._bytes_read = 0
        self._lock = threading.Lock()
        # Held during a sync; taken before _lock.
        self._flushing = threading.Lock()

    def __reduce__(self) -> Any:
        return PixelCache, self._arguments

    def has(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return a boolean array: for each of the images `rows`, whether its pixels are cached and synced."""
        cached: NDArray[np.bool_] = self._present[rows] == 1
        return cached

    def read(self, rows: NDArray[np.int64], out: Pixels) -> None:
        """Copy the images `rows`, which must be cached, to `out` of shape (len(rows), height, width, channels)."""
        np.take(self._pixels, rows, axis=0, out=out, mode="clip")
        self._bytes_read += out.nbytes
        if self._bytes_read >= _RELEASE_AFTER:
            self._bytes_read = 0
            # The pages stay in the page cache, but no longer count as resident memory of this process.
            self._pixel_map.madvise(mmap.MADV_DONTNEED)

    def add(self, rows: NDArray[np.int64], pixels: Pixels) -> None:
        """Write the pixels, of shape (len(rows), height, width, channels), of the images `rows`.

        `has` is True for them once they are synced: by `flush`, or in the background after every 64 MiB. The first
        write that fails logs a warning and disables further ones; nothing is raised.
        """
        if self._full:
            return
        try:
            for row, image in zip(rows.tolist(), pixels, strict=True):
                os.pwrite(self._descriptor, image, row * image.nbytes)
        except OSError as error:
            self._full = True
            log.warning("No more decoded images are cached: %s. Free space on the disk.", error.strerror)
            return
        with self._lock:
            self._written.append(rows)
            self._unsynced_bytes += pixels.nbytes
            if self._unsynced_bytes < _SYNC_AFTER:
                return
            self._unsynced_bytes = 0
        # In a thread, so that decoding does not wait for the disk.
        threading.Thread(target=self.flush, name="haversack-pixels").start()

    def flush(self) -> None:
        """Sync the pixels that `add` wrote, then mark their images as cached. Raises `OSError` if the sync fails."""
        with self._flushing:
            with self._lock:
                written, self._written = self._written, []
            if written:
                os.fdatasync(self._descriptor)
                self._present[np.concatenate(written)] = 1
                self._present_map.flush()

    def close(self) -> None:
        """Flush, and close the file for writing. `read` still works afterwards; `add` must not be called any more."""
        self.flush()
        with self._flushing:
            os.close(self._descriptor)


def open_cache(folder: Path, count: int, form: Form) -> PixelCache | None:
    """Open the pixel cache of `count` images of the form `form` in `folder`; create it if it is missing.

    Returns None if `count` is 0, or if what the cache has yet to allocate is more than half of the free space on the
    disk. Raises `OSError` if its files cannot be created.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    needed = count * form.bytes
    allocated = (folder / "pixels").stat().st_blocks * 512 if (folder / "pixels").exists() else 0
    if not count or needed - allocated > shutil.disk_usage(folder.parent).free * _MAX_SHARE_OF_FREE_SPACE:
        return None
    return PixelCache(folder, count, form)


def _has_size(path: Path, size: int) -> bool:
    return path.exists() and path.stat().st_size == size
