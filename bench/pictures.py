"""The images that loaders are measured on: crops of scikit-learn's photographs in grey, 224 × 224, about 16 KB each."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from sklearn.datasets import load_sample_images

SIDE = 224
CLASSES = ("flower", "temple")


def made(folder: Path, count: int) -> Path:
    """`count` images in `folder`: `images/CLASS/NUMBER.png`, the same in `images.zip` (stored) and in `images.tar`."""
    done = folder / f"made-{count}"
    if done.exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    for name in CLASSES:
        (folder / "images" / name).mkdir(parents=True)
    with zipfile.ZipFile(folder / "images.zip", "w") as zipped, tarfile.open(folder / "images.tar", "w") as tarred:
        for name, data in _encoded(count):
            path = folder / "images" / name
            path.write_bytes(data)
            zipped.writestr(name, data)
            tarred.add(path, name)
    done.touch()
    return folder


def repeated(archive: Path, times: int) -> Path:
    """An archive beside `archive` with each of its images several times, under other names."""
    target = archive.with_stem(f"{archive.stem}-{times}")
    if not target.exists():
        aside = target.with_suffix(".part")
        with zipfile.ZipFile(archive) as source, zipfile.ZipFile(aside, "w") as out:
            for name in source.namelist():
                data = source.read(name)
                for time in range(times):
                    out.writestr(name.replace(".png", f"-{time}.png"), data)
        aside.rename(target)
    return target


def _encoded(count: int) -> Iterator[tuple[str, bytes]]:
    photographs = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in load_sample_images().images]

    def encode(number: int) -> tuple[str, bytes]:
        random = np.random.default_rng(number)
        photograph = photographs[number % 2]
        height, width = photograph.shape
        side = int(random.integers(SIDE // 2, height))
        top, left = int(random.integers(0, height - side)), int(random.integers(0, width - side))
        crop = cv2.resize(photograph[top : top + side, left : left + side], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        # As smooth as makes a PNG of it as large as one of an X-ray image is.
        smooth = cv2.GaussianBlur(crop, (0, 0), 1.9)
        done, data = cv2.imencode(".png", smooth, [cv2.IMWRITE_PNG_COMPRESSION, 6])
        assert done
        return f"{CLASSES[1 - number % 2]}/{number:06}.png", data.tobytes()

    with ThreadPoolExecutor(2) as pool:
        yield from pool.map(encode, range(count))
