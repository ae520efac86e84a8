"""What it costs to train on a data set of images with haversack, beside what else there is.

    uv run --group bench python bench/data.py epochs --scratch /var/tmp/data  # images per second, and the CPU they take
    uv run --group bench python bench/data.py index     # a zip archive of 674,000 members
    uv run --group bench python bench/data.py download  # 330 MB over a link of 100 MB/s and 20 ms, and disk
    uv run --group bench python bench/data.py first     # the first batch from an archive never seen
    uv run --group bench python bench/data.py disk      # an epoch from an archive never seen, without kept pixels
    uv run --group bench python bench/data.py memory    # an archive of 5 GB
    uv run --group bench python bench/data.py plot      # docs/data-performance.png, of the results

With `--with torch --with tensorflow-cpu` behind `--group bench` these are measured too. The images are made once, in
`--scratch`. Every tool runs in a process of its own, one after the other, round by round; medians are printed and put
into `bench/results/data.json`. What is measured, and how, stands at the top of `loaders.py`, `downloads.py` and
`memory.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import downloads
import pictures
from loaders import LOADERS
from record import Record
from scratch import working_in

PACKAGES = (
    "haversack",
    "numpy",
    "opencv-python-headless",
    "keras",
    "tensorflow-cpu",
    "grain",
    "webdataset",
    "torch",
    "kaggle",
    "kagglehub",
)
RECORD = Record("data", PACKAGES)
NEEDS = {
    "Keras, by Grain": "grain",
    "Keras, by TensorFlow": "tensorflow",
    "Grain": "grain",
    "WebDataset": "webdataset",
    "torch DataLoader": "torch",
}
HERE = Path(__file__).parent
MEMBERS = 674_000
# Batches that are taken of the large archive: 20,000 images.
BATCHES = 312


def run_epochs(given: argparse.Namespace, scratch: Path) -> None:
    folder = pictures.made(scratch / "pictures", given.images)
    names = [name for name in LOADERS if find_spec(NEEDS.get(name, "numpy"))]
    rounds: list[dict[str, dict[str, float]]] = []
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory(dir=scratch) as cache:
            rounds.append({name: one_epoch(name, folder, cache) for name in names})
    measured = {name: medians([one[name] for one in rounds], rounds) for name in names}
    said(f"{given.images:,} images, batches of 64", given.rounds, measured)
    RECORD.put("epochs", f"{given.images:,} images", {"rounds": given.rounds, "loaders": measured})


def one_epoch(name: str, folder: Path, cache: str) -> dict[str, float]:
    warm(folder)
    return in_process("loaders.py", name, str(folder), HAVERSACK_CACHE=cache)


def medians(values: list[dict[str, float]], rounds: list[dict[str, dict[str, float]]]) -> dict[str, float | None]:
    """Of each figure, and of the ratios to the limit of the same round."""
    found: dict[str, float | None] = {
        key: None if values[0][key] is None else statistics.median(one[key] for one in values) for key in values[0]
    }
    limits = [one["decoding alone"] for one in rounds]
    for key, ratio in (("images/s", "images/s / limit"), ("CPU µs per image", "CPU / limit")):
        found[ratio] = statistics.median(one[key] / limit[key] for one, limit in zip(values, limits, strict=True))
    return found


def warm(folder: Path) -> None:
    """Have everything in memory, for all alike: a virtual machine's costs more where it was not touched for seconds."""
    for path in [folder / "images.zip", folder / "images.tar", *(folder / "images").glob("*/*.png")]:
        path.read_bytes()


def run_index(given: argparse.Namespace, scratch: Path) -> None:
    from haversack.archive.index import open_index
    from haversack.archive.reader import LocalFile

    archive = scratch / f"{MEMBERS}.zip"
    if not archive.exists():
        write_directory(archive, MEMBERS)
    kept = scratch / f"{MEMBERS}.index"
    times: dict[str, list[float]] = {"read": [], "opened again": [], "zipfile": []}
    for _ in range(given.rounds):
        kept.unlink(missing_ok=True)
        for what in ("read", "opened again"):
            started = time.perf_counter()
            assert len(open_index(LocalFile(archive), kept, "")) == MEMBERS
            times[what].append(time.perf_counter() - started)
        started = time.perf_counter()
        zipfile.ZipFile(archive).close()
        times["zipfile"].append(time.perf_counter() - started)
    measured = {what: {"seconds": statistics.median(found)} for what, found in times.items()}
    said(f"The index of {MEMBERS:,} members", given.rounds, measured)
    RECORD.put("index", f"{MEMBERS:,} members", {"rounds": given.rounds, "ways": measured})


