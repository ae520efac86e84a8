from __future__ import annotations

import io
import random
import uuid
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from haversack.datasets.publication import put
from tests.archive.zips import zipped
from tests.conftest import RunningHub

KaggleName = str


@pytest.fixture(scope="session")
def files() -> dict[str, bytes]:
    """Forty real PNG images, a table, and 3 MB of noise."""
    made = {"labels.csv": b"name,label\n" + b"".join(b"%d.png,%d\n" % (n, n % 10) for n in range(40))}
    for number in range(40):
        png = io.BytesIO()
        pixels = np.random.default_rng(number).integers(0, 255, (28, 28), dtype=np.uint8)
        Image.fromarray(pixels).save(png, "PNG")
        made[f"images/{number}.png"] = png.getvalue()
    made["noise.bin"] = random.Random(7).randbytes(3_000_000)
    return made


@pytest.fixture
def folder(tmp_path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "folder"


@pytest.fixture
def archive(tmp_path: Path, files: dict[str, bytes]) -> Path:
    path = tmp_path / "pictures.zip"
    path.write_bytes(zipped(files))
    return path


@pytest.fixture
def published(hub: RunningHub, archive: Path) -> KaggleName:
    """A data set on the hub that no other test uses."""
    name = f"kaggle:haversack/set-{uuid.uuid4().hex[:10]}"
    put(archive, name)
    return name
