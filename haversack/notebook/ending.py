"""How a cell ends its own kernel on purpose, and how the parent learns of it.

Notebooks that were left alone overnight end with `runtime.unassign()`, `os.kill(os.getpid(), 9)` or `exit()`, so that
their machine is released. In the last cell that is the end of the notebook, not a failure. Only the kernel can tell its
own SIGKILL from one of another process or of the OOM killer, so in a job's kernel `os.kill` is wrapped: before it sends
SIGKILL to the kernel itself, it writes `ending/ending.json` in the job's folder. A message on a socket would be lost
with the kernel. Signals other than SIGKILL are passed on unmarked, since a kernel may survive them.

`install`, `mark` and `end_kernel` run in the kernel, `clear` and `of_cell` in the process of `haversack run`.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Literal, NoReturn

from haversack import disk
from haversack.notebook import channel

Way = Literal["unassign", "kill", "exit"]
"""How a cell ended its kernel: `runtime.unassign()`, SIGKILL to itself, or `exit()` or `quit()`."""

# In a folder of its own, because a sandbox lets the kernel write to a few folders of the job only.
_FILE = "ending/ending.json"
# Outputs leave the kernel through a thread and a socket, which takes a moment. In seconds.
_OUTPUT_DELAY = 0.3
_kill = os.kill
# The process id of the job's kernel, set by `install`; 0 in every other process that was not forked from it.
_kernel = 0


def install(ipython: Any) -> None:
    """Mark, from now on, a SIGKILL that the kernel sends to itself, and `exit()`. Does nothing outside a job.

    `ipython` is the kernel's shell. Processes that are forked from the kernel are not the kernel.
    """
    if channel.job_folder() is None:
        return
    global _kernel
    _kernel = os.getpid()

    @functools.wraps(_kill)
    def marked_kill(pid: int, number: int, /) -> None:
        if pid == os.getpid() and number == signal.SIGKILL and is_kernel():
            mark("kill")
            _send_outputs()
        _kill(pid, number)

    os.kill = marked_kill
    ipython.observe(lambda change: mark("exit") if change["new"] else None, "exit_now")


def is_kernel() -> bool:
    """Whether this process is a job's kernel, and not one that was forked or started from it."""
    return os.getpid() == _kernel


def mark(way: Way) -> None:
    """Write down that the running cell ends its kernel in this way. Does nothing outside a job. Raises `OSError`."""
    job = channel.job_folder()
    if job is not None:
        cell = json.loads((job / "job.json").read_text())["cell"]
        disk.write(job / _FILE, json.dumps({"cell": cell, "way": way}), durable=False)


def end_kernel(way: Way) -> NoReturn:
    """End this process, the kernel of a job, at once; what the cell printed is sent first. Raises `OSError`."""
    mark(way)
    _send_outputs()
    while True:  # SIGKILL ends the process, if not before the call returns
        _kill(os.getpid(), signal.SIGKILL)


def clear(job: Path) -> None:
    """Forget how an earlier session of the job with the folder `job` ended; the parent calls it before each session."""
    (job / _FILE).parent.mkdir(exist_ok=True)
    (job / _FILE).unlink(missing_ok=True)


def of_cell(job: Path, cell: int) -> Way | None:
    """Return how the cell with the number `cell` ended its kernel in this session; None if it did not.

    The kernel may still live after "exit": it ends a moment after its cell.
    """
    try:
        ending = json.loads((job / _FILE).read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(ending, dict) or ending.get("cell") != cell:
        return None
    way = ending.get("way")
    return way if way in ("unassign", "kill", "exit") else None


def _send_outputs() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(_OUTPUT_DELAY)
