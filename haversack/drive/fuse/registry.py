"""The mounts of this user on this machine: a record of each, which any process can find.

A record is a file in the data folder, written whole. The process that serves a mount holds the lock beside it as long
as it lives, so who is dead is asked of the kernel; what goes on there it writes beside that now and then (`Activity`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from filelock import FileLock, Timeout

from haversack import disk, settings
from haversack.drive import ROOT

T = TypeVar("T")


@dataclass(frozen=True)
class Mounted:
    """A drive among this machine's files. `where` says in words where the bytes are; `note` what is unusual."""

    mountpoint: Path
    my_drive: Path
    where: str
    kind: Literal["fuse", "link"]
    note: str = ""


@dataclass(frozen=True)
class Waiting:
    """A written file that the drive does not have yet: `sent` of its `size` bytes are there, and why not all."""

    name: str
    size: int
    sent: int = 0
    uploading: bool = False
    error: str = ""


@dataclass(frozen=True)
class Activity:
    """What goes on in a mount. `waiting` are the first of the pending files, the failed ones before the others.

    `up` and `down` are bytes per second; `names` and `folders` are known without asking; `age` is how many seconds ago
    the drive last said what changed, and `trouble` why it does not.
    """

    pending: int = 0
    size: int = 0
    failed: int = 0
    uploading: int = 0
    up: float = 0.0
    down: float = 0.0
    names: int = 0
    folders: int = 0
    age: float | None = None
    trouble: str = ""
    waiting: list[Waiting] = field(default_factory=list)


@dataclass(frozen=True)
class MountRecord:
    """What is known of a mount. `journal` is the folder of what is written there and is not on the drive yet."""

    mountpoint: str
    namespace: int
    kind: Literal["fuse", "link"]
    where: str
    hub: str
    made: bool
    job: str = ""
    pid: int = 0
    journal: str = ""
    failed: str = ""

    @property
    def file(self) -> Path:
        key = hashlib.sha256(f"{self.namespace} {self.mountpoint}".encode()).hexdigest()[:16]
        return folder() / f"{key}.json"

    def mounted(self, note: str = "") -> Mounted:
        return Mounted(Path(self.mountpoint), Path(self.mountpoint) / ROOT, self.where, self.kind, note)

    def write(self) -> None:
        _write(self.file, asdict(self))

    def remove(self) -> None:
        self.file.unlink(missing_ok=True)
        self._activity.unlink(missing_ok=True)

    def tell(self, activity: Activity) -> None:
        """Write down what goes on in it."""
        _write(self._activity, asdict(activity))

    def activity(self) -> Activity:
        """What was written down last."""
        return _read(self._activity, Activity) or Activity()

    @contextmanager
    def served(self, timeout: float) -> Iterator[None]:
        """Hold the lock of who serves it. Raises `filelock.Timeout` while another process does."""
        with FileLock(self._lock, thread_local=False).acquire(timeout=timeout):
            yield

    def is_served(self) -> bool:
        lock = FileLock(self._lock, thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return True
        lock.release()
        return False

    def is_there(self) -> bool:
        """Whether the drive can be used there, seen from this process."""
        if self.kind == "link":
            return (Path(self.mountpoint) / ROOT).is_symlink()
        return self.namespace == namespace() and self.is_served() and os.path.ismount(self.mountpoint)

    def left(self) -> list[Path]:
        """The records of what was written there, or elsewhere on the same drive, and is not on it yet."""
        return sorted(Path(self.journal).glob("*/*.json")) if self.journal else []

    @property
    def _activity(self) -> Path:
        return self.file.with_suffix(".activity")

    @property
    def _lock(self) -> Path:
        self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self.file.with_suffix(".lock")


def folder() -> Path:
    return settings.load().data / "mounts"


def records() -> list[MountRecord]:
    """Every mount that was not unmounted; the process of one may be dead."""
    return [record for file in sorted(folder().glob("*.json")) if (record := _read(file, MountRecord)) is not None]


def find(mountpoint: Path) -> MountRecord | None:
    """The mount there as this process sees it, else the only one there in another mount namespace."""
    there = [record for record in records() if record.mountpoint == str(mountpoint)]
    own = [record for record in there if record.namespace == namespace()]
    if own:
        return own[0]
    return there[0] if len(there) == 1 else None


def absolute(mountpoint: str | Path) -> Path:
    """The path that a mount is known by; the mount itself, which may be dead, is not looked at."""
    path = Path(os.path.abspath(os.path.expanduser(mountpoint)))
    return path.parent.resolve() / path.name


def again(record: MountRecord) -> MountRecord | None:
    """The record as it is by now; None when the mount is gone."""
    return _read(record.file, MountRecord)


def namespace() -> int:
    """The mount namespace: the same path may be another place in each."""
    try:
        return os.stat("/proc/self/ns/mnt").st_ino
    except FileNotFoundError:
        return 0


def _write(file: Path, values: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    disk.write(file, json.dumps(values), durable=False, private=True)


def _read(file: Path, kind: type[T]) -> T | None:
    """What another process wrote; None for what is not there, or of another version."""
    try:
        values = json.loads(file.read_text())
        known = {one.name for one in fields(kind)}  # type: ignore[arg-type]
        values = {name: value for name, value in values.items() if name in known}
        if "waiting" in values:
            values["waiting"] = [Waiting(**one) for one in values["waiting"]]
        return kind(**values)
    except (FileNotFoundError, json.JSONDecodeError, TypeError, AttributeError):
        return None
