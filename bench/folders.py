"""The drives that are measured: made directly in a hub's folder, before the hub starts, and kept for the next run.

Most of a crowded folder's files are empty, since only their names matter; `SMALL` of them, evenly spread, are read.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

SMALL = 1000
SMALL_SIZE = 10_000


def crowded(scratch: Path, count: int) -> Path:
    """A hub's root with `count` files in one folder, `crowd`."""

    def fill(drive: Path) -> None:
        (drive / "crowd").mkdir()
        every = max(1, count // SMALL)
        for number in range(count):
            _write(drive / "crowd" / name_in_crowd(number), SMALL_SIZE if number % every == 0 else 0)

    return _made(scratch / f"crowd-{count}", fill)


def name_in_crowd(number: int) -> str:
    return f"{number:06d}.png"


def small_in_crowd(count: int) -> list[str]:
    """The names in a crowded folder of `count` files that have bytes to read."""
    return [name_in_crowd(number) for number in range(0, count, max(1, count // SMALL))][:SMALL]


def walked(scratch: Path, folders: int, files: int) -> Path:
    """A hub's root with `files` empty files in `folders` folders, a hundred folders in each of those above."""

    def fill(drive: Path) -> None:
        places = []
        for number in range(folders - (folders - 1) // 101 - 1):
            place = drive / f"{number // 100:04d}" / f"{number % 100:02d}"
            place.mkdir(parents=True)
            places.append(place)
        for number in range(files):
            _write(places[number % len(places)] / f"{number:06d}.png", 0)

    return _made(scratch / f"walk-{folders}-{files}", fill)


def ordinary(scratch: Path, megabytes: int) -> Path:
    """A hub's root with a few folders and files, `small` with a thousand files, and a large file, `large.bin`."""

    def fill(drive: Path) -> None:
        for name in ("notebooks", "models", "small"):
            (drive / name).mkdir()
        for number in range(10):
            _write(drive / f"notes {number}.txt", 100)
        for number in range(SMALL):
            _write(drive / "small" / f"{number:06d}.png", SMALL_SIZE)
        with open(drive / "large.bin", "wb") as out:
            for _ in range(megabytes):
                out.write(os.urandom(10**6))

    return _made(scratch / f"ordinary-{megabytes}", fill)


def source(scratch: Path) -> Path:
    """A folder of a thousand small files that lies beside the drives, to be copied onto one."""

    def fill(drive: Path) -> None:
        for number in range(SMALL):
            _write(drive / f"{number:06d}.png", SMALL_SIZE)

    return _made(scratch / "source", fill) / "My Drive"


def _made(root: Path, fill: Callable[[Path], None]) -> Path:
    if not root.exists():
        aside = root.with_name(f"{root.name}.{os.getpid()}.new")
        (aside / "My Drive").mkdir(parents=True)
        fill(aside / "My Drive")
        aside.rename(root)
    return root


def _write(path: Path, size: int) -> None:
    path.write_bytes(os.urandom(size))
