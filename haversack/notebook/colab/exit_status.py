"""Report to the parent which shell commands of a cell failed. Runs in the kernel.

A `!` line that fails does not end its cell, so without a report nobody learns of it. Reported are `!` lines and what
IPython runs like them, such as `%pip`, and commands whose failure ended the cell with `subprocess.CalledProcessError`,
such as those of `%%bash` and `%shell`. Not reported is what the notebook judges by itself: `x = !command`, and a
`CalledProcessError` that it catches.
"""

from __future__ import annotations

import functools
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from haversack.notebook import channel


def install(ipython: Any) -> None:
    """Report failed commands of this kernel's cells from now on. Does nothing outside a job."""
    if channel.job_folder() is None:
        return
    import ipykernel.zmqshell

    zmqshell: Any = ipykernel.zmqshell

    # The shell's `system` expands variables of the frame that called it, so it cannot be wrapped. This function gets
    # the expanded command from it.
    run = getattr(zmqshell, "system", None)
    if run is not None and not hasattr(run, "__wrapped__"):
        zmqshell.system = _reporting(run)
    ipython.events.register("post_run_cell", _report_raised)


def report(command: str, status: int) -> None:
    """Report that `command` ended with `status`; a signal's number is negative."""
    channel.send("shell", command=command, status=status)


def _reporting(run: Callable[[str], int]) -> Callable[[str], int]:
    """Wrap `run`, which executes a command and returns its status, to report every status but 0."""

    @functools.wraps(run)
    def system(command: str) -> int:
        status = run(command)
        if status:
            report(f"!{command.replace(sys.executable, 'python', 1)}", status)
        return status

    return system


def _report_raised(result: Any) -> None:
    """Report the command whose failure ended the cell, if one did."""
    error = getattr(result, "error_in_exec", None)
    if isinstance(error, subprocess.CalledProcessError):
        command = error.cmd
        if isinstance(command, str | bytes | os.PathLike):
            text = os.fsdecode(command)
        else:
            text = shlex.join(map(os.fsdecode, command))
        report(text, error.returncode)
