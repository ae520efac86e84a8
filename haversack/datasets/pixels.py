"""Decoded pixels kept on the disk, because decoding is what reading images costs: the next epoch copies memory.

One file of uint8 in the shape (images, height, width, channels), mapped into memory, and one beside it with a byte for
each image, which is set only after the pixels are on the disk: what it says is true after SIGKILL and after a power
cut. Processes share both; an image that two of them decode is written twice with the same bytes.
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

_SHARE_OF_FREE = 0.5
# So many bytes of pixels are brought to the disk at once, and so many are mapped at most.
_TOGETHER, _MAPPED = 64 << 20, 16 << 20


class PixelCache:
    """The pixels of `count` images of one form, in `folder`. Safe for threads and processes; see `open_cache`."""

    def __init__(self, folder: Path, count: int, form: Form) -> None:
        self._made_of = folder, count, form
        folder.mkdir(parents=True, exist_ok=True)
        data, here = folder / "pixels", folder / "here"
        with FileLock(folder / "lock"):
            if not (_is_of(data, count * form.bytes) and _is_of(here, count)):
                here.write_bytes(bytes(count))  # no hole: a full disk would end the process where it is mapped
                with open(data, "wb") as file:
                    file.truncate(count * form.bytes)
        with open(data, "rb") as file:
            self._mapped = mmap.mmap(file.fileno(), count * form.bytes, access=mmap.ACCESS_READ)
        self._pixels = np.frombuffer(self._mapped, np.uint8).reshape(count, *form.shape)
        with open(here, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), count)
        self._here = np.frombuffer(self._map, np.uint8)
        self._descriptor = os.open(data, os.O_WRONLY)
        self._full = False
        self._written: list[NDArray[np.int64]] = []
        self._unsaid = self._looked_at = 0
        self._lock, self._flushing = threading.Lock(), threading.Lock()

    def __reduce__(self) -> Any:
        return PixelCache, self._made_of

    def has(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the images are here."""
        return self._here[rows] == 1

    def read(self, rows: NDArray[np.int64], out: Pixels) -> None:
        """Copy the images in `rows`, which are here, into `out` of shape (len(rows), height, width, channels)."""
        np.take(self._pixels, rows, axis=0, out=out, mode="clip")
        self._looked_at += out.nbytes
        if self._looked_at >= _MAPPED:
            self._looked_at = 0
            # They stay in the system's cache, and count no longer as memory of this process.
            self._mapped.madvise(mmap.MADV_DONTNEED)

    def keep(self, rows: NDArray[np.int64], pixels: Pixels) -> None:
        """Write these images; they count as being here once they are on the disk. A full disk takes no more of them."""
        if self._full:
            return
        try:
            for row, image in zip(rows.tolist(), pixels, strict=True):
                os.pwrite(self._descriptor, image, row * image.nbytes)
        except OSError as error:
            self._full = True
            log.warning("Decoded images are kept no more: %s.", error.strerror)
            return
        with self._lock:
            self._written.append(rows)
            self._unsaid += pixels.nbytes
            if self._unsaid < _TOGETHER:
                return
            self._unsaid = 0
        # Whoever decodes does not wait for the disk.
        threading.Thread(target=self.flush, name="haversack-pixels").start()

    def flush(self) -> None:
        """Bring what was written to the disk, and say that it is there."""
        with self._flushing:
            with self._lock:
                written, self._written = self._written, []
            if written:
                os.fdatasync(self._descriptor)
                self._here[np.concatenate(written)] = 1
                self._map.flush()

    def close(self) -> None:
        self.flush()
        with self._flushing:
            os.close(self._descriptor)


def open_cache(folder: Path, count: int, form: Form) -> PixelCache | None:
    """The cache of these images in `folder`; None where it would take more than half of the space that is free."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    needed = count * form.bytes
    there = (folder / "pixels").stat().st_blocks * 512 if (folder / "pixels").exists() else 0
    if not count or needed - there > shutil.disk_usage(folder.parent).free * _SHARE_OF_FREE:
        return None
    return PixelCache(folder, count, form)


def _is_of(path: Path, size: int) -> bool:
    return path.exists() and path.stat().st_size == size
