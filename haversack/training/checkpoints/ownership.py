"""Who owns a run: the session that wrote the newest link of its chain.

Whatever a session commits is a link, and each link names its successor before that exists. A successor can be created
once only, on a disk by a rename that never replaces, on a drive by its id. So of two sessions that go on from one link
the second is refused, whatever their clocks say and however long either was asleep. A session that takes a run over
writes a link without a checkpoint (a claim); from then on what the former owner commits is refused, and it stops.

A link may have been created and cleared away again by retention before a session that slept tries to create it. The
newest link of a chain is never cleared away, so that session finds a later one than its own, and knows.

Whether an owner still lives is asked of this machine's kernel where it ran here. Elsewhere the age of its last link is
a hint and no more: it decides what is said, and never who may commit.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from haversack import disk, place
from haversack.errors import RunLost, RunTaken

RECENT = 600.0
"""Seconds for which a session on another machine that said nothing is taken to be alive: twice the longest pause
between two saves."""


@dataclass(frozen=True)
class RunOwner:
    """One life of one process that trains. `since` in seconds since 1970; `machine` and `started` tell processes apart
    that have one number."""

    id: str
    host: str
    machine: str
    pid: int
    started: str
    place: str
    since: float

    @classmethod
    def begin(cls) -> RunOwner:
        """A session of this process that begins now."""
        pid = os.getpid()
        host, machine = socket.gethostname(), _machine()
        return cls(secrets.token_hex(8), host, machine, pid, _started(pid), place.here(), time.time())

    @property
    def is_here(self) -> bool:
        """Whether it is one of this process."""
        return (self.machine, self.pid, self.started) == (_machine(), os.getpid(), _started(os.getpid()))

    def seems_alive(self, last_heard: float) -> bool:
        """Whether its process runs; elsewhere, whether it was heard of lately or ahead of our clock."""
        if self.machine == _machine():
            return _started(self.pid) == self.started != ""
        return time.time() - last_heard < RECENT

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since, UTC).astimezone()
        return f"process {self.pid} on {self.host} ({self.place}) since {since:%Y-%m-%d %H:%M:%S}"


def taken(name: str, owner: RunOwner, last_heard: float) -> RunTaken:
    """What a second session is told."""
    heard = max(0.0, time.time() - last_heard)
    return RunTaken(
        f"The run {name} belongs to {owner}, last heard of {_duration(heard)} ago.",
        "Stop that session, or take the run over with take_over=True; that session then stops at its next save.",
    )


def lost(name: str, owner: RunOwner | None) -> RunLost:
    """What the former owner is told; without a new owner its checkpoints were moved or deleted."""
    if owner is None:
        return RunLost(
            f"The checkpoints of the run {name} are not where they were, so nothing more of this session is saved.",
            "Put them back and go on from them, or begin anew.",
        )
    return RunLost(
        f"The run {name} was taken over by {owner}, so nothing more of this session is saved.",
        "Go on there, or take it back with take_over=True.",
    )


def _duration(seconds: float) -> str:
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"


def _machine() -> str:
    """This boot of this machine, or of this container: where a process number means one process."""
    try:
        return disk.boot_id() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str:
    """When a process started, in the kernel's own ticks; "" when there is none of that number."""
    try:
        # The name in parentheses may hold anything, so what follows the last one is read (proc(5)).
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "" if Path("/proc/self").exists() else _started_elsewhere(pid)
    return "" if state in "ZX" else fields[18]


def _started_elsewhere(pid: int) -> str:
    """Where there is no /proc: whether there is such a process at all."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "running"
