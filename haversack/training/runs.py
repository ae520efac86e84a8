"""What became of a run: its sessions, its epochs, what was repeated; written while it trains, read afterwards.

A run's folder holds, beside its checkpoints, `log.jsonl`: a line of JSON for each session's begin and end, for each
epoch and each save. Lines are only ever added; one that a kill cut off is passed over. `pulse` is one short line that
is written over a few times a second, so that after a kill the next session knows how far the last one had come, which
no checkpoint can tell. Neither is needed to go on; a run without them has merely nothing to show.

    haversack.runs.every()               # the runs of this machine
    haversack.runs.show("rsna")          # sessions and epochs of one
    haversack.runs.plot("rsna")          # its loss, in a notebook; .save("rsna.png") elsewhere
    haversack.runs.export("rsna", "rsna.keras", checkpoint="best")
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec

from haversack import settings
from haversack.errors import IntegrityError, NotFound

if TYPE_CHECKING:
    from haversack.training.plot import Plot

_LOG = "log.jsonl"
PULSE = "pulse"
_PULSE_EVERY = 0.2
_ASIDE = re.compile(r"(.+)\.before-(\d+)")


@dataclass(frozen=True)
class Save:
    """A save that was begun at `step` of `epoch`, both from 0, at `time` (seconds since 1970); `total` counts the steps
    of all epochs."""

    epoch: int
    step: int
    total: int
    time: float


@dataclass(frozen=True)
class Session:
    """One session of a run, from `began` to `ended` (seconds since 1970; None while it runs and when it was killed).

    `resumed` is the epoch and step it went on from, None for the run's first; `reached` those it was last heard of at,
    None where nobody knows, as after a move to another machine. Both count from 0. `saved` is its last save. `repeated`
    is in seconds, None where it is not known. `outcome` is "finished", "interrupted", "failed", "killed", or "" for one
    that runs, or was killed and not followed by another.
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
    reached: tuple[int, int] | None = None
    saved: Save | None = None

    def __str__(self) -> str:
        began = datetime.fromtimestamp(self.began, UTC).astimezone()
        resumed = f"resumed at {in_words(self.resumed)}; " if self.resumed else ""
        repeated = f"{self.repeated:.1f} s repeated; " if self.repeated is not None else ""
        outcome = self.outcome or "no end written: it runs, or was killed"
        reached = f" at {in_words(self.reached)}" if self.reached and self.outcome != "finished" else ""
        return f"{began:%Y-%m-%d %H:%M:%S} on {self.host}; {resumed}{repeated}{self.saves} saves; {outcome}{reached}"


@dataclass(frozen=True)
class Epoch:
    """One epoch's results as they stand in the history. `number` counts from 0, `session` too; `time` is its end."""

    number: int
    session: int
    time: float
    logs: dict[str, float]


@dataclass(frozen=True)
class Run:
    """One training over all its sessions; an epoch that was repeated stands here once, as it was computed last.

    `steps` is the number of steps in an epoch, None where it is not known.
    """

    name: str
    folder: Path
    epochs_asked: int
    finished: bool
    steps: int | None = None
    sessions: list[Session] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)

    @property
    def repeated(self) -> float:
        """Seconds of work that were done again."""
        return sum(session.repeated or 0.0 for session in self.sessions)

    def json(self) -> dict[str, Any]:
        """All of it, for scripts."""
        return {**asdict(self), "folder": str(self.folder), "repeated": self.repeated}

    @property
    def report(self) -> str:
        """A line for the run, one for each session, one for each epoch."""
        lines = [str(self)]
        for number, session in enumerate(self.sessions, 1):
            lines.append(f"  session {number}: {session}")
        for epoch in self.epochs:
            logs = "  ".join(f"{name} {value:.4g}" for name, value in epoch.logs.items())
            lines.append(f"  epoch {epoch.number + 1}, session {epoch.session + 1}: {logs}")
        return "\n".join(lines)

    def __str__(self) -> str:
        state = "finished" if self.finished else f"{len(self.epochs)} of {self.epochs_asked} epochs"
        count = len(self.sessions)
        sessions = f"{count} session{'' if count == 1 else 's'}"
        last = " ".join(f"{name} {value:.4g}" for name, value in self.epochs[-1].logs.items()) if self.epochs else ""
        return f"{self.name}  {state}, {sessions}, {self.repeated:.1f} s repeated  {last}".rstrip()


