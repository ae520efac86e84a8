"""What it costs to train with haversack, beside what else there is.

    uv run python bench/training.py saves                          # 100 MB and 1 GB, five rounds each
    uv run python bench/training.py saves --megabytes 1000 --rounds 3 --tools haversack "Keras OrbaxCheckpoint"
    uv run python bench/training.py rhythm --megabytes 100         # a training with saves in rhythm against none
    uv run python bench/training.py kills --kills 4 --every 60     # what is left of the time when it is killed

Results are printed, and put into `bench/results/training.json`, each under its own name, beside what was measured
before. What is measured, and how, stands at the top of `saves.py` and `sessions.py`.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from pathlib import Path

from record import Record

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

RECORD = Record("training", ("haversack", "jax", "keras", "orbax-checkpoint", "h5py", "numpy"))


def run_saves(given: argparse.Namespace, scratch: Path) -> None:
    import saves

    for megabytes in given.megabytes or [100, 1000]:
        folder, tools = scratch / str(megabytes), given.tools or [*saves.TOOLS]
        folder.mkdir()
        measured = saves.measure(megabytes * 10**6, given.rounds, tools, folder)
        print(f"\nOne save of {megabytes} MB, seconds, medians of {given.rounds} rounds")
        saves.show(measured)
        # Tools may be measured one by one, since a gigabyte takes each of them its time.
        measured = {**RECORD.get("saves", f"{megabytes} MB").get("seconds", {}), **measured}
        RECORD.put("saves", f"{megabytes} MB", {"rounds": given.rounds, "seconds": measured})


def run_rhythm(given: argparse.Namespace, scratch: Path) -> None:
    import sessions

    for megabytes in given.megabytes or [100]:
        measured = sessions.measure_rhythm(megabytes * 10**6, given.rounds, given.seconds, scratch)
        print(f"\nA training of {megabytes} MB of state: " + sessions.said(measured))
        RECORD.put("rhythm", f"{megabytes} MB", measured)


def run_kills(given: argparse.Namespace, scratch: Path) -> None:
    import sessions

    [megabytes] = given.megabytes or [10]
    measured = sessions.measure_kills(megabytes * 10**6, given.kills, given.every, scratch)
    print(f"\nA training of {megabytes} MB, killed every {given.every:.0f} s: " + sessions.said(measured))
    RECORD.put("kills", f"{megabytes} MB, every {given.every:.0f} s", measured)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["saves", "rhythm", "kills"])
    parser.add_argument("--megabytes", type=int, nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tools", nargs="+", help="saves: only these")
    parser.add_argument("--seconds", type=float, default=30.0, help="rhythm: how long a training lasts, about")
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--every", type=float, default=60.0, help="kills: seconds of training between two of them")
    parser.add_argument("--scratch", type=Path, help="a folder on the disk that is to be measured")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(dir=given.scratch) as scratch:
        {"saves": run_saves, "rhythm": run_rhythm, "kills": run_kills}[given.what](given, Path(scratch))


if __name__ == "__main__":
    main()
