"""The status of this machine's mounts: pending uploads, those the drive refused and why, and transfer rates.

It is read from the activity that each serving process publishes every second, and from the journals of dead processes,
whose files the next mount uploads. No drive is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from haversack import settings
from haversack.drive.fuse import registry
from haversack.drive.fuse.registry import Activity, MountRecord
from haversack.drive.writeback.draft import load
from haversack.errors import MountError
from haversack.progress import size

_MAX_ERRORS_SHOWN = 5


@dataclass(frozen=True)
class MountStatus:
    """The status of one mount.

    Attributes:
        mountpoint: Its folder.
        where: Where the bytes of the drive are, in words.
        state: "served"; "dead" if no process serves it; "link" if it is a symbolic link to a folder of this machine.
        activity: What its process published last; all fields empty for a link.
    """

    mountpoint: str
    where: str
    state: Literal["served", "dead", "link"]
    activity: Activity

    def __str__(self) -> str:
        return "\n  ".join([f"{self.mountpoint}: {self.where}", *self._lines()])

    def _lines(self) -> list[str]:
        now = self.activity
        if self.state == "link":
            return ["Writes go straight to this machine's disk."]
        if self.state == "dead":
            return [f"Its process is dead. To upload what was written: haversack unmount {self.mountpoint}"]
        lines = ["Everything written is on the drive."]
        if now.pending:
            lines = [f"{_file_count(now.pending)} ({size(now.size)}) pending, {now.uploading} of them being uploaded."]
        lines += [f"{one.name}: {one.error}" for one in now.waiting if one.error][:_MAX_ERRORS_SHOWN]
        if now.up or now.down:
            lines.append(f"Uploading {size(now.up)}/s, downloading {size(now.down)}/s.")
        lines.append(f"{now.names:,} names cached, {now.folders:,} folders listed.")
        if now.trouble:
            lines.append(f"Changes made elsewhere are not seen at once: {now.trouble}")
        return lines


@dataclass(frozen=True)
class Status:
    """The status of all mounts, and the files that dead processes have left to upload.

    `left` is the number of pending files in the journals of dead processes, of all drives, and `left_size` their size
    in bytes; the next mount of the drive uploads them.
    """

    mounts: list[MountStatus] = field(default_factory=list)
    left: int = 0
    left_size: int = 0

    def __str__(self) -> str:
        lines = [str(mount) for mount in self.mounts] or ["No drive is mounted."]
        if self.left:
            lines.append(
                f"{_file_count(self.left)} ({size(self.left_size)}) of dead processes pending: mount the drive again."
            )
        return "\n".join(lines)


def status(mountpoint: str | Path | None = None) -> Status:
    """Return the status of every mount, or of the one at `mountpoint`. Raises `MountError` if there is none there."""
    records = registry.records()
    if mountpoint is not None:
        path = str(registry.absolute(mountpoint))
        records = [record for record in records if record.mountpoint == path]
        if not records:
            raise MountError(
                f"No drive is mounted at {path}.", "Check the path; `haversack drive status` lists mounts."
            )
    sizes = _abandoned_sizes()
    return Status([_mount_status(record) for record in records], len(sizes), sum(sizes))


def _mount_status(record: MountRecord) -> MountStatus:
    if record.kind == "link":
        return MountStatus(record.mountpoint, record.where, "link", Activity())
    state: Literal["served", "dead"] = "served" if record.is_served() else "dead"
    return MountStatus(record.mountpoint, record.where, state, record.read_activity())


def _abandoned_sizes() -> list[int]:
    """Return the size in bytes of each pending file in a journal whose owner is dead."""
    sizes = []
    for home in (settings.load().data / "drives").glob("*"):
        # While this lock is held, no process takes over a journal whose lock is tried below.
        with FileLock(home / "journals.lock"):
            for journal in home.glob("*/owner.lock"):
                if _is_free(journal):
                    sizes += [_size_of(record) for record in journal.parent.glob("*.json")]
    return sizes


def _is_free(lock: Path) -> bool:
    held = FileLock(lock, thread_local=False)
    try:
        held.acquire(blocking=False)
    except Timeout:
        return False
    held.release()
    return True


def _size_of(record: Path) -> int:
    """Return the size in bytes of a draft; 0 if its record is damaged, so that the file is still counted."""
    try:
        return load(record).size
    except (OSError, ValueError, TypeError, KeyError):
        return 0


def _file_count(count: int) -> str:
    return f"{count:,} file" + "s" * (count != 1)
