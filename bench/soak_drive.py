"""The drive's bad days at full length: the suite's own tests of them, asked for more.

    scripts/soak                                            # after the training's kills
    uv run python bench/soak_drive.py                       # these alone
    uv run python bench/soak_drive.py kills "two machines"  # some of them

Each phase is printed with how long it took, and kept in `bench/results/soak-drive.json`; the exit status says whether
all of them held.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from record import Record

RECORD = Record("soak-drive", ("haversack", "aiohttp", "mfusepy"))
ROOT = Path(__file__).parent.parent
_NOTHING_RAN = 5  # pytest's own status


@dataclass(frozen=True)
class Phase:
    """Tests of `tests/drive`, by pytest's arguments; `count` is asked of them by a variable of the environment."""

    says: str
    tests: tuple[str, ...]
    asked: str = ""
    count: int = 0

    def __str__(self) -> str:
        return self.says.format(f"{self.count:,}")


PHASES = {
    "random work": Phase(
        "twice {} operations on a mount and on an ordinary folder beside it",
        ("test_exerciser.py", "-k", "ordinary_folder"),
        "HAVERSACK_OPERATIONS",
        10_000,
    ),
    "random work, ahead": Phase(
        "{} of them while files go up while they are written",
        ("test_exerciser.py", "-k", "while_they_are_written"),
        "HAVERSACK_OPERATIONS",
        3000,
    ),
    "random work, calls failing": Phase(
        "{} of them while calls answer 500, are refused in bursts of 429, break off and stall",
        ("test_exerciser.py", "-k", "every_way"),
        "HAVERSACK_OPERATIONS",
        5000,
    ),
    "calls failing": Phase(
        "{} operations of the client at each kind of failure by itself",
        ("test_faults.py",),
        "HAVERSACK_OPERATIONS",
        5000,
    ),
    "kills": Phase(
        "{} mounts killed with SIGKILL while 200 files and more are pending",
        ("test_death.py",),
        "HAVERSACK_ROUNDS",
        20,
    ),
    "two machines": Phase(
        "{} times two machines write into one folder, the same names too",
        ("test_mount_faults.py", "-k", "two_machines"),
        "HAVERSACK_ROUNDS",
        10,
    ),
    "refusals": Phase(
        "a token that expires, a quota that is reached, a full disk, a drive that takes no writes, a hub that ends",
        ("test_mount_faults.py", "-k", "not two_machines"),
    ),
    "programs": Phase(
        "{} files for cp, git, tar, unzip, rsync, and a database, at 20 ms a call of which 1 % fail",
        ("test_programs.py",),
        "HAVERSACK_FILES",
        3000,
    ),
}


def run(phase: Phase, scratch: Path) -> tuple[int, float, str]:
    """The exit status, the seconds it took, and what was printed."""
    first, *more = phase.tests
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--timeout", "7200", "--durations", "0"]
    command += ["-m", ""]  # the long ones too
    command += ["--basetemp", str(scratch / "tests"), str(ROOT / "tests" / "drive" / first), *more]
    environment = {**os.environ, phase.asked: str(phase.count)} if phase.asked else dict(os.environ)
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, time.monotonic() - began, done.stdout + done.stderr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phases", nargs="*", metavar="PHASE", help=f"some of: {', '.join(PHASES)}")
    wanted = parser.parse_args().phases or list(PHASES)
    if unknown := set(wanted) - set(PHASES):
        parser.error(f"there is no phase {', '.join(unknown)}")
    failed = []
    for name in wanted:
        phase = PHASES[name]
        with tempfile.TemporaryDirectory(prefix="haversack-soak-", ignore_cleanup_errors=True) as scratch:
            status, seconds, said = run(phase, Path(scratch))
        held = status == 0
        failed += [] if held else [name]
        print(f"{'held' if held else 'FAILED':<7}{seconds:>7.0f} s  {phase}", flush=True)
        if not held:
            print(said if status != _NOTHING_RAN else f"No test is called so: {phase.tests}", flush=True)
        RECORD.put("phases", name, {"says": str(phase), "held": held, "seconds": seconds})
    print(f"The drive: {len(wanted)} phases, {'failed: ' + ', '.join(failed) if failed else 'all held'}.")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
