"""What became of a run: its sessions, its epochs, what was repeated; written while it trains, read afterwards.

A run's folder holds, beside its checkpoints, `log.jsonl`: a line of JSON for each session's begin and end, for each
epoch and each save. Lines are only ever added; one that a kill cut off is passed over. `pulse` is one short line that
is written over about once a second, so that after a kill the next session knows how far the last one had come, which
no checkpoint can tell. Neither is needed to go on; a run without them has merely nothing to show.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from haversack import settings
from haversack.errors import ExtraMissing, NotFound

_LOG = "log.jsonl"
_PULSE = "pulse"
_PULSE_EVERY = 1.0
_ASIDE = re.compile(r"(.+)\.before-(\d+)")


@dataclass(frozen=True)
class Session:
    """One session of a run, from `began` to `ended` (seconds since 1970; None while it runs and when it was killed).

    `resumed` is the epoch and step it went on from, None for the run's first. `repeated` is in seconds, None where it
    is not known. `outcome` is "finished", "interrupted", "failed", or "" for a session that never wrote its end.
    """

    began: float
    ended: float | None
    host: str
    pid: int
    resumed: tuple[int, int] | None
    repeated: float | None
    saves: int
    last_seen: float
    outcome: str


@dataclass(frozen=True)
class Epoch:
    """One epoch's results as they stand in the history. `number` counts from 0, `session` too; `time` is its end."""

    number: int
    session: int
    time: float
    logs: dict[str, float]


@dataclass(frozen=True)
class Run:
    """One training over all its sessions; an epoch that was repeated stands here once, as it was computed last."""

    name: str
    folder: Path
    epochs_asked: int
    finished: bool
    sessions: list[Session] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)

    @property
    def repeated(self) -> float:
        """Seconds of work that were done again."""
        return sum(session.repeated or 0.0 for session in self.sessions)

    def __str__(self) -> str:
        state = "finished" if self.finished else f"{len(self.epochs)} of {self.epochs_asked} epochs"
        count = len(self.sessions)
        sessions = f"{count} session{'' if count == 1 else 's'}"
        last = " ".join(f"{name} {value:.4g}" for name, value in self.epochs[-1].logs.items()) if self.epochs else ""
        return f"{self.name}  {state}, {sessions}, {self.repeated:.0f} s repeated  {last}".rstrip()


class Log:
    """The log of the run in `folder`, for the session that trains it."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / _LOG
        self._pulse = folder / _PULSE
        self._due = 0.0

    @property
    def exists(self) -> bool:
        """Whether a session wrote to it."""
        return self._file.exists()

    def last_pulse(self) -> float | None:
        """How many seconds of training the sessions before had done, all together, when last heard of."""
        try:
            return float(self._pulse.read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None

    def write(self, event: str, **facts: Any) -> None:
        """Add one line. What `facts` holds has to be JSON."""
        line = json.dumps({"event": event, "time": time.time(), **facts})
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with open(self._file, "a+b") as file:
            if file.tell() and not _ends_a_line(file.fileno(), file.tell()):
                line = "\n" + line  # what a kill cut off stays a line of its own
            file.write(line.encode() + b"\n")

    def begin(self, epochs: int, resumed: tuple[int, int] | None, repeated: float | None) -> None:
        """A session begins that is to train up to `epochs`."""
        here = {"host": socket.gethostname(), "pid": os.getpid()}
        self.write("begin", epochs=epochs, resumed=resumed, repeated=repeated, **here)

    def beat(self, trained: float) -> None:
        """Say that the training lives; `trained` as `last_pulse` returns it. At most one write a second."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + _PULSE_EVERY
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with open(self._pulse, "r+b" if self._pulse.exists() else "w+b") as file:
            file.write(f"{trained:20.3f} {time.time():20.3f}\n".encode())


def runs(where: str | Path | None = None) -> list[Run]:
    """Every run in `where` (this machine's data folder when None), the one that was trained last coming last."""
    folder = _folder(where)
    found = [read(log.parent) for log in folder.glob(f"*/{_LOG}")]
    return sorted(found, key=lambda run: run.sessions[-1].last_seen if run.sessions else 0.0)


