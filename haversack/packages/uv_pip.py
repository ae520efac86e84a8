"""Run `uv pip` in an environment, and tell what it changed there.

uv's lines are passed on as they come, without its progress bars and its mention of the environment. Files are copied
from uv's cache. By default uv makes hard links, also with `--link-mode clone` where the file system has no reflinks,
and a cell that edits an installed file in place would edit the cache, and with it the environments of other jobs.

Only the standard library is used: this runs in the environments of jobs.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

UNREACHABLE = re.compile(
    r"Request failed after|error sending request|dns error|Connection refused|tcp connect error|operation timed out"
    r"|Network is unreachable|Could not connect|HTTP status server error"
)
"""What uv's error has in it if an index cannot be reached."""
# uv's lines for an installed, a removed and a reinstalled package.
_CHANGE = re.compile(r" ([+~-]) ([\w.-]+)==(\S+)")
_HIDDEN = ("Using Python ", "warning: `--yes` has no effect")


@dataclass
class PackageChanges:
    """What one call changed: project names, as uv writes them, → versions.

    A package in both was replaced.
    """

    installed: dict[str, str] = field(default_factory=dict)
    removed: dict[str, str] = field(default_factory=dict)

    def read(self, line: str) -> None:
        """Take note of a line of uv's output, if it reports a change."""
        if change := _CHANGE.match(line):
            sign, project, version = change.groups()
            if sign != "+":
                self.removed[project] = version
            if sign != "-":
                self.installed[project] = version


@dataclass(frozen=True)
class Outcome:
    """How a call ended: its exit status (a signal's number is negative), its changes, and all lines of its output."""

    status: int
    changes: PackageChanges
    lines: tuple[str, ...]

    @property
    def error(self) -> str:
        """uv's error and what follows it, on one line; "" if it reported none."""
        text = " ".join(line.strip() for line in self.lines)
        return text[start:] if (start := text.find("error: ")) >= 0 else ""


def until(day: str) -> list[str]:
    """Return uv's options to use no release after `day`, such as "2026-07-31", in UTC; [] for ""."""
    after = date.fromisoformat(day) + timedelta(days=1) if day else None
    return ["--exclude-newer", f"{after}T00:00:00Z"] if after else []


def uv_program(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the path of uv, which `HAVERSACK_UV` names to a job's processes; None if there is none."""
    return environment.get("HAVERSACK_UV") or shutil.which("uv")


def variables(configured: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of a process of uv: this process's, those of `configured`, and ours."""
    inherited = {name: value for name, value in os.environ.items() if name != "UV_SYSTEM_PYTHON"}
    return {**inherited, **configured, "UV_LINK_MODE": "copy", "UV_NO_PROGRESS": "1", "NO_COLOR": "1"}


def run(command: Sequence[str], configured: Mapping[str, str], show: Callable[[str], None]) -> Outcome:
    """Run `command`, a call of `uv pip`, and call `show` with each line of its output as it comes, without its end.

    On an interrupt, uv gets SIGINT as well, and `KeyboardInterrupt` is raised after it has ended. Raises `OSError` if
    uv cannot be started.
    """
    changes, lines = PackageChanges(), []
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=variables(configured),
    )
    assert process.stdout is not None
    try:
        for text in process.stdout:
            line = text.rstrip("\n")
            changes.read(line)
            if not line.startswith(_HIDDEN):
                lines.append(line)
                show(line)
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        raise
    finally:
        process.stdout.close()
        process.wait()
    return Outcome(process.returncode, changes, tuple(lines))
