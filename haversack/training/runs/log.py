"""The log of a run: appended to while it trains, read by `report`.

A run's folder holds, beside its checkpoints, `log.jsonl`: one line of JSON for each begin and end of a session, each
epoch and each save. The file is append-only; a line that a kill cut off is skipped. `pulse` is one fixed-width line,
overwritten a few times a second, so that after a kill the next session knows how far the last one got, which no
checkpoint can tell. A training resumes without either file; it only has nothing to report then.
"""

from __future__ import annotations

import json
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LOG = "log.jsonl"
PULSE = "pulse"
_PULSE_EVERY = 0.2


class RunLog:
    """Writes the log of the run in `folder`; used by the one session that trains it."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / LOG
        self._pulse = folder / PULSE
        self._due = 0.0

    @property
    def has_sessions(self) -> bool:
        """Whether a training session has written to this log."""
        return self._file.exists() and any(event["event"] == "begin" for event in events(self._file))

    def files_before(self) -> list[dict[str, Any]]:
        """The lengths of the callbacks' log files before the run first began; [] if it never did."""
        if not self._file.exists():
            return []
        return next((event["before"] for event in events(self._file) if event["event"] == "files"), [])

    def last_pulse(self) -> float | None:
        """Seconds of training in all earlier sessions together, as of the last pulse; None if there is none."""
        found = pulse(self._pulse.parent)
        return None if found is None else found.trained

    def write(self, event: str, **facts: Any) -> None:
        """Append one line. `facts` must be JSON. A disk error is a warning: it never stops a training."""
        line = json.dumps({"event": event, "time": time.time(), "pid": os.getpid(), **facts})
        with _disk_errors_as_warnings():
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with open(self._file, "a+b") as file:
                if file.tell() and not _ends_a_line(file.fileno(), file.tell()):
                    line = "\n" + line  # keep a line that a kill cut off apart from this one
                file.write(line.encode() + b"\n")

    def begin(
        self, epochs: int, resumed: tuple[int, int] | None, repeated: float | None, steps: int | None = None
    ) -> None:
        """Log the begin of a session, with the pulse of the session before it.

        Args:
            epochs: the number of epochs that was asked for.
            resumed: (epoch, step) that the session resumes at, both from 0; None for a run's first session.
            repeated: seconds of training that are done again; None if not known.
            steps: steps in an epoch; None if not known.
        """
        before = pulse(self._pulse.parent)
        here = {"host": socket.gethostname(), "before": before and asdict(before)}
        self.write("begin", epochs=epochs, resumed=resumed, repeated=repeated, steps=steps, **here)

    def beat(self, trained: float, epoch: int, step: int) -> None:
        """Overwrite the pulse, at most five times a second; `trained` is in seconds, of all sessions."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + _PULSE_EVERY
        with _disk_errors_as_warnings():
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with open(self._pulse, "r+b" if self._pulse.exists() else "w+b") as file:
                file.write(f"{trained:20.6f} {time.time():20.6f} {epoch:12} {step:12}\n".encode())


@dataclass(frozen=True)
class Pulse:
    """The last sign of life of a training.

    `trained` is in seconds, of all sessions; `time` in seconds since 1970; `epoch` and `step` count from 0.
    """

    trained: float
    time: float
    epoch: int
    step: int


def pulse(folder: Path) -> Pulse | None:
    """The pulse of the run in `folder`; None if it is missing or incomplete."""
    try:
        trained, when, epoch, step = (folder / PULSE).read_text().split()
        return Pulse(float(trained), float(when), int(epoch), int(step))
    except (OSError, ValueError):
        return None


def events(log: Path) -> Iterator[dict[str, Any]]:
    """The events of the log file `log`, in order; incomplete lines are skipped. Raises `OSError`."""
    with open(log, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # cut off by a kill
            if isinstance(event, dict) and "event" in event:
                yield event


@contextmanager
def _disk_errors_as_warnings() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        warnings.warn(f"The run's log cannot be written: {error.strerror}. The training continues.", stacklevel=4)


def _ends_a_line(descriptor: int, length: int) -> bool:
    return os.pread(descriptor, 1, length - 1) == b"\n"
