"""What `/kaggle/input` costs: a walk, the first read, and reading everything once, from a hub 20 ms and 100 MB/s away.

    uv run python bench/kaggle_inputs.py first    # 2 GB in 20,000 members: mount, os.walk, the first file, its bytes
    uv run python bench/kaggle_inputs.py once     # 200 MB of tables read once, beside the kaggle command and unzip
    uv run python bench/kaggle_inputs.py all

Each measurement is a process that begins with an empty cache. The mount is the one that a job makes, without a kernel.
The kaggle command's row is its download with `--unzip` and then reading the extracted files. Programs take turns, round
by round; medians are printed and put into `bench/results/kaggle_inputs.json`.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import zipfile
from pathlib import Path

from downloads import KAGGLE, NAME, Hub, Tool, run, serving, through
from record import Record
from scratch import working_in

RECORD = Record("kaggle_inputs", ("mfusepy", "kaggle"))
MEMBERS = 20_000
# Mounts the data set named by the first argument of the hub in the second at a folder of the third.
MOUNT = """if True:
    import json, os, sys, time
    from pathlib import Path
    started = time.perf_counter()
    from haversack.notebook.kaggle.inputs import attach
    from haversack.notebook.kaggle.mount import InputMount
    name, hub, folder = sys.argv[1:4]
    place = Path(folder, "input")
    place.mkdir()
    mount = InputMount(attach(["kaggle:" + name], hub), place, hub, False, Path(folder, "log"))
    top = place / name.partition("/")[2]
    def since():
        return time.perf_counter() - started
"""
FIRST = (
    MOUNT
    + """
    mounted = since()
    walked = sum(len(names) for _, _, names in os.walk(top))
    walk = since() - mounted
    first = (top / "images" / "010000.bin").read_bytes()
    read = since() - mounted - walk
    import haversack
    about = haversack.dataset("kaggle:" + name, hub=hub).info()
    found = {"mount": mounted, "os.walk": walk, "first read": read, "members": walked}
    print(json.dumps(found | {"part of the bytes": about["archive_here"] / about["archive_size"]}))
    mount.close()
"""
)
READ = """
    total = 0
    for path in sorted(top.rglob("*.csv")):
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                total += len(piece)
    print(json.dumps({"seconds": since(), "bytes": total}))
"""
ONCE = MOUNT + READ + "    mount.close()\n"
UNZIPPED = (
    """if True:
    import json, subprocess, sys, time
    from pathlib import Path
    started = time.perf_counter()
    subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
    top = Path(sys.argv[-2])
    def since():
        return time.perf_counter() - started
"""
    + READ
)


def run_first(root: Path, rounds: int, megabytes: int) -> None:
    """A walk, and the first read of one file in the middle of a large archive of stored members."""
    archive = root / f"members-{megabytes}.zip"
    if not archive.exists():
        size, noise = megabytes * 10**6 // MEMBERS, random.Random(1)
        with zipfile.ZipFile(archive, "w", allowZip64=True) as made:
            for number in range(MEMBERS):
                made.writestr(f"images/{number:06}.bin", noise.randbytes(size))
    with serving(archive, root) as hub:
        each = [json.loads(run(ours(hub, FIRST), Path(folder))) for folder in _folders(root, rounds)]
    put("first", archive.name, rounds, {key: statistics.median(one[key] for one in each) for key in each[0]})


def run_once(root: Path, rounds: int, megabytes: int) -> None:
    """Tables that are read once, whole: by the mount, and after the kaggle command has extracted them."""
    archive = root / f"tables-{megabytes}.zip"
    if not archive.exists():
        chance = random.Random(2)
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
            for number in range(4):
                rows = (b"%d,%.6f,%.3f\n" % (row, chance.random(), chance.gauss(0, 9)) for row in range(40_000))
                block = b"".join(rows)
                made.writestr(f"table-{number}.csv", block * max(1, megabytes * 250_000 // len(block)))
    found: dict[str, list[float]] = {}
    with serving(archive, root) as hub:
        for _ in range(rounds):
            for name, tool in (("haversack", ours(hub, ONCE)), ("kaggle --unzip", theirs(hub))):
                [folder] = _folders(root, 1)
                found.setdefault(name, []).append(json.loads(run(tool, Path(folder)))["seconds"])
    seconds = {name: statistics.median(each) for name, each in found.items()}
    ratio = seconds["haversack"] / seconds["kaggle --unzip"]
    put("once", archive.name, rounds, {**seconds, "haversack / kaggle --unzip": ratio})


def ours(hub: Hub, code: str) -> Tool:
    environment = {"HAVERSACK_TOKEN": hub.token, "HAVERSACK_CACHE": "{folder}/cache"}
    return [sys.executable, "-c", code, NAME, hub.url, "{folder}"], environment


def theirs(hub: Hub) -> Tool:
    command = KAGGLE.format(name=NAME, folder="{folder}").split()[1:]
    official = str(Path(sys.executable).with_name("kaggle"))
    return [sys.executable, "-c", UNZIPPED, official, *command], {"KAGGLE_API_TOKEN": hub.token, **through(hub.url)}


def put(kind: str, name: str, rounds: int, measured: dict[str, float]) -> None:
    print(f"\n{kind}: {name}, medians of {rounds}")
    for key, value in measured.items():
        print(f"  {key:28} {value:12.4f}")
    RECORD.put(kind, name, {"command": " ".join(["python", "bench/kaggle_inputs.py", *sys.argv[1:]]), **measured})


def _folders(root: Path, count: int) -> list[str]:
    return [tempfile.mkdtemp(dir=root) for _ in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["first", "once", "all"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=int, help="the archive's size; by default 2000 for first, 200 for once")
    parser.add_argument("--scratch", type=Path, help="a folder for the archives, which is kept")
    given = parser.parse_args()
    with working_in(given.scratch) as root:
        if given.what in ("first", "all"):
            run_first(root, given.rounds, given.megabytes or 2000)
        if given.what in ("once", "all"):
            run_once(root, given.rounds, given.megabytes or 200)


if __name__ == "__main__":
    main()
