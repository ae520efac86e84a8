"""The processes of a job: all processes with `HAVERSACK_JOB=<its folder>` in their environment.

Runs in the process of `haversack run`. When a session ends on a cloud machine, all of its processes end. Killing the
kernel's process group is not enough: cells may start processes in other process groups or sessions, and the process
that serves a mount has its own. The embedded hub belongs to no job, so it is not killed. Linux only: elsewhere no
process is found.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

_TIMEOUT = 10.0  # seconds


def kill(job: Path) -> None:
    """Send SIGKILL to all processes of the job with the folder `job`, again until none is left.

    Gives up without an error after 10 s.
    """
    end = time.monotonic() + _TIMEOUT
    # Repeated, because a process that is about to be killed may start another one.
    while (found := pids(job)) and time.monotonic() < end:
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def pids(job: Path) -> list[int]:
    """Return the ids of the living processes of the job with the folder `job`, without this process."""
    mark = f"HAVERSACK_JOB={job}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            # A zombie's environment is empty, so zombies are not found.
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue  # the process has ended, or belongs to another user
        if int(entry.name) != os.getpid() and mark in environment.split(b"\0"):
            found.append(int(entry.name))
    return found