class Log:
    """The log of the run in `folder`, for the session that trains it."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / _LOG
        self._pulse = folder / PULSE
        self._due = 0.0

    @property
    def has_sessions(self) -> bool:
        """Whether a session that trains the run wrote to it before."""
        return self._file.exists() and any(event["event"] == "begin" for event in _events(self._file))

    def files_before(self) -> list[dict[str, Any]]:
        """The log files of callbacks as they were before the run began for the first time; [] where it never did."""
        found = (
            [event["before"] for event in _events(self._file) if event["event"] == "files"]
            if self._file.exists()
            else []
        )
        return found[0] if found else []

    def last_pulse(self) -> float | None:
        """How many seconds of training the sessions before had done, all together, when last heard of."""
        found = pulse(self._pulse.parent)
        return None if found is None else found.trained

    def write(self, event: str, **facts: Any) -> None:
        """Add one line. What `facts` holds has to be JSON."""
        line = json.dumps({"event": event, "time": time.time(), "pid": os.getpid(), **facts})
        with _whatever_the_disk_says():
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with open(self._file, "a+b") as file:
                if file.tell() and not _ends_a_line(file.fileno(), file.tell()):
                    line = "\n" + line  # what a kill cut off stays a line of its own
                file.write(line.encode() + b"\n")

    def begin(
        self, epochs: int, resumed: tuple[int, int] | None, repeated: float | None, steps: int | None = None
    ) -> None:
        """A session begins that is to train up to `epochs` of so many `steps`; the pulse of the one before is kept."""
        before = pulse(self._pulse.parent)
        here = {"host": socket.gethostname(), "before": before and asdict(before)}
        self.write("begin", epochs=epochs, resumed=resumed, repeated=repeated, steps=steps, **here)

    def beat(self, trained: float, epoch: int, step: int) -> None:
        """Say that the training lives; `trained` as `last_pulse` returns it. A few writes a second at most."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + _PULSE_EVERY
        with _whatever_the_disk_says():
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with open(self._pulse, "r+b" if self._pulse.exists() else "w+b") as file:
                file.write(f"{trained:20.6f} {time.time():20.6f} {epoch:12} {step:12}\n".encode())


@dataclass(frozen=True)
class Pulse:
    """The last sign of a training: seconds of training in all its sessions, when, and at which epoch and step."""

    trained: float
    time: float
    epoch: int
    step: int


def pulse(folder: Path) -> Pulse | None:
    """The pulse of the run in `folder`; None where there is none, or half of one."""
    try:
        trained, when, epoch, step = (folder / PULSE).read_text().split()
        return Pulse(float(trained), float(when), int(epoch), int(step))
    except (OSError, ValueError):
        return None


def every(where: str | Path | None = None) -> list[Run]:
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


@dataclass(frozen=True)
class Verified:
    """A checkpoint that was read whole; `fault` says what is wrong with it, "" when nothing is."""

    step: int
    where: str
    size: int
    when: str
    fault: str

    def __str__(self) -> str:
        return f"  checkpoint of step {self.step}: {self.size:,} bytes, {self.when}; {self.fault or 'whole'}"


def verified(name: str, where: str | Path | None = None) -> list[Verified]:
    """Every checkpoint of the run `name`, oldest first, read and compared with its hashes."""
    from haversack.training.checkpoints import Checkpoints

    checkpoints = Checkpoints(name, where)
    found = []
    for one in checkpoints.all():
        fault = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what is passed over is said in the line
                restored = checkpoints.restore(step=one.step)
            fault = restored.passed_over[0].reason if restored and restored.passed_over else ""
        except IntegrityError as error:
            fault = error.what
        when = f"{one.when.astimezone():%Y-%m-%d %H:%M:%S}"
        found.append(Verified(one.step, one.where, one.size, when, fault))
    return found


def plot(name: str, where: str | Path | None = None) -> Plot:
    """The loss of the run `name` over its epochs, with a line where a session was killed.

    In a notebook it shows itself; `save` writes it as a picture. Raises `NotFound` when there is no such run.
    """
    from haversack.training.plot import Plot

    return Plot(show(name, where))


