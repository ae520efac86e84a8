"""Decides whether a session begins with the random streams of an earlier one (`notebook.streams`).

Runs in the process of `haversack run`, while no kernel does. It does if the job has a training that saved a checkpoint:
there the next session goes on, on the same data. That is noted in the file itself, which goes with the job to another
machine, where its checkpoints are not on the disk.
"""

from __future__ import annotations

import json
from pathlib import Path

from haversack import disk
from haversack.notebook import streams


def adopt(folder: Path, other: Path) -> None:
    """Let the job in `folder` begin with the streams of another one, in the file `other`. Raises `OSError`."""
    disk.write(folder / streams.FILE, json.dumps({**streams.read(other), streams.TRAINS: True}), durable=False)


def confirm(folder: Path) -> None:
    """Note in the job's `folder` that it has a training: from now on its sessions begin with the kept streams."""
    file = folder / streams.FILE
    states = streams.read(file)
    if states and not states.get(streams.TRAINS):
        disk.write(file, json.dumps({**states, streams.TRAINS: True}), durable=False)


def prepare(folder: Path, *, unseeded: bool) -> bool:
    """Return whether the next session of the job begins with the kept streams; else delete them.

    `unseeded` says that it never does. Raises `OSError` if the file cannot be deleted.
    """
    file = folder / streams.FILE
    if not unseeded and streams.read(file).get(streams.TRAINS):
        return True
    file.unlink(missing_ok=True)
    return False
