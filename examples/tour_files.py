"""Make the files that `tour.ipynb` works on and put them on the hub: a photograph, a Kaggle key, a set of digits.

    uv run python examples/tour_files.py [--hub URL] [--out DIR]

The digits are scikit-learn's 1,797 handwritten ones of 8 × 8 pixels, drawn on 28 × 28 and shifted and rotated ten times
each: 17,970 PNG files. The order of the originals is shuffled once, and the ten variants of each stay together in it,
so that the last fifth of the set shows other originals than the rest. What is on the hub already is left as it is.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

from haversack import credentials, dataset, settings
from haversack.datasets.publication import put
from haversack.drive.filesystem import DriveFileSystem
from haversack.errors import NotFound
from haversack.http import Http, wait

DIGITS = "kaggle:haversack/digits"
VARIANTS = 10
SIZE = 28
SHIFT, ROTATION = 3.0, 12.0
"""The most a variant is moved, in pixels, and turned, in degrees."""


def photograph() -> bytes:
    """A photograph as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(load_sample_image("china.jpg")).save(file, "JPEG", quality=90)
    return file.getvalue()


def variants(pixels: np.ndarray, random: np.random.Generator) -> Iterator[Image.Image]:
    """Ten pictures of one digit. `pixels`: 8 × 8, from 0 to 16."""
    small = Image.fromarray(np.pad(pixels * (255 / 16), 2).astype(np.uint8))
    picture = small.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    for _ in range(VARIANTS):
        angle, (across, down) = random.uniform(-ROTATION, ROTATION), random.uniform(-SHIFT, SHIFT, 2)
        yield picture.rotate(angle, Image.Resampling.BILINEAR, translate=(across, down))


def write_digits(archive: Path) -> None:
    """The data set's archive: `labels.csv` and `images/NNNN-V.png`. Every run writes the same bytes."""
    random = np.random.default_rng(1797)
    digits = load_digits()
    labels = io.StringIO()
    table = csv.writer(labels, lineterminator="\n")
    table.writerow(["file", "label"])
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for number, original in enumerate(random.permutation(len(digits.images))):
            for variant, picture in enumerate(variants(digits.images[original], random)):
                name = f"images/{number:04}-{variant}.png"
                content = io.BytesIO()
                picture.save(content, "PNG")
                file.writestr(zipfile.ZipInfo(name), content.getvalue())
                table.writerow([name, digits.target[original]])
        file.writestr(zipfile.ZipInfo("labels.csv"), labels.getvalue())


def upload_digits(folder: Path) -> None:
    try:
        with dataset(DIGITS) as digits:
            print(f"{DIGITS} is there, with {len(digits.files):,} files.")
    except NotFound:
        archive = folder / "digits.zip"
        write_digits(archive)
        version = put(archive, DIGITS, title="Handwritten digits, shifted and rotated").version
        print(f"{DIGITS} is there now, at version {version}.")


def write_to_drive(drive: DriveFileSystem, name: str, content: bytes) -> None:
    if drive.exists(name) and drive.cat_file(name) == content:
        print(f"My Drive/{name} is there.")
        return
    with drive.open(name, "wb") as file:
        file.write(content)
    print(f"My Drive/{name} is there now.")


async def kaggle_json(server: credentials.Server) -> bytes:
    """The key file that the hub hands out for Kaggle's clients."""
    http = Http(server)
    try:
        return (await http.request("GET", "/haversack/kaggle.json")).body
    finally:
        await http.close()


def main() -> None:
    arguments = argparse.ArgumentParser(description="Put the tour's files on the hub.")
    arguments.add_argument("--hub", metavar="URL", help="the hub to use; the embedded one where none is named")
    arguments.add_argument("--out", metavar="DIR", type=Path, help="also write the photograph and the archive here")
    given = arguments.parse_args()

    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "1.jpg").write_bytes(photograph())
        write_digits(given.out / "digits.zip")
        print(f"1.jpg and digits.zip are in {given.out}.")
    server = credentials.drive(given.hub or settings.load().hub or "embedded")
    # Named like this the hub answers for Kaggle too, also where the user is signed in to Kaggle itself.
    os.environ["HAVERSACK_HUB"], os.environ["HAVERSACK_TOKEN"] = server.url, server.secrets[0]
    drive = DriveFileSystem()
    write_to_drive(drive, "1.jpg", photograph())
    write_to_drive(drive, "kaggle.json", wait(kaggle_json(server)))
    with tempfile.TemporaryDirectory() as folder:
        upload_digits(Path(folder))


if __name__ == "__main__":
    main()
