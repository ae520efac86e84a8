"""The report of a run, read from its log: its sessions, its epochs, and the work that was repeated after kills."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from haversack.training.runs.log import LOG, events, pulse


@dataclass(frozen=True)
class Save:
    """A save of a run's state, by its event in the log.

    Attributes:
        epoch: the epoch, from 0.
        step: the steps of this epoch that were done.
        total: the steps of all epochs that were done.
        time: when the save began, in seconds since 1970.
    """

    epoch: int
    step: int
    total: int
    time: float


@dataclass(frozen=True)
class RunSession:
    """One session of a run. Epochs and steps count from 0, times are seconds since 1970.

    Attributes:
        began: when it began.
        ended: when it logged its end; None while it runs and if it was killed.
        host: the name of its machine.
        pid: the id of its process.
        resumed: (epoch, step) that it resumed at; None if there was no checkpoint to resume from.
        repeated: seconds of training that it repeated; None if unknown.
        saves: the number of saves that it began.
        last_seen: when it wrote its last event to the log.
        outcome: "finished", "interrupted", "failed", "killed", or "" if no end was logged: it still runs, or it was
            killed and no session has followed.
        reached: (epoch, step) that it reached, by its last pulse or the last epoch that it ended; None if unknown,
            for example if it ran on another machine.
        saved: its last save; None if it began none.
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
        outcome = self.outcome or "no end logged: running, or killed"
        reached = f" at {in_words(self.reached)}" if self.reached and self.outcome != "finished" else ""
        return f"{began:%Y-%m-%d %H:%M:%S} on {self.host}; {resumed}{repeated}{self.saves} saves; {outcome}{reached}"


@dataclass(frozen=True)
class Epoch:
    """The results of an epoch.

    Attributes:
        number: the epoch, from 0.
        session: the index of the session that ended it, from 0.
        time: when it ended, in seconds since 1970.
        logs: its values in Keras's `History`, by name.
    """

    number: int
    session: int
    time: float
    logs: dict[str, float]


@dataclass(frozen=True)
class Run:
    """A training over all its sessions.

    Attributes:
        name: the run's name.
        folder: the folder of its log.
        epochs_asked: the epochs that the last session was to reach; 0 if no session is logged, or it is not known.
        finished: whether the outcome of the last session is "finished".
        framework: what trains: "keras", "torch", "jax", "lightning", or "python" for a loop over arrays of numpy.
        steps: the number of steps in an epoch; None if unknown.
        sessions: the sessions, in order.
        digest: a hash of weights, optimizers and other state at the end of the run; "" if it is not finished.
        epochs: the epochs that ended, in order. An epoch that was repeated is listed once, with its last results.
    """

    name: str
    folder: Path
    epochs_asked: int
    finished: bool
    framework: str = "keras"
    steps: int | None = None
    digest: str = ""
    sessions: list[RunSession] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)

    @property
    def repeated(self) -> float:
        """Seconds of training that were repeated, over all sessions; unknown ones count as 0."""
        return sum(session.repeated or 0.0 for session in self.sessions)

    def json(self) -> dict[str, Any]:
        """Return the run as JSON values: a dict of its fields, with `folder` as a str, and of `repeated`."""
        return {**asdict(self), "folder": str(self.folder), "repeated": self.repeated}

    @property
    def report(self) -> str:
        """A text with a line for the run, one for each session and one for each epoch."""
        lines = [str(self)]
        for number, session in enumerate(self.sessions, 1):
            lines.append(f"  session {number}: {session}")
        for epoch in self.epochs:
            logs = "  ".join(f"{name} {value:.4g}" for name, value in epoch.logs.items())
            lines.append(f"  epoch {epoch.number + 1}, session {epoch.session + 1}: {logs}")
        return "\n".join(lines)

    def __str__(self) -> str:
        of_all = f" of {self.epochs_asked}" if self.epochs_asked else ""
        state = "finished" if self.finished else f"{len(self.epochs)}{of_all} epochs"
        count = len(self.sessions)
        sessions = f"{count} session{'' if count == 1 else 's'}"
        last = " ".join(f"{name} {value:.4g}" for name, value in self.epochs[-1].logs.items()) if self.epochs else ""
        return f"{self.name}  {self.framework}, {state}, {sessions}, {self.repeated:.1f} s repeated  {last}".rstrip()


def read(folder: Path) -> Run:
    """Build the `Run` from the log and the pulse in `folder`.

    Raises `FileNotFoundError` if there is no log, and other `OSError`s if it cannot be read.
    """
    sessions: list[dict[str, Any]] = []
    epochs: dict[int, Epoch] = {}
    for event in events(folder / LOG):
        if event["event"] == "begin":
            if sessions:
                _end_unlogged(sessions[-1], event.get("before"))
            sessions.append({**event, "saves": 0, "seen": event["time"], "outcome": "", "ended": None, "done": 0})
            if (resumed := event["resumed"]) is not None:
                epochs = {number: epoch for number, epoch in epochs.items() if number < resumed[0]}
        if not sessions:
            continue
        # A session that lost the run may still log its end after the next session began, so match events by process.
        last = len(sessions) - 1
        index = max((n for n, one in enumerate(sessions) if one["pid"] == event.get("pid")), default=last)
        own = sessions[index]
        own["seen"] = event["time"]
        if event["event"] == "epoch":
            own["done"] = event["epoch"] + 1
            if index == last:
                epochs[event["epoch"]] = Epoch(event["epoch"], index, event["time"], event["logs"])
        elif event["event"] == "save":
            own["saves"] += 1
            own["saved"] = Save(event["epoch"], event["step"], event.get("total", 0), event["time"])
        elif event["event"] == "end":
            own.update(outcome=event["outcome"], ended=event["time"], digest=event.get("digest", ""))
    latest: dict[str, Any] = sessions[-1] if sessions else {}
    if latest and (last_pulse := pulse(folder)):
        _set_reached(latest, asdict(last_pulse))
    return Run(
        name=folder.name,
        folder=folder,
        epochs_asked=latest.get("epochs", 0),
        finished=latest.get("outcome") == "finished",
        framework=latest.get("framework", "keras"),
        steps=latest.get("steps"),
        digest=latest.get("digest", ""),
        sessions=[_session(one) for one in sessions],
        epochs=[epochs[number] for number in sorted(epochs)],
    )


def in_words(position: tuple[int, int]) -> str:
    """Format (epoch, step), both from 0, for people: (2, 120) is "epoch 3, step 120", since 120 steps are done."""
    return f"epoch {position[0] + 1}, step {position[1]}"


def _end_unlogged(session: dict[str, Any], pulse: dict[str, Any] | None) -> None:
    """Set the outcome of `session` after another session began: "killed" if it logged no end.

    `pulse` is what the other session read when it began.
    """
    session["outcome"] = session["outcome"] or "killed"
    if pulse is not None:
        _set_reached(session, pulse)


def _set_reached(session: dict[str, Any], pulse: dict[str, Any]) -> None:
    """Set how far `session` got, unless the pulse was written by an earlier session."""
    if pulse["time"] >= session["time"]:
        session["reached"] = max((pulse["epoch"], pulse["step"]), (session["done"], 0))


def _session(found: dict[str, Any]) -> RunSession:
    resumed = found["resumed"]
    return RunSession(
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