def export(
    name: str, path: str | Path, where: str | Path | None = None, *, checkpoint: Any = "latest", model: Any = None
) -> Path:
    """Write a checkpoint of the run `name` as a `.weights.h5` or `.keras` file; see `haversack.training.export`."""
    from haversack.training.export import export as write

    return write(name, path, where, checkpoint=checkpoint, model=model)


def read(folder: Path) -> Run:
    """The run in `folder`, as its log tells it."""
    sessions: list[dict[str, Any]] = []
    epochs: dict[int, Epoch] = {}
    for event in _events(folder / _LOG):
        if event["event"] == "begin":
            if sessions:
                _end_without_a_word(sessions[-1], event.get("before"))
            sessions.append({**event, "saves": 0, "seen": event["time"], "outcome": "", "ended": None, "done": 0})
            if (resumed := event["resumed"]) is not None:
                epochs = {number: epoch for number, epoch in epochs.items() if number < resumed[0]}
        if not sessions:
            continue
        # One that was overtaken may still write its end.
        place = max((n for n, one in enumerate(sessions) if one["pid"] == event.get("pid")), default=len(sessions) - 1)
        own = sessions[place]
        own["seen"] = event["time"]
        if event["event"] == "epoch":
            own["done"] = event["epoch"] + 1
            if place == len(sessions) - 1:
                epochs[event["epoch"]] = Epoch(event["epoch"], place, event["time"], event["logs"])
        elif event["event"] == "save":
            own["saves"] += 1
            own["saved"] = Save(event["epoch"], event["step"], event.get("total", 0), event["time"])
        elif event["event"] == "end":
            own.update(outcome=event["outcome"], ended=event["time"])
    latest: dict[str, Any] = sessions[-1] if sessions else {}
    if latest and (last := pulse(folder)):
        _reach(latest, asdict(last))
    return Run(
        name=folder.name,
        folder=folder,
        epochs_asked=latest.get("epochs", 0),
        finished=latest.get("outcome") == "finished",
        steps=latest.get("steps"),
        sessions=[_session(one) for one in sessions],
        epochs=[epochs[number] for number in sorted(epochs)],
    )


def _end_without_a_word(session: dict[str, Any], pulse: dict[str, Any] | None) -> None:
    """Another session has begun after `session`, and found this `pulse`."""
    session["outcome"] = session["outcome"] or "killed"
    if pulse is not None:
        _reach(session, pulse)


def _reach(session: dict[str, Any], pulse: dict[str, Any]) -> None:
    """Note how far `session` had come, unless the `pulse` is that of a session before it."""
    if pulse["time"] >= session["time"]:
        beaten = (pulse["epoch"], pulse["step"])
        session["reached"] = max(beaten, (session["done"], 0))


def set_aside(name: str, where: str | Path | None = None) -> str | None:
    """Rename the run `name`, so that another of its name can begin; on a store that fsspec opens too.

    Returns its name now, None where there was none.
    """
    folder = _folder(where)
    stores: list[tuple[Any, str]] = [(fsspec.filesystem("file"), str(folder))]
    if _is_url(where):
        stores.append(fsspec.core.url_to_fs(str(where)))
    stores = [(files, root) for files, root in stores if files.exists(f"{root}/{name}")]
    others = [Path(path).name for files, root in stores for path in files.ls(root, detail=False)]
    numbers = [int(match[2]) for match in map(_ASIDE.fullmatch, others) if match and match[1] == name]
    aside = f"{name}.before-{max(numbers, default=0) + 1}"
    for files, root in stores:
        files.mv(f"{root}/{name}", f"{root}/{aside}", recursive=True)
    return aside if stores else None


@contextmanager
def _whatever_the_disk_says() -> Iterator[None]:
    """A log that cannot be written is said, and stops no training."""
    try:
        yield
    except OSError as error:
        warnings.warn(f"The run's log cannot be written: {error.strerror}. The training goes on.", stacklevel=4)


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
        reached=found.get("reached"),
        saved=found.get("saved"),
    )


def in_words(position: tuple[int, int]) -> str:
    """An epoch and step that count from 0, as people say them."""
    return f"epoch {position[0] + 1}, step {position[1]}"


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
    if where is None or _is_url(where):
        return settings.load().data / "runs"
    return Path(where).expanduser().absolute()


def _is_url(where: str | Path | None) -> bool:
    return isinstance(where, str) and "://" in where


def _ends_a_line(descriptor: int, length: int) -> bool:
    return os.pread(descriptor, 1, length - 1) == b"\n"