def write_directory(path: Path, count: int) -> None:
    """An archive of empty members, as large in its directory as one of so many images."""
    entries, aside = [], path.with_suffix(".part")
    with open(aside, "wb") as out:
        for number in range(count):
            name = f"stage_1_train_images_png_224x/ID_{number * 2654435761 % 2**32:08x}{number:06}.png".encode()
            head = (20, 0x800, 0, 0, 33, 0, 0, 0, len(name), 0)
            entries.append(struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, *head, 0, 0, 0, 0, out.tell()) + name)
            out.write(struct.pack("<4s5H3L2H", b"PK\3\4", *head) + name)
        start = out.tell()
        out.write(b"".join(entries))
        end, size = out.tell(), out.tell() - start
        out.write(struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start))
        out.write(struct.pack("<4sLQL", b"PK\6\7", 0, end, 1))
        out.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))
    aside.rename(path)


def run_downloads(given: argparse.Namespace, scratch: Path) -> None:
    archive = pictures.made(scratch / "pictures", given.images) / "images.zip"
    measured = downloads.measure(archive, given.rounds, scratch)
    said(f"{given.images:,} images over 100 MB/s and 20 ms", given.rounds, measured)
    RECORD.put("download", f"{given.images:,} images", {"rounds": given.rounds, "tools": measured})


def run_first(given: argparse.Namespace, scratch: Path) -> None:
    once = pictures.made(scratch / "pictures", given.images) / "images.zip"
    for archive in (once, pictures.repeated(once, 10)):
        size = f"{archive.stat().st_size / 1e6:,.0f} MB"
        measured = downloads.first_batch(archive, given.rounds, scratch)
        said("The first batch of 64", given.rounds, {f"from {size}": measured})
        RECORD.put("first batch", size, {"rounds": given.rounds, **measured})


def run_disk(given: argparse.Namespace, scratch: Path) -> None:
    archive = pictures.made(scratch / "pictures", given.images) / "images.zip"
    measured = downloads.epoch(archive, given.rounds, scratch)
    said("An epoch from an archive never seen", given.rounds, {"cache=None": measured})
    RECORD.put("disk", f"{given.images:,} images", {"rounds": given.rounds, **measured})


def run_memory(given: argparse.Namespace, scratch: Path) -> None:
    archive = pictures.repeated(pictures.made(scratch / "pictures", given.images) / "images.zip", 15)
    batches = str(min(BATCHES, given.images * 15 // 64))
    measured = {}
    with tempfile.TemporaryDirectory(dir=scratch) as cache:
        for what, more in (("decoded", []), ("decoded and kept", ["disk"]), ("decoded before", ["disk"])):
            measured[what] = in_process("memory.py", str(archive), batches, *more, HAVERSACK_CACHE=cache)
    size = f"{archive.stat().st_size / 1e9:,.1f} GB"
    said(f"{batches} batches of 64 from {size}", 1, measured)
    RECORD.put("memory", size, measured)


def run_plot(given: argparse.Namespace, scratch: Path) -> None:
    import charts

    print(charts.drawn(RECORD, HERE.parent / "docs" / "data-performance.png"))


def in_process(script: str, *arguments: str, **environment: str) -> dict[str, float]:
    """The figures that a script of this folder prints in its last line."""
    own = {"KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    command = [sys.executable, str(HERE / script), *arguments]
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def said(what: str, rounds: int, measured: dict[str, dict[str, float | None]]) -> None:
    print(f"\n{what}, medians of {rounds}")
    for name, values in measured.items():
        print(f"  {name:34}" + "  ".join(f"{key} {value:,.3g}" for key, value in values.items() if value is not None))


RUNS: dict[str, Callable[[argparse.Namespace, Path], None]] = {
    "epochs": run_epochs,
    "index": run_index,
    "download": run_downloads,
    "first": run_first,
    "disk": run_disk,
    "memory": run_memory,
    "plot": run_plot,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(RUNS))
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--scratch", type=Path, help="a folder for the images, which is kept; by default one that is not"
    )
    given = parser.parse_args()
    with working_in(given.scratch) as scratch:
        RUNS[given.what](given, scratch)


if __name__ == "__main__":
    main()
