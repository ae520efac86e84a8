"""Which job holds which GPU: a file lock (flock(2)) for each GPU, `gpus/UUID.lock` in the data folder.

The system releases a lock once the process that took it and all that inherited it have ended, however they died. While
it is locked, the file says who holds it.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from haversack import settings
from haversack.gpus.nvidia_smi import Gpu


@dataclass(frozen=True)
class GpuHolder:
    """The job that holds a GPU: its name, and the id of its `haversack run`."""

    job: str
    pid: int

    def __str__(self) -> str:
        return f"the job {self.job} (process {self.pid})"


def folder() -> Path:
    """Return the folder of the locks and of the queue, which may not exist."""
    return settings.load().data / "gpus"


def lock(gpu: Gpu) -> int | None:
    """Lock a GPU and return the file descriptor; None if another job holds it. Raises `OSError`."""
    folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(_file(gpu), os.O_RDWR | os.O_CREAT, 0o600)
    if try_lock(descriptor, fcntl.LOCK_EX):
        return descriptor
    os.close(descriptor)
    return None


def sign(descriptor: int, held: GpuHolder) -> None:
    """Write into a GPU's locked file who holds it. Raises `OSError`."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(asdict(held)).encode(), 0)


def holder(gpu: Gpu) -> GpuHolder | None:
    """Return the job of this user that holds `gpu`; None if none does, or if it has not signed yet. Writes nothing."""
    try:
        with open(_file(gpu), "rb") as file:
            return None if try_lock(file.fileno(), fcntl.LOCK_SH) else GpuHolder(**json.loads(file.read()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def try_lock(descriptor: int, kind: int) -> bool:
    """Lock an open file by `kind`, LOCK_EX or LOCK_SH, without waiting; return whether that worked."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock of `file`, which is created, in the block; waits for it. Raises `OSError`."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _file(gpu: Gpu) -> Path:
    # The UUID of a MIG device has slashes with drivers before 470.
    return folder() / f"{gpu.uuid.replace('/', '_')}.lock"
