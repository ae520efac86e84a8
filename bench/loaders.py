"""One epoch of images by one loader, in a process of its own: `python bench/loaders.py NAME FOLDER`; prints JSON.

All make the same of the same images: batches of 64, in random order, uint8 of 224 × 224 × 1 (Keras's
`image_dataset_from_directory` float32, which it gives alone). Where a loader lets its user choose, images are decoded
by OpenCV. `limit` decodes from memory and does nothing else, a thread for each core, each with whole pieces of a batch.
Seconds begin before the loader's imports; the epoch's images per second do not count the first batch. CPU is that of
the process and its children.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

BATCH, SIDE, CORES = 64, 224, len(os.sched_getaffinity(0))


def limit(folder: Path) -> Iterator[Any]:
    """Decoding alone: everything is in memory, and nobody waits for anybody."""
    from concurrent.futures import ThreadPoolExecutor

    import cv2
    import numpy as np

    cv2.setNumThreads(0)
    data = [np.frombuffer(path.read_bytes(), np.uint8) for path in (folder / "images").glob("*/*.png")]
    random.Random(0).shuffle(data)
    out = np.empty((BATCH, SIDE, SIDE, 1), np.uint8)

    def decode(places: range, images: list[Any]) -> None:
        for place, image in zip(places, images, strict=True):
            out[place, :, :, 0] = cv2.imdecode(image, cv2.IMREAD_UNCHANGED)

    yield None  # what comes before is not decoding
    with ThreadPoolExecutor(CORES) as pool:
        for start in range(0, len(data), BATCH):
            images = data[start : start + BATCH]
            bounds = [len(images) * part // CORES for part in range(CORES + 1)]
            pieces = [range(*bounds[part : part + 2]) for part in range(CORES)]
            list(pool.map(decode, pieces, [images[piece.start : piece.stop] for piece in pieces]))
            yield out[: len(images)]


def haversack(folder: Path) -> Iterator[Any]:
    return ours(folder, None)


def haversack_cached(folder: Path) -> Iterator[Any]:
    return ours(folder, "disk")


def ours(folder: Path, cache: str | None) -> Iterator[Any]:
    import haversack

    images = haversack.dataset(str(folder / "images.zip")).images(
        size=(SIDE, SIDE), channels=1, batch_size=BATCH, dtype="uint8", cache=cache
    )
    yield from images
    images.close()


def keras_by_grain(folder: Path) -> Iterable[Any]:
    return keras_directory(folder, "grain")


def keras_by_tensorflow(folder: Path) -> Iterable[Any]:
    return keras_directory(folder, "tf")


def keras_directory(folder: Path, kind: str) -> Iterable[Any]:
    import keras

    return keras.utils.image_dataset_from_directory(
        folder / "images", color_mode="grayscale", image_size=(SIDE, SIDE), batch_size=BATCH, seed=0, format=kind,
        verbose=False,
    )  # fmt: skip


def grain(folder: Path) -> Iterable[Any]:
    import cv2
    import grain
    import numpy as np

    cv2.setNumThreads(0)
    paths = sorted(map(str, (folder / "images").glob("*/*.png")))

    def load(path: str) -> tuple[Any, int]:
        data = np.frombuffer(Path(path).read_bytes(), np.uint8)
        return cv2.imdecode(data, cv2.IMREAD_UNCHANGED)[:, :, None], int("flower" in path)

    dataset = grain.MapDataset.source(paths).seed(0).shuffle().map(load)
    return dataset.to_iter_dataset(grain.ReadOptions(num_threads=CORES)).batch(BATCH)


def webdataset(folder: Path) -> Iterable[Any]:
    import cv2
    import numpy as np
    import webdataset

    cv2.setNumThreads(0)

    def load(sample: dict[str, Any]) -> tuple[Any, int]:
        data = np.frombuffer(sample["png"], np.uint8)
        return cv2.imdecode(data, cv2.IMREAD_UNCHANGED)[:, :, None], int("flower" in sample["__key__"])

    tar = str(folder / "images.tar")
    return webdataset.WebDataset(tar, shardshuffle=False).shuffle(1000).map(load).batched(BATCH)


def torch(folder: Path) -> Iterable[Any]:
    import cv2
    import numpy as np
    from torch.utils.data import DataLoader, Dataset

    cv2.setNumThreads(0)

    class Pictures(Dataset):
        paths = sorted(map(str, (folder / "images").glob("*/*.png")))

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, place: int) -> tuple[Any, int]:
            data = np.frombuffer(Path(self.paths[place]).read_bytes(), np.uint8)
            return cv2.imdecode(data, cv2.IMREAD_UNCHANGED)[:, :, None], int("flower" in self.paths[place])

    return DataLoader(Pictures(), BATCH, shuffle=True, num_workers=CORES)


LOADERS = {
    "decoding alone": limit,
    "haversack": haversack,
    "haversack, decoding and keeping": haversack_cached,
    "haversack, decoded before": haversack_cached,
    "Keras, by Grain": keras_by_grain,
    "Keras, by TensorFlow": keras_by_tensorflow,
    "Grain": grain,
    "WebDataset": webdataset,
    "torch DataLoader": torch,
}


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    begun = time.perf_counter()
    batches = iter(LOADERS[name](folder))
    first = next(batches)
    started, cpu = time.perf_counter(), used()
    count = sum(len(batch[0] if isinstance(batch, tuple | list) else batch) for batch in batches)
    seconds = time.perf_counter() - started
    print(
        json.dumps(
            {
                "images/s": count / seconds,
                "CPU µs per image": (used() - cpu) / count * 1e6,
                "first batch, s": started - begun if first is not None else None,
                "MB resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
            }
        )
    )


def used() -> float:
    """CPU seconds of this process and of those it started and saw end."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


if __name__ == "__main__":
    main()
