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
    """Tests of `tests/drive`, by pytest's arguments, with how much is asked of them."""

    says: str
    tests: tuple[str, ...]
    asked: dict[str, int]


PHASES = {
    "random work": Phase(
        "operations on a mount and on an ordinary folder beside it, twice",
        ("test_exerciser.py", "-k", "ordinary_folder"),
        {"HAVERSACK_OPERATIONS": 10_000},
    ),
    "random work, calls failing": Phase(
        "the same while calls answer 500, are refused in bursts of 429, break off and stall (a quarter of that many)",
        ("test_exerciser.py", "-k", "every_way"),
        {"HAVERSACK_OPERATIONS": 20_000},
    ),
    "calls failing": Phase(
        "operations of the client, at each kind of failure by itself",
        ("test_faults.py",),
        {"HAVERSACK_OPERATIONS": 5000},
    ),
    "kills": Phase(
        "mounts killed with SIGKILL while hundreds of files are being written",
        ("test_death.py",),
        {"HAVERSACK_ROUNDS": 20},
    ),
    "two machines": Phase(
        "times two machines write into one folder, the same names too",
        ("test_mount_faults.py", "-k", "two_machines"),
        {"HAVERSACK_ROUNDS": 10},
    ),
    "refusals": Phase(
        "of each: a token that expires, a quota that is reached, a full disk, a drive that is not to be written to",
        ("test_mount_faults.py", "-k", "not two_machines"),
        {},
    ),
    "programs": Phase(
        "files copied, cloned, packed and synced by cp, git, tar, unzip and rsync, at 20 ms a call, 1 % failing",
        ("test_programs.py",),
        {"HAVERSACK_FILES": 3000},
    ),
}


def run(phase: Phase, scratch: Path) -> tuple[int, float, str]:
    """The exit status, the seconds it took, and what was printed."""
    first, *more = phase.tests
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--timeout", "7200", "--durations", "0"]
    command += ["--basetemp", str(scratch / "tests"), str(ROOT / "tests" / "drive" / first), *more]
    environment = {**os.environ, **{name: str(count) for name, count in phase.asked.items()}}
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
        count = next(iter(phase.asked.values()), 1)
        with tempfile.TemporaryDirectory(prefix="haversack-soak-", ignore_cleanup_errors=True) as scratch:
            status, seconds, said = run(phase, Path(scratch))
        held = status == 0
        failed += [] if held else [name]
        print(f"{'held' if held else 'FAILED':<7}{seconds:>7.0f} s  {count:,} {phase.says}", flush=True)
        if not held:
            print(said if status != _NOTHING_RAN else f"No test is called so: {phase.tests}", flush=True)
        RECORD.put("phases", name, {"asked": count, "says": phase.says, "held": held, "seconds": seconds})
    print(f"The drive: {len(wanted)} phases, {'failed: ' + ', '.join(failed) if failed else 'all held'}.")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
