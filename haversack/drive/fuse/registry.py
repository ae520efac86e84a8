"""The mounts of this user on this machine: a record of each, which any process can find.

A mount has up to four files in the data folder, `mounts/<key>`, with a key made from its mount namespace and path:
`.json` is its record, replaced atomically; `.lock` is locked by the serving process for as long as it lives, so whether
that process is alive is asked of the kernel; `.activity` holds what the process last reported about its transfers; and
`.log` is its log. `MountRecord` has the states of a mount.
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
    """A drive mounted at `mountpoint`, with My Drive as the folder `my_drive`.

    `where` says in words where the bytes are. `kind` is "fuse", or "link" for a symbolic link to the embedded hub's
    folder; then `note` says why.
    """

    mountpoint: Path
    my_drive: Path
    where: str
    kind: Literal["fuse", "link"]
    note: str = ""


@dataclass(frozen=True)
class PendingFile:
    """A written file that the drive does not have yet.

    The drive has received `sent` of its `size` bytes. `uploading` says that its upload is in flight; `error` is why its
    last upload failed, or "".
    """

    name: str
    size: int
    sent: int = 0
    uploading: bool = False
    error: str = ""


@dataclass(frozen=True)
class Activity:
    """A mount's pending uploads, its transfer rates, and how much of the drive's index is cached.

    | field | meaning |
    |---|---|
    | `pending` | number of files that are not uploaded yet |
    | `failed`, `uploading` | how many of them failed at the last attempt; how many are in flight |
    | `size` | bytes of the pending files that are not on the drive yet |
    | `up`, `down` | bytes per second |
    | `names`, `folders` | names that are cached, and folders that were listed completely |
    | `age` | seconds since the drive last answered what changed; None if not since this machine started |
    | `trouble` | why the drive does not answer what changed, or "" |
    | `waiting` | the first 20 pending files, failed ones first, then those in flight |
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
    waiting: list[PendingFile] = field(default_factory=list)


