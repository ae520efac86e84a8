"""What it costs to train on a data set of images with haversack, beside what else there is.

    uv run --group bench python bench/data.py epochs      # images per second, and the CPU they take
    uv run --group bench python bench/data.py index       # a zip archive of 674,000 members
    uv run --group bench python bench/data.py download    # 330 MB over a link of 100 MB/s and 20 ms
    uv run --group bench python bench/data.py first       # the first batch from an archive never seen

The images are made once, in `--scratch`. Every tool runs in a process of its own, one after the other, round by round;
medians are printed and put into `bench/results/data.json`. What is measured, and how, stands at the top of `loaders.py`
and `downloads.py`.
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
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pictures
from loaders import LOADERS
from record import Record

PACKAGES = (
    "haversack",
    "numpy",
    "opencv-python-headless",
    "keras",
    "grain",
    "webdataset",
    "torch",
    "kaggle",
    "kagglehub",
)
RECORD = Record("data", PACKAGES)
NEEDS = {"Grain": "grain", "WebDataset": "webdataset", "torch DataLoader": "torch"}
HERE = Path(__file__).parent


def run_epochs(given: argparse.Namespace, scratch: Path) -> None:
    folder = pictures.made(scratch / "pictures", given.images)
    names = [name for name in LOADERS if find_spec(NEEDS.get(name, "numpy"))]
    warm(folder)
    rounds: list[dict[str, dict[str, float]]] = []
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory(dir=scratch) as cache:
            rounds.append({name: one_epoch(name, folder, cache) for name in names})
    measured = {name: medians([one[name] for one in rounds], rounds) for name in names}
    print(f"\n{given.images:,} images, batches of 64, medians of {given.rounds} rounds")
    for name, values in measured.items():
        print(f"  {name:36}" + "  ".join(f"{key} {value:,.2f}" for key, value in values.items() if value is not None))
    RECORD.put("epochs", f"{given.images:,} images", {"rounds": given.rounds, "loaders": measured})


def one_epoch(name: str, folder: Path, cache: str) -> dict[str, float]:
    environment = os.environ | {"HAVERSACK_CACHE": cache, "KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(HERE / "loaders.py"), name, str(folder)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


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
    """Have everything in the page cache, for all alike."""
    for path in [folder / "images.zip", folder / "images.tar", *(folder / "images").glob("*/*.png")]:
        path.read_bytes()


def run_index(given: argparse.Namespace, scratch: Path) -> None:
    from haversack.archive.index import open_index
    from haversack.archive.reader import LocalFile

    archive = scratch / "674000.zip"
    if not archive.exists():
        write_directory(archive, 674_000)
    kept = scratch / "674000.index"
    times: dict[str, list[float]] = {"read": [], "opened again": [], "zipfile": []}
    for _ in range(given.rounds):
        kept.unlink(missing_ok=True)
        for what in ("read", "opened again"):
            started = time.perf_counter()
            assert len(open_index(LocalFile(archive), kept, "")) == 674_000
            times[what].append(time.perf_counter() - started)
        started = time.perf_counter()
        zipfile.ZipFile(archive).close()
        times["zipfile"].append(time.perf_counter() - started)
    measured = {what: statistics.median(found) for what, found in times.items()}
    print(
        "\nThe index of 674,000 members, seconds: " + ", ".join(f"{key} {value:.4f}" for key, value in measured.items())
    )
    RECORD.put("index", "674,000 members", {"rounds": given.rounds, "seconds": measured})


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
    import downloads

    folder = pictures.made(scratch / "pictures", given.images)
    measured = downloads.measure(folder / "images.zip", given.rounds, scratch)
    print(f"\n{given.images:,} images over 100 MB/s and 20 ms, seconds and bytes, medians of {given.rounds} rounds")
    for name, values in measured.items():
        print(f"  {name:24}" + "  ".join(f"{key} {value:,.2f}" for key, value in values.items()))
    RECORD.put("download", f"{given.images:,} images", {"rounds": given.rounds, "tools": measured})


def run_first(given: argparse.Namespace, scratch: Path) -> None:
    import downloads

    once = pictures.made(scratch / "pictures", given.images) / "images.zip"
    for archive in (once, pictures.repeated(once, 10, scratch / "pictures" / "repeated.zip")):
        size = f"{archive.stat().st_size / 1e6:,.0f} MB"
        measured = downloads.first_batch(archive, given.rounds, scratch)
        print(
            f"\nThe first batch of 64 from {size}: "
            + ", ".join(f"{key} {value:,.3f}" for key, value in measured.items())
        )
        RECORD.put("first batch", size, {"rounds": given.rounds, **measured})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["epochs", "index", "download", "first"])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--scratch", type=Path, help="a folder for the images, which is kept; by default one that is not"
    )
    given = parser.parse_args()
    runs: dict[str, Any] = {"epochs": run_epochs, "index": run_index, "download": run_downloads, "first": run_first}
    with tempfile.TemporaryDirectory() as aside:
        scratch = given.scratch or Path(aside)
        scratch.mkdir(parents=True, exist_ok=True)
        runs[given.what](given, scratch)


if __name__ == "__main__":
    main()
