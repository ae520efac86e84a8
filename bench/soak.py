"""A real training with a real drive, killed at random moments until it hurts; its end must be that of the unbroken one.

    scripts/soak            # 50 kills
    scripts/soak 10         # fewer
    scripts/soak 10 --more  # ten more, in the report of those before

One training is left alone first. Then the same training, saved twenty times a second to a hub's drive, is killed with
SIGKILL, each time at a random moment: mostly within its first two seconds of training, sometimes before them, and every
fifth session begins on a machine that has lost its disk, so that only the drive knows of the run. A training that comes
to its end is compared with the unbroken one (weights, optimizer, history, CSV file, to the bit), and the next begins.

Sessions are forked from a process that has imported Keras and computed nothing, which spares each the ten seconds that
this takes. `haversack` leaves a trail of its failpoints, so it is known of every kill what it struck. The report is
printed and kept in `bench/results/soak.json`; the exit status says whether all ends were equal and at least a tenth of
the kills struck inside a save, a rename or an upload.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing.process import BaseProcess as Process
from pathlib import Path
from typing import Any

REPORT = Path(__file__).with_name("results") / "soak.json"
TRAINING = ["--megabytes", "4", "--epochs", "60", "--every", "0.05"]
WHERE = "drive://soak"
LATEST = 2.0
"""Seconds of training within which a session is killed."""
ANOTHER_MACHINE, EARLY = 5, 7
"""Every so many sessions begin without the disk of the one before, and are killed before they train."""

WRITER = {
    "before-write": "write",
    "mid-write": "write",
    "before-fsync": "fsync",
    "after-fsync": "manifest",
    "before-manifest": "manifest",
    "after-manifest": "rename",
    "before-rename": "rename",
    "after-rename": "retention",
    "during-removal": "retention",
}
CARRIER = {
    "before-upload": "upload",
    "before-remote-manifest": "manifest in the drive",
    "after-remote-manifest": "retention in the drive",
    "during-remote-removal": "retention in the drive",
}
"""What a thread does once it has passed a failpoint; after others it waits."""
PHASES = ["start-up", "computing", "snapshot", *dict.fromkeys([*WRITER.values(), *CARRIER.values()])]
INSIDE = set(PHASES) - {"start-up", "computing"}


@dataclass(frozen=True)
class Kill:
    """One kill: of which training, how many seconds after its first step (None: before it), and what it struck."""

    training: str
    after: float | None
    phases: list[str]
    another_machine: bool


@dataclass
class Report:
    kills: list[Kill] = field(default_factory=list)
    trainings: int = 0
    differing: list[str] = field(default_factory=list)

    @property
    def inside(self) -> int:
        """Kills inside a save, a rename or an upload."""
        return sum(bool(INSIDE.intersection(kill.phases)) for kill in self.kills)

    @property
    def struck(self) -> dict[str, int]:
        """How many kills struck each phase; one may strike two, since saving goes on behind the training."""
        found = Counter(phase for kill in self.kills for phase in kill.phases)
        return {phase: found[phase] for phase in PHASES}

    @property
    def is_good(self) -> bool:
        return not self.differing and self.inside * 10 >= len(self.kills)

    def __str__(self) -> str:
        lines = [f"{phase:<24}{count:>4}" for phase, count in self.struck.items()]
        same = f"differing: {', '.join(self.differing)}" if self.differing else "every end equal to the unbroken one"
        machines = sum(kill.another_machine for kill in self.kills)
        ended = f"{len(self.kills)} kills, {self.inside} inside a save, a rename or an upload; {machines} sessions "
        return "\n".join([*lines, f"{ended}on a machine without the disk before; {self.trainings} trainings, {same}"])

    def json(self) -> dict[str, Any]:
        return {"struck": self.struck, "inside": self.inside, **asdict(self)}


@dataclass(frozen=True)
class Machine:
    """Where sessions run: what each leaves behind lies in `folder`."""

    folder: Path

    def start(self, name: str) -> Process:
        process = multiprocessing.get_context("fork").Process(target=self._train, args=(name,))
        process.start()
        return process

    def _train(self, name: str) -> None:
        import trained

        said = os.open(self.folder / "said", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(said, stream)
        trained.main([str(self.folder), "--name", name, "--where", WHERE, *TRAINING])

    def lose_disk(self, name: str) -> None:
        for folder in ("data", "cache"):
            shutil.rmtree(self.folder / folder, ignore_errors=True)
        (self.folder / f"{name}.csv").unlink(missing_ok=True)

    def result(self, name: str) -> dict[str, Any] | None:
        """What a training came to, None while it is not over."""
        file = self.folder / f"{name}.json"
        return json.loads(file.read_text()) if file.exists() else None

    def has_begun(self, process: Process) -> bool:
        """Whether a session's first step is done."""
        file = self.folder / "steps"
        return file.exists() and f"{process.pid} " in file.read_text()

    def phases(self, process: Process, begun: bool) -> list[str]:
        """What each thread of a session was at when it died."""
        file = self.folder / "trail"
        last = {}
        for line in file.read_text().split("\n")[:-1] if file.exists() else []:
            pid, thread, point = line.split()
            if int(pid) == process.pid:
                last[thread.rpartition("_")[0]] = point
        main = "snapshot" if last.get("") == "before-snapshot" else "computing" if begun else "start-up"
        behind = [WRITER.get(last.get("haversack-checkpoint", "")), CARRIER.get(last.get("haversack-carrier", ""))]
        return [main, *[phase for phase in behind if phase]]


