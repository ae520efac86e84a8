"""This machine's processes, from /proc: what `ps` would list, also where it is not installed."""

from __future__ import annotations

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
