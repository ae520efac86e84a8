"""The processes of a job: all that carry its folder in their environment, whatever session or group they are in.

A session's end on a cloud machine ends everything that runs there. Killing the kernel's process group alone would leave
what cells started in sessions of their own, and the process that serves the drive. The embedded hub belongs to no job.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

_GONE_WITHIN = 10.0


def kill(job: Path) -> None:
    """SIGKILL every process of the job with the folder `job`; returns when they are gone.

    Where the system does not show environments (macOS), nothing is found.
    """
    end = time.monotonic() + _GONE_WITHIN
    # Those that were being started meanwhile are found the next time.
    while (found := of(job)) and time.monotonic() < end:
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def of(job: Path) -> list[int]:
    """The process numbers of the job with the folder `job`, without those that have ended."""
    mark = f"HAVERSACK_JOB={job}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            # A process that has ended and was not waited for has no environment any more.
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue  # it has ended, or is another user's
        if int(entry.name) != os.getpid() and mark in environment.split(b"\0"):
            found.append(int(entry.name))
    return found
