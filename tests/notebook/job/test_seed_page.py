"""The cells of a page that teaches Colab: drive, picture, `!kaggle` with a key of its own, upload, download."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from haversack.datasets.publication import put
from tests.conftest import RunningHub
from tests.notebook import notebooks
from tests.notebook.conftest import Run

CELLS = (
    """import os
from google.colab import drive
drive.mount('/content/drive')

path = "/content/drive/My Drive"

os.chdir(path)
os.listdir(path)""",
    """from PIL import Image
import matplotlib.pyplot as plt
import numpy as np

img = Image.open("1.jpg")
print(img.mode)
plt.figure("img")
plt.imshow(img)
plt.show()""",
    """!pip install -U -q kaggle
!mkdir -p ~/.kaggle
!echo '{"username":"lzy","key":"a9c058"}' > ~/.kaggle/kaggle.json
!chmod 600 ~/.kaggle/kaggle.json""",
    "!kaggle datasets download -d taindow/rsna-train-stage-1-images-png-224x",
    """import zipfile
print(len(zipfile.ZipFile('rsna-train-stage-1-images-png-224x.zip').namelist()))""",
    """from google.colab import files
uploaded = files.upload()
for fn in uploaded.keys():
    print('User uploaded file "{name}" with length {length} bytes'.format(name=fn, length=len(uploaded[fn])))""",
    """open('weight.best.hdf5', 'wb').write(b'weights')
files.download('./weight.best.hdf5')""",
)


@pytest.mark.fuse
def test_every_cell_of_the_seed_page_gives_its_value(
    run: Run, own_hub: RunningHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pip keeps the installed version of kaggle, instead of asking a registry for a newer one.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    own_hub.my_drive.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(own_hub.my_drive / "1.jpg")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(5):
        Image.new("L", (4, 4), number).save(pictures / f"ID_{number}.png")
    put(pictures, "kaggle:taindow/rsna-train-stage-1-images-png-224x")
    upload = tmp_path / "a.txt"
    upload.write_text("12345")

    report = run(*CELLS, uploads=[upload])

    assert report.status == "done", report.error
    assert report.shell_failures == []
    assert "1.jpg" in notebooks.text(report.output, 0)
    assert notebooks.text(report.output, 1).startswith("RGB")
    assert notebooks.text(report.output, 4).strip() == "5"
    assert 'User uploaded file "a.txt" with length 5 bytes' in notebooks.text(report.output, 5)
    assert [Path(path).read_bytes() for path in report.downloads] == [b"weights"]
    assert (own_hub.my_drive / "weight.best.hdf5").read_bytes() == b"weights"
    assert "a9c058" not in Path(report.output).read_text()