@dataclass(frozen=True)
class MountRecord:
    """The record of one mount. It is immutable; a change replaces its file.

    States. No field holds the state: it follows from the record's file, its `kind` and `failed`, and the serving lock.

    | state | record | serving lock | kernel mount |
    |---|---|---|---|
    | gone | none | free | none |
    | starting | none, or an older stale one | held, once the serving process runs | none |
    | serving | "fuse" | held | live |
    | draining | "fuse" | held | live, writes get `EROFS`; none if it was unmounted by another program |
    | failed | "fuse", `failed` set | free | none |
    | stale | "fuse", `failed` empty | free | dead (`ENOTCONN`) until it is cleared |
    | link | "link" | free | none; `My Drive` and `MyDrive` are symbolic links |

    Transitions.

    | from | to | cause |
    |---|---|---|
    | gone, stale, failed | starting | `mount.mount` starts a serving process, or serves itself with `foreground` |
    | starting | serving | the kernel has mounted; the serving process writes the record |
    | starting | gone, stale, failed (as before) | an error or 60 seconds without an answer; `mount` raises |
    | starting | link | FUSE refuses to mount the embedded drive, and neither `readonly` nor `foreground` is set |
    | gone, stale, failed | link | `mount.mount` where FUSE cannot be used, of the embedded drive |
    | serving | draining | SIGTERM (sent by `unmount`), SIGINT or SIGHUP; or another program unmounts it |
    | draining | gone | everything is uploaded; the serving process removes the record |
    | draining | failed | a file could not be uploaded after one more attempt; the drive is unmounted all the same |
    | serving, draining | stale | the serving process dies |
    | failed | gone | the `unmount` that waited for the process removes the record and raises `MountError` |
    | failed, stale | gone | `unmount` uploads what is left, and removes the record even if a file fails again |
    | failed, stale | as before | `unmount` cannot reach the drive, and raises `MountError` |
    | failed, stale | gone | any `mount` or `unmount` in the namespace, if no file is pending and no job owns it |
    | link | gone | `unmount` |

    Pending files are in the drive's journal, not in the record, so removing a record loses none: the next mount of the
    drive uploads them.

    Fields.

    | field | type | assigned by |
    |---|---|---|
    | `mountpoint` | str, absolute | `mount.mount` |
    | `namespace` | int, inode of the mount namespace, 0 without one | `mount.mount` |
    | `kind` | "fuse" or "link" | `mount.mount`: "fuse", replaced by "link" when it makes one |
    | `where` | str, where the bytes are, in words | `mount.mount` |
    | `hub` | str, "embedded", "google" or a URL | `mount.mount` |
    | `made` | bool, the mountpoint did not exist and is removed at the end | `mount.mount` |
    | `job` | str, the folder of the notebook job that mounts, or "" | `mount.mount` |
    | `pid` | int, the serving process; 0 in a link | the serving process, before it writes the record |
    | `journal` | str, the folder with the journals of the drive; "" in a link | the serving process, likewise |
    | `failed` | str, which files are not on the drive and why; "" if none | the serving process, after draining |

    While the serving lock is held, only its holder writes or removes a "fuse" record. Once it is free, any process may
    remove the record. A "link" record is written by the process that mounts, and has no lock.
    """

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
        """Write the record with an atomic replace; it is not synced, since no mount survives a power cut."""
        _write(self.file, asdict(self))

    def remove(self) -> None:
        """Remove the record and the activity; the lock file stays."""
        self.file.unlink(missing_ok=True)
        self._activity_file.unlink(missing_ok=True)

    def write_activity(self, activity: Activity) -> None:
        """Publish `activity` for other processes. Raises `OSError` if the disk is full."""
        _write(self._activity_file, asdict(activity))

    def read_activity(self) -> Activity:
        """Return the activity that the serving process published last; one with all fields empty if there is none."""
        return _read(self._activity_file, Activity) or Activity()

    @contextmanager
    def serving(self, timeout: float) -> Iterator[None]:
        """Hold the serving lock of this mount while the block runs.

        Raises `filelock.Timeout` if it is held elsewhere for `timeout` seconds.
        """
        with FileLock(self._lock_file, thread_local=False).acquire(timeout=timeout):
            yield

    def is_served(self) -> bool:
        """Whether a live process holds the serving lock."""
        lock = FileLock(self._lock_file, thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return True
        lock.release()
        return False

    def is_usable(self) -> bool:
        """Whether this process can use the drive there: the links exist, or its namespace has a live mount."""
        if self.kind == "link":
            return (Path(self.mountpoint) / ROOT).is_symlink()
        return self.namespace == namespace() and self.is_served() and os.path.ismount(self.mountpoint)

    def pending_files(self) -> list[Path]:
        """Return the journal records of this drive's pending files, whichever process wrote them; [] for a link."""
        return sorted(Path(self.journal).glob("*/*.json")) if self.journal else []

    @property
    def _activity_file(self) -> Path:
        return self.file.with_suffix(".activity")

    @property
    def _lock_file(self) -> Path:
        self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self.file.with_suffix(".lock")


def folder() -> Path:
    """Return the folder of the records of all mounts, in the data folder of the settings."""
    return settings.load().data / "mounts"


def records() -> list[MountRecord]:
    """Return the record of every mount, in any state; an invalid record is left out."""
    return [record for file in sorted(folder().glob("*.json")) if (record := _read(file, MountRecord)) is not None]


def find(mountpoint: Path) -> MountRecord | None:
    """Return the record of `mountpoint` in this mount namespace, else the only one in any other; None if there is none.

    Two or more in other namespaces are ambiguous, and give None too.
    """
    found = [record for record in records() if record.mountpoint == str(mountpoint)]
    own = [record for record in found if record.namespace == namespace()]
    if own:
        return own[0]
    return found[0] if len(found) == 1 else None


def absolute(mountpoint: str | Path) -> Path:
    """Return the absolute path under which a mount is recorded, with the links of its parent resolved.

    The mountpoint itself is not accessed: a dead mount would raise `OSError`.
    """
    path = Path(os.path.abspath(os.path.expanduser(mountpoint)))
    return path.parent.resolve() / path.name


def reload(record: MountRecord) -> MountRecord | None:
    """Return the mount's record as it is on disk now; None if it was removed or is invalid."""
    return _read(record.file, MountRecord)


def namespace() -> int:
    """Return the inode of this process's mount namespace, in which paths are resolved; 0 where there are none."""
    try:
        return os.stat("/proc/self/ns/mnt").st_ino
    except FileNotFoundError:
        return 0


def _write(file: Path, values: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    disk.write(file, json.dumps(values), durable=False, private=True)


def _read(file: Path, kind: type[T]) -> T | None:
    """Return the `kind` stored in `file`, ignoring unknown fields; None if it is missing or does not fit `kind`."""
    try:
        values = json.loads(file.read_text())
        known = {one.name for one in fields(kind)}  # type: ignore[arg-type]
        values = {name: value for name, value in values.items() if name in known}
        if "waiting" in values:
            values["waiting"] = [PendingFile(**one) for one in values["waiting"]]
        return kind(**values)
    except (FileNotFoundError, json.JSONDecodeError, TypeError, AttributeError):
        return None
