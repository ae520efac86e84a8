"""Why a kernel is gone: what this machine knows of it, and no more than that.

A process that ran out of memory and one that somebody killed both end by SIGKILL. The system counts those that it ended
for lack of memory, for a control group where it can, so the count before and after tells them apart. What Python writes
when it crashes (`faulthandler`) is looked up in the kernel's log.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_FATAL = re.compile(rb"^Fatal Python error: (.+)$", re.MULTILINE)
_LOG = "kernel.log in the job's folder may say why."


@dataclass(frozen=True)
class Death:
    """`how` completes "The kernel …"; `next_step` is a sentence."""

    why: Literal["memory", "died"]
    how: str
    next_step: str


class Witness:
    """Looks at the machine before a kernel starts, to know afterwards what happened since."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._logged = log.stat().st_size if log.exists() else 0
        self._ended = ended_for_memory()

    def tell(self, status: int | None, where: str) -> Death:
        """How the kernel ended `where` ("in cell 3"). `status` is the process's return code as Popen has it."""
        # A wrapper such as bubblewrap passes a signal on as 128 + its number.
        number = -status if status is not None and status < 0 else (status or 0) - 128
        if number == signal.SIGKILL:
            return self._killed(where)
        try:
            how = f"by {signal.Signals(number).name}"
        except ValueError:
            how = f"with exit status {status}"
        said = f": {fatal}" if (fatal := self._fatal()) else ""
        return Death("died", f"died {where}, {how}{said}", _LOG)

    def _killed(self, where: str) -> Death:
        ended = ended_for_memory()
        if self._ended is None or ended is None:
            return Death("died", f"was killed {where}", "Most often memory ran out: use less in that cell.")
        if ended > self._ended:
            return Death(
                "memory",
                f"ran out of memory and was killed {where}",
                "Use less in that cell: smaller batches, or data that is read piece by piece.",
            )
        return Death(
            "died",
            f"was killed {where}",
            "The system counts no process ended for lack of memory, so look for what sends SIGKILL there.",
        )

    def _fatal(self) -> str:
        with open(self._log, "rb") as log:
            log.seek(self._logged)
            found = _FATAL.search(log.read())
        return found[1].decode(errors="replace").strip() if found else ""


def ended_for_memory() -> int | None:
    """How many processes the system has ended for lack of memory, of this control group where it counts by those.

    None where it does not say. Sources: proc_vmstat, cgroup-v2's `memory.events`, cgroup-v1's `memory.oom_control`.
    """
    for file in [*_of_control_group(), Path("/proc/vmstat")]:
        try:
            found = re.search(r"^oom_kill (\d+)$", file.read_text(), re.MULTILINE)
        except OSError:
            continue
        if found:
            return int(found[1])
    return None


def _of_control_group() -> list[Path]:
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