def show(name: str, where: str | Path | None = None) -> Run:
    """The run `name`. Raises `NotFound` when there is none."""
    folder = _folder(where) / name
    if not (folder / _LOG).is_file():
        raise NotFound(f"There is no run {name} in {folder.parent}.", "See which there are with: haversack runs")
    return read(folder)


def plot(name: str, path: str | Path, where: str | Path | None = None) -> Path:
    """Draw the loss of the run `name` over its epochs into the picture `path`, with a line where a session was killed.

    Returns `path`. Raises `NotFound` when there is no such run, `ExtraMissing` without matplotlib.
    """
    run = show(name, where)
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ExtraMissing("Plots need matplotlib.", 'Install it with pip install "haversack[train]".') from error
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel="loss", title=run.name)
    for metric, style in (("loss", "o-"), ("val_loss", "s--")):
        points = [(epoch.number + 1, epoch.logs[metric]) for epoch in run.epochs if metric in epoch.logs]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=metric, markersize=4)
    label: str | None = "a session ended"
    for session in run.sessions[1:]:
        if session.resumed is not None:
            epoch, _ = session.resumed
            axes.axvline(epoch + 0.5, color="tab:red", linestyle=":", label=label)
            label = None
    if run.epochs:
        axes.legend()
    figure.savefig(path, dpi=150)
    return Path(path)


def read(folder: Path) -> Run:
    """The run in `folder`, as its log tells it."""
    sessions: list[dict[str, Any]] = []
    epochs: dict[int, Epoch] = {}
    for event in _events(folder / _LOG):
        if event["event"] == "begin":
            sessions.append({**event, "saves": 0, "seen": event["time"], "outcome": "", "ended": None})
            if (resumed := event["resumed"]) is not None:
                epochs = {number: epoch for number, epoch in epochs.items() if number < resumed[0]}
        if not sessions:
            continue
        latest = sessions[-1]
        latest["seen"] = event["time"]
        if event["event"] == "epoch":
            epochs[event["epoch"]] = Epoch(event["epoch"], len(sessions) - 1, event["time"], event["logs"])
        elif event["event"] == "save":
            latest["saves"] += 1
        elif event["event"] == "end":
            latest.update(outcome=event["outcome"], ended=event["time"])
    asked = sessions[-1]["epochs"] if sessions else 0
    finished = bool(sessions) and sessions[-1]["outcome"] == "finished"
    in_order = [epochs[number] for number in sorted(epochs)]
    return Run(folder.name, folder, asked, finished, [_session(one) for one in sessions], in_order)


def set_aside(folder: Path) -> Path | None:
    """Rename the run in `folder`, so that another of its name can begin; returns where it is now, None without one."""
    if not folder.exists():
        return None
    taken = [_ASIDE.fullmatch(other.name) for other in folder.parent.iterdir()]
    numbers = [int(match[2]) for match in taken if match and match[1] == folder.name]
    aside = folder.with_name(f"{folder.name}.before-{max(numbers, default=0) + 1}")
    folder.rename(aside)
    return aside


def _session(found: dict[str, Any]) -> Session:
    resumed = found["resumed"]
    return Session(
        began=found["time"],
        ended=found["ended"],
        host=found["host"],
        pid=found["pid"],
        resumed=None if resumed is None else (resumed[0], resumed[1]),
        repeated=found["repeated"],
        saves=found["saves"],
        last_seen=found["seen"],
        outcome=found["outcome"],
    )


def _events(log: Path) -> Iterator[dict[str, Any]]:
    with open(log, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # cut off by a kill
            if isinstance(event, dict) and "event" in event:
                yield event


def _folder(where: str | Path | None) -> Path:
    return Path(where).expanduser().absolute() if where else settings.load().data / "runs"


def _ends_a_line(descriptor: int, length: int) -> bool:
    return os.pread(descriptor, 1, length - 1) == b"\n"