@contextmanager
def hub(folder: Path) -> Iterator[str]:
    """A hub of its own; its URL."""
    state = folder / "hub.json"
    command = [sys.executable, "-m", "haversack", "hub", "--root", str(folder / "hub"), "--port", "0"]
    process = subprocess.Popen([*command, "--state", str(state)], stdout=subprocess.DEVNULL)
    try:
        while not state.exists():
            if process.poll() is not None:
                raise SystemExit("The hub did not come up.")
            time.sleep(0.02)
        yield json.loads(state.read_text())["url"]
    finally:
        process.terminate()
        process.wait()


def session(machine: Machine, name: str, number: int, moments: random.Random) -> Kill | None:
    """One session that is killed at a random moment; None where it came to its end before."""
    elsewhere = number % ANOTHER_MACHINE == ANOTHER_MACHINE - 1
    if elsewhere:
        machine.lose_disk(name)
    begun, process = time.monotonic(), machine.start(name)
    early = moments.uniform(0.0, 3.0) if number % EARLY == EARLY - 1 else None
    while process.is_alive() and not machine.has_begun(process):
        if early is not None and time.monotonic() - begun > early:
            break
        time.sleep(0.005)
    trains = machine.has_begun(process)
    after = moments.uniform(0.0, LATEST) if trains else None
    process.join(after or 0.0)
    killed = process.is_alive()
    process.kill()
    process.join()
    if killed:
        return Kill(name, after, machine.phases(process, trains), elsewhere)
    if machine.result(name) is None:
        raise SystemExit(f"A session failed by itself:\n{(machine.folder / 'said').read_text()[-2000:]}")
    return None


def soak(kills: int, report: Report, machine: Machine) -> None:
    """Kill `kills` sessions, and have the last training come to its end."""
    unbroken = finished(machine, "unbroken")
    moments = random.Random(len(report.kills))
    number, goal, name = 0, len(report.kills) + kills, ""
    while len(report.kills) < goal:
        name = name or f"training-{report.trainings + 1}"
        killed = session(machine, name, number, moments)
        number += 1
        if killed is None:
            compare(report, name, machine.result(name), unbroken)
            name = ""
        else:
            report.kills.append(killed)
            print(f"{len(report.kills):>3}  {name}  {' + '.join(killed.phases)}", flush=True)
    if name:
        compare(report, name, finished(machine, name), unbroken)


def finished(machine: Machine, name: str) -> dict[str, Any]:
    machine.start(name).join()
    result = machine.result(name)
    if result is None:
        raise SystemExit(f"A session failed by itself:\n{(machine.folder / 'said').read_text()[-2000:]}")
    return result


def compare(report: Report, name: str, result: Any, unbroken: Any) -> None:
    report.trainings += 1
    differing = [aspect for aspect in unbroken if result[aspect] != unbroken[aspect]]
    report.differing += [f"{aspect} of {name}" for aspect in differing]
    print(
        f"     {name}  {'differs in ' + ', '.join(differing) if differing else 'equal to the unbroken one'}", flush=True
    )


def environment(folder: Path) -> dict[str, str]:
    return {
        "HOME": str(folder),
        "HAVERSACK_DATA": str(folder / "data"),
        "HAVERSACK_CACHE": str(folder / "cache"),
        "HAVERSACK_TOKEN": secrets.token_urlsafe(24),
        "HAVERSACK_FAILPOINT_TRAIL": str(folder / "trail"),
        # What one session compiled, the next need not.
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def before(more: bool) -> Report:
    if not (more and REPORT.exists()):
        return Report()
    found = json.loads(REPORT.read_text())
    return Report([Kill(**kill) for kill in found["kills"]], found["trainings"], found["differing"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kills", type=int, nargs="?", default=50)
    parser.add_argument("--more", action="store_true", help="add to the report that there is")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # so that no process of ours is left
    report = before(given.more)
    with tempfile.TemporaryDirectory(prefix="haversack-soak-") as scratch:
        folder = Path(scratch)
        os.environ.update(environment(folder))
        with hub(folder) as os.environ["HAVERSACK_HUB"]:
            __import__("trained")  # after the environment is set, and before the first session
            soak(given.kills, report, Machine(folder))
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report.json(), indent=1) + "\n")
    print(report)
    sys.exit(not report.is_good)


if __name__ == "__main__":
    main()
