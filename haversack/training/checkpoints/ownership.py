"""Ownership of a run: the session that wrote the newest link of the run's chain owns it.

Everything that a session commits is a link: a checkpoint, a claim or a release. A link names its successor before that
exists, and a successor can be created only once: on a disk by a rename that never replaces, in a store by exclusive
creation, on a drive by the file id that the link before it reserved. So of two sessions that extend the same link the
second is refused, whatever their clocks say and however long either was suspended. A session takes a run over by
committing a claim. The former owner's next commit is refused, and that session stops.

A session that was suspended may miss a successor that was created and then deleted by retention. The newest link of a
chain is never deleted, so on waking up the session finds a link newer than its own, or no longer its own, and knows
that it lost the run.

On the same machine the kernel tells whether an owner is alive (process id and start time). On another machine the time
of its last link is a hint: it decides whether `RunTaken` is raised, but never who may commit.

`Checkpoints` has the table of a claim's states.
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

_SILENCE_ALLOWED = 600.0
"""Seconds after its last link for which a session on another machine counts as alive: ten times the usual longest pause
between two saves of a training (`rhythm.Rhythm`)."""


@dataclass(frozen=True)
class RunOwner:
    """A session that owns or owned a run: from a claim to a release, or to the end of the process.

    Attributes:
        id: random, unique for each session.
        host: the name of its machine.
        machine: identifies boot and pid namespace, within which a `pid` is one process at a time.
        pid: the id of its process.
        started: its process's start time as the kernel reports it, which tells processes with the same `pid` apart.
        place: where it runs: "colab", "kaggle", "notebook" or "terminal".
        since: when the session began, in seconds since 1970.
        job: the name of the notebook job that the process belongs to; "" for none.
    """

    id: str
    host: str
    machine: str
    pid: int
    started: str
    place: str
    since: float
    job: str = ""

    @classmethod
    def of_this_process(cls) -> RunOwner:
        """Return a new session of this process, with a new id, that begins now."""
        pid = os.getpid()
        host, machine = socket.gethostname(), _machine_id()
        started, since = _start_time(pid), time.time()
        return cls(secrets.token_hex(8), host, machine, pid, started, place.here(), since, place.job())

    @property
    def is_this_process(self) -> bool:
        """Whether the session ran, or runs, in the calling process."""
        return (self.machine, self.pid, self.started) == (_machine_id(), os.getpid(), _start_time(os.getpid()))

    def seems_alive(self, last_link: float) -> bool:
        """Whether the session probably still runs; `last_link` is the time of its last link in seconds since 1970.

        On this machine: whether its process runs. On another machine: whether `last_link` is less than 10 minutes ago,
        or in the future, since the two clocks may differ.
        """
        if self.machine == _machine_id():
            return _start_time(self.pid) == self.started != ""
        return time.time() - last_link < _SILENCE_ALLOWED

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since, UTC).astimezone()
        return f"process {self.pid} on {self.host} ({self.place}) since {since:%Y-%m-%d %H:%M:%S}"


def run_taken(name: str, owner: RunOwner, last_link: float) -> RunTaken:
    """Return the error for a session that tries to claim the run `name`, which `owner` owns.

    `last_link` is the time of the owner's last link in seconds since 1970.
    """
    silence = max(0.0, time.time() - last_link)
    return RunTaken(
        f"The run {name} belongs to {owner}, which last wrote to it {_format_duration(silence)} ago.",
        "Stop that session, or take the run over with take_over=True; that session then stops at its next save.",
    )


def run_lost(name: str, owner: RunOwner | None) -> RunLost:
    """Return the error for the former owner of the run `name`.

    `owner` is the new owner, or None if the run's checkpoints were moved or deleted.
    """
    if owner is None:
        return RunLost(
            f"The checkpoints of the run {name} were moved or deleted, so this session cannot save any more.",
            "Move them back and resume from them, or start a new run.",
        )
    return RunLost(
        f"The run {name} was taken over by {owner}, so this session cannot save any more.",
        "Continue there, or take the run back with take_over=True.",
    )


def _format_duration(seconds: float) -> str:
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"


def _machine_id() -> str:
    """Return the boot id and the pid namespace, within which a process id means one process; else the host's name."""
    try:
        return disk.boot_id() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return socket.gethostname()


def _start_time(pid: int) -> str:
    """Return when the process `pid` started, in clock ticks since boot; "" if there is none, or it is a zombie."""
    try:
        # The name in parentheses may contain spaces and parentheses, so parse after the last one (proc(5)).
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "" if Path("/proc/self").exists() else _running_without_proc(pid)
    return "" if state in "ZX" else fields[18]


def _running_without_proc(pid: int) -> str:
    """Return "running" if the process `pid` exists, else ""; for systems without /proc, which give no start time."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "running"
