"""The log of a run: a training session writes it, and `report` reads it.

A run's folder holds, beside its checkpoints, `log.jsonl`: one line of JSON for each begin and end of a session, each
epoch and each save. The file is append-only; readers skip a line that a kill truncated. The file `pulse` is one
fixed-width line, overwritten up to five times a second. It tells the next session how far a killed session got beyond
its last checkpoint. A run resumes without either file; the report then lacks what they held.

Events, with their fields besides `event`, `time` (seconds since 1970) and `pid`:

    files   before: the lengths of the callbacks' log files, see `keras.log_files`
    begin   epochs, resumed, repeated, steps, framework, host, before: see `RunLog.begin`
    epoch   epoch, logs: the results of an epoch that ended
    save    epoch, step, total: the position at which a save began
    end     outcome: finished, interrupted or failed; digest: of a finished run's weights, optimizers and other state
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

from haversack import place

LOG = "log.jsonl"
PULSE = "pulse"
_PULSE_INTERVAL = 0.2
# A job's name has no space and at most 70 characters.
_JOB_WIDTH = 100


class RunLog:
    """Writes the log and the pulse of the run in `folder`. Only the session that owns the run writes them.

    An error of the disk becomes a Python warning when they are written, since it must never stop a training.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / LOG
        self._pulse = folder / PULSE
        self._next_beat_at = 0.0

    @property
    def has_sessions(self) -> bool:
        """Whether this log has the begin of a session; False if there is no log."""
        return self._file.exists() and any(event["event"] == "begin" for event in events(self._file))

    def files_before(self) -> list[dict[str, Any]]:
        """Return the log files of callbacks (CSVLogger, TensorBoard) as they were before the run's first session.

        One dict for each callback that has log files, as `keras.log_files.lengths` made it: the files and their lengths
        in bytes. Restarting the run cuts the files back to that. [] if none were logged.
        """
        if not self._file.exists():
            return []
        return next((event["before"] for event in events(self._file) if event["event"] == "files"), [])

    def last_pulse(self) -> float | None:
        """Return the seconds of training in all sessions at the time of the last pulse; None if there is no pulse."""
        found = pulse(self._pulse.parent)
        return None if found is None else found.trained

    def write(self, event: str, **facts: Any) -> None:
        """Append the event `event` with time, process id and the fields `facts`, which must be JSON values."""
        line = json.dumps({"event": event, "time": time.time(), "pid": os.getpid(), **facts})
        with _disk_errors_as_warnings():
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with open(self._file, "a+b") as file:
                if file.tell() and not _ends_a_line(file.fileno(), file.tell()):
                    line = "\n" + line  # do not continue a line that a kill truncated
                file.write(line.encode() + b"\n")

    def begin(
        self,
        epochs: int,
        resumed: tuple[int, int] | None,
        repeated: float | None,
        steps: int | None = None,
        framework: str = "keras",
    ) -> None:
        """Log the begin of a session, with this host's name and the last pulse of the session before it.

        Args:
            epochs: the number of epochs that was asked for; 0 if it is not known.
            resumed: (epoch, step) that the session resumes at, both from 0; None if there was no checkpoint.
            repeated: seconds of training that this session repeats; None if unknown.
            steps: steps in an epoch; None if unknown.
            framework: what trains: "keras", "torch", "jax", "python" or "lightning".
        """
        before = pulse(self._pulse.parent)
        here = {"host": socket.gethostname(), "before": before and asdict(before)}
        self.write("begin", epochs=epochs, resumed=resumed, repeated=repeated, steps=steps, framework=framework, **here)

    def beat(self, trained: float, epoch: int, step: int) -> None:
        """Overwrite the pulse, at most five times a second.

        Args:
            trained: seconds of training in all sessions.
            epoch: the current epoch, from 0.
            step: the steps of it that are done.
        """
        now = time.monotonic()
        if now < self._next_beat_at:
            return
        self._next_beat_at = now + _PULSE_INTERVAL
        with _disk_errors_as_warnings():
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with open(self._pulse, "r+b" if self._pulse.exists() else "w+b") as file:
                job = place.job()[:_JOB_WIDTH].ljust(_JOB_WIDTH)
                file.write(f"{trained:20.6f} {time.time():20.6f} {epoch:12} {step:12} {job}\n".encode())


@dataclass(frozen=True)
class Pulse:
    """How far a training was when the file `pulse` was last written.

    Attributes:
        trained: seconds of training in all sessions.
        time: when the file was written, in seconds since 1970.
        epoch: the epoch that was trained, from 0.
        step: the number of its steps that were done.
        job: the name of the notebook job whose process trained; "" for none.
    """

    trained: float
    time: float
    epoch: int
    step: int
    job: str = ""


def pulse(folder: Path) -> Pulse | None:
    """Read the pulse of the run in `folder`; None if it is missing or incomplete."""
    try:
        trained, when, epoch, step, *job = (folder / PULSE).read_text().split()
        return Pulse(float(trained), float(when), int(epoch), int(step), *job[:1])
    except (OSError, ValueError):
        return None


def events(log: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of the log file `log` as dicts, in order; skip incomplete lines. Raises `OSError`."""
    with open(log, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # truncated by a kill
            if isinstance(event, dict) and "event" in event:
                yield event


@contextmanager
def _disk_errors_as_warnings() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        warnings.warn(
            f"The run's log cannot be written: {error.strerror}. The training continues; check the disk.", stacklevel=4
        )


def _ends_a_line(descriptor: int, length: int) -> bool:
    return os.pread(descriptor, 1, length - 1) == b"\n"
