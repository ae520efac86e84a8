"""Compare two executions of `tour.ipynb`, one of them killed in the middle: do they end with the same bits?

    uv run haversack run examples/tour.ipynb --json > whole.json
    uv run haversack run examples/tour.ipynb --json --rehearse > killed.json
    uv run python examples/tour_compare.py whole.json killed.json

It says where the second one was killed and from where it went on, prints a SHA-256 of each array of the weights' files
and of the history, and of what the second training, from images, came to; it ends with status 1 where one differs, or
where the first training was not killed inside an epoch.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from haversack import runs


def download(report: dict[str, Any], name: str) -> Path:
    """The file of that name that the job's notebook downloaded."""
    return next(Path(path) for path in report["downloads"] if Path(path).name == name)


def digests(report: dict[str, Any]) -> dict[str, str]:
    """A SHA-256 for each array of the weights, for each column of the history, and for the second training's epochs."""
    found: dict[str, str] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, h5py.Dataset):
            array = np.asarray(value)
            found[f"weights  {name}"] = hashlib.sha256(
                f"{array.dtype} {array.shape}".encode() + array.tobytes()
            ).hexdigest()

    with h5py.File(download(report, "digits.weights.h5")) as weights:
        weights.visititems(add)
    history = json.loads(download(report, "history.json").read_text())
    for name, column in history.items():
        # `repr` of a float gives every bit of it.
        found[f"history  {name}, {len(column)} epochs"] = hashlib.sha256(repr(column).encode()).hexdigest()
    _, from_images = report["trainings"]
    epochs = [epoch.logs for epoch in runs.show(from_images).epochs]
    found[f"images   {len(epochs)} epochs"] = hashlib.sha256(repr(epochs).encode()).hexdigest()
    return found


def tell_kill(report: dict[str, Any]) -> bool:
    """Say where the first training was killed and went on; whether that was inside an epoch."""
    name, _ = report["trainings"]
    inside = False
    sessions = runs.show(name).sessions
    for number, session in enumerate(sessions, start=1):
        print(f"session {number}: {session}")
        if session.outcome == "killed" and session.reached is not None:
            inside = inside or session.reached[1] > 0
    return inside and report["sessions"] == len(sessions) > 1


def main() -> int:
    arguments = argparse.ArgumentParser(description="Compare a tour that was killed with one that was not.")
    arguments.add_argument("whole", type=Path, help="the report of the tour that was not killed")
    arguments.add_argument("killed", type=Path, help="the report of the one that was")
    given = arguments.parse_args()
    whole, killed = (json.loads(path.read_text()) for path in (given.whole, given.killed))

    if not tell_kill(killed):
        print("The second tour was not killed inside an epoch, so nothing is shown.", file=sys.stderr)
        return 1
    first, second = digests(whole), digests(killed)
    for name in sorted(first.keys() | second.keys()):
        same = first.get(name) == second.get(name)
        print(f"{'same     ' if same else 'DIFFERENT'}  {second.get(name, 'missing')[:16]}  {name}")
    if first != second:
        print("The killed tour ended with other bits than the unbroken one.", file=sys.stderr)
        return 1
    print(f"All {len(first)} are the same, bit for bit.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
