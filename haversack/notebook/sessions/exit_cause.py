"""Find out why a kernel's process ended, as far as this machine records it.

Runs in the process of `haversack run`. A process that Linux's OOM killer ended and one that another process killed both
show SIGKILL. Linux counts OOM kills, where possible for each control group, so the count before and after tells the two
apart. After a crash, the reason is what Python's `faulthandler` wrote to `kernel.log`.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_FATAL = re.compile(rb"^Fatal Python error: (.+)$", re.MULTILINE)
_SEE_LOG = "See kernel.log in the job's folder for details."


@dataclass(frozen=True)
class ExitCause:
    """Why a kernel ended.

    Attributes:
        why: "memory" if the OOM killer killed it, "died" for any other or an unknown reason.
        how: completes the sentence "The kernel …", such as "died in cell 3, by SIGSEGV".
        next_step: a sentence that tells the user what to do.
    """

    why: Literal["memory", "died"]
    how: str
    next_step: str


class ExitCauseFinder:
    """Finds out why one kernel ended; created before the kernel starts.

    It records the OOM kill count and the size of `log`, the file `kernel.log`, and compares them when the kernel has
    ended.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._log_size = log.stat().st_size if log.exists() else 0
        self._oom_kills = oom_kill_count()

    def find(self, status: int | None, where: str) -> ExitCause:
        """Return why the kernel ended.

        Args:
            status: the process's return code as in `subprocess.Popen.returncode`; None if unknown.
            where: in which part of the job it ended, such as "in cell 3"; used in `ExitCause.how`.
        """
        # A wrapper such as bubblewrap reports a signal as 128 + its number.
        number = -status if status is not None and status < 0 else (status or 0) - 128
        if number == signal.SIGKILL:
            return self._killed(where)
        try:
            how = f"by {signal.Signals(number).name}"
        except ValueError:
            how = f"with exit status {status}"
        reason = f": {fatal}" if (fatal := self._fatal_error()) else ""
        return ExitCause("died", f"died {where}, {how}{reason}", _SEE_LOG)

    def _killed(self, where: str) -> ExitCause:
        oom_kills = oom_kill_count()
        if self._oom_kills is None or oom_kills is None:
            return ExitCause("died", f"was killed {where}", "The likeliest reason is memory: use less in that cell.")
        if oom_kills > self._oom_kills:
            return ExitCause(
                "memory",
                f"ran out of memory and was killed {where}",
                "Use less memory in that cell: smaller batches, or data that is read piece by piece.",
            )
        return ExitCause(
            "died",
            f"was killed {where}",
            "The system counted no kill for lack of memory, so look for a process that sends SIGKILL.",
        )

    def _fatal_error(self) -> str:
        """Return the message of a fatal Python error that was logged since the kernel started; "" if there is none."""
        with open(self._log, "rb") as log:
            log.seek(self._log_size)
            found = _FATAL.search(log.read())
        return found[1].decode(errors="replace").strip() if found else ""


def oom_kill_count() -> int | None:
    """Return how many processes the OOM killer has killed; None if the system has no such count.

    The count is this control group's if it has one, else the machine's. Sources: cgroup v2's `memory.events`, cgroup
    v1's `memory.oom_control`, `/proc/vmstat`.
    """
    for file in [*_control_group_files(), Path("/proc/vmstat")]:
        try:
            found = re.search(r"^oom_kill (\d+)$", file.read_text(), re.MULTILINE)
        except OSError:
            continue
        if found:
            return int(found[1])
    return None


def _control_group_files() -> list[Path]:
    """Return the files in which this process's control group may count OOM kills; they need not exist."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    root, found = Path("/sys/fs/cgroup"), []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            found.append(root / "memory" / path.lstrip("/") / "memory.oom_control")
        elif not controllers:
            found.append(root / path.lstrip("/") / "memory.events")
    return found
