"""What goes on in this machine's mounts: what is pending, on its way, or refused by the drive and why; how fast.

Read from what the serving processes write down every second. What dead processes left behind is counted too; it goes up
with the next mount. Nothing is asked of any drive.
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

_NAMED = 5


@dataclass(frozen=True)
class Mount:
    """One mount; `state` is "dead" when its process is gone, "link" where the drive is a folder of this machine."""

    mountpoint: str
    where: str
    state: Literal["served", "dead", "link"]
    activity: Activity

    def __str__(self) -> str:
        return "\n  ".join([f"{self.mountpoint}: {self.where}", *self._lines()])

    def _lines(self) -> list[str]:
        now = self.activity
        if self.state == "link":
            return ["What is written there is on this machine's disk at once."]
        if self.state == "dead":
            return [f"Its process is dead. Bring what was written to the drive: haversack unmount {self.mountpoint}"]
        lines = ["Everything that was written is on the drive."]
        if now.pending:
            lines = [f"{_many(now.pending)} ({size(now.size)}) wait to be on the drive, {now.uploading} on their way."]
        lines += [f"{one.name}: {one.error}" for one in now.waiting if one.error][:_NAMED]
        if now.up or now.down:
            lines.append(f"Writing {size(now.up)}/s, reading {size(now.down)}/s.")
        lines.append(f"{now.names:,} names known, {now.folders:,} folders listed.")
        if now.trouble:
            lines.append(f"What others change is not seen at once: {now.trouble}")
        return lines


@dataclass(frozen=True)
class Status:
    """The mounts, and the files and bytes that wait for the next mount because their process is dead."""

    mounts: list[Mount] = field(default_factory=list)
    left: int = 0
    left_size: int = 0

    def __str__(self) -> str:
        lines = [str(mount) for mount in self.mounts] or ["No drive is mounted."]
        if self.left:
            lines.append(f"{_many(self.left)} ({size(self.left_size)}) were left and wait for the next mount.")
        return "\n".join(lines)


def status(mountpoint: str | Path | None = None) -> Status:
    """What goes on in every mount, or in the one at `mountpoint`. Raises `MountError` when there is none."""
    records = registry.records()
    if mountpoint is not None:
        path = str(registry.absolute(mountpoint))
        records = [record for record in records if record.mountpoint == path]
        if not records:
            raise MountError(
                f"No drive is mounted at {path}.", "Check the path; `haversack drive status` lists mounts."
            )
    left = _left()
    return Status([_of(record) for record in records], len(left), sum(left))


def _of(record: MountRecord) -> Mount:
    if record.kind == "link":
        return Mount(record.mountpoint, record.where, "link", Activity())
    state: Literal["served", "dead"] = "served" if record.is_served() else "dead"
    return Mount(record.mountpoint, record.where, state, record.activity())


def _left() -> list[int]:
    """The sizes of what dead processes left in their journals."""
    sizes = []
    for home in (settings.load().data / "drives").glob("*"):
        # Nobody takes a journal over while its lock is tried here.
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
    try:
        return load(record).size
    except (OSError, ValueError, TypeError, KeyError):
        return 0  # it cannot be read, but it is there


def _many(count: int) -> str:
    return f"{count:,} file" + "s" * (count != 1)
