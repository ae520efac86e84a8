"""This machine's processes, from /proc: what `ps` would list, also where it is not installed."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


def command_lines() -> dict[int, str]:
    """What each process was started with, by its id; kernel threads have nothing."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
    return found


def end_compilers(cache: Path) -> None:
    """Kill the processes that compile environments of this cache folder in the background (`packages.bytecode`).

    Each would compile for half a minute after the test that started it.
    """
    if (cache / "environments").exists():
        for pid, line in command_lines().items():
            if "haversack.packages.bytecode" in line and f"{cache}/" in line:
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)  # each leads a session of its own, its compiler included
