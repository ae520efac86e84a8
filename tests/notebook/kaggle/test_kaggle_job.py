"""Kaggle's notebooks as jobs: what their cells read, where they write, and what is reported."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from haversack.datasets.publication import put
from haversack.notebook.job import job
from tests.conftest import RunningHub
from tests.notebook import notebooks
from tests.notebook.conftest import Run

pytestmark = pytest.mark.fuse

PATHS = (
    """import os
for folder, _, names in os.walk('/kaggle/input'):
    for name in names:
        print(os.path.join(folder, name))""",
    """import pandas as pd
train = pd.read_csv('/kaggle/input/things/train.csv')
same = pd.read_csv('../input/things/train.csv')
print(len(train), train.equals(same))""",
    """from kaggle_secrets import UserSecretsClient
print(len(UserSecretsClient().get_secret('TOKEN')) > 0, os.environ['KAGGLE_KERNEL_RUN_TYPE'])""",
    """train[['id']].to_csv('submission.csv', index=False)
print(os.getcwd())""",
    """import subprocess, sys, warnings
warnings.simplefilter('ignore')
import kagglehub
print(kagglehub.dataset_download('someone/things'), kagglehub.dataset_download('someone/things', path='train.csv'))
print(subprocess.run([sys.executable, '-c', 'import kaggle_secrets; print(kaggle_secrets.__name__)'],
                     capture_output=True, text=True).stdout)
print('google.colab' in sys.modules, 'COLAB_GPU' in os.environ, os.path.exists('/content/sample_data'))""",
)


@pytest.fixture
def things(tmp_path: Path) -> Path:
    folder = tmp_path / "things"
    folder.mkdir()
    (folder / "train.csv").write_text("id,x\n1,2\n3,4\n")
    return folder


def test_the_paths_of_kaggle_lead_to_a_data_set_of_the_hub(
    run: Run, own_hub: RunningHub, things: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(things, "kaggle:someone/things")
    monkeypatch.setenv("HAVERSACK_SECRET_TOKEN", "a-secret-value")

    report = run(*PATHS, inputs=["kaggle:someone/things"])

    assert report.status == "done", report.error
    shown = [notebooks.text(report.output, index) for index in range(len(PATHS))]
    place = "/kaggle" if report.content != "literals" else f"{report.job}/kaggle"
    assert shown[0] == f"{place}/input/things/train.csv\n"
    assert shown[1] == "2 True\n"
    assert shown[2] == "True Batch\n"
    assert shown[3].strip().endswith("/kaggle/working")
    assert shown[4].split() == [
        *(f"{place}/input/things", f"{place}/input/things/train.csv", "kaggle_secrets"),
        *("False", "False", "False"),
    ]
    assert report.inputs == [{"name": "things", "source": "kaggle:someone/things@1"}]
    assert [(one["name"], one["size"]) for one in report.outputs] == [("submission.csv", 7)]
    assert Path(report.outputs[0]["path"]).read_text() == "id\n1\n3\n"
    assert "submission.csv, 7 B" in report.summary
    assert report.notices == [] or report.content == "literals"
    assert not os.path.ismount(Path(report.job, "kaggle", "input"))


ACCESS = (
    "import glob, os, sqlite3, zipfile\nprint(len(glob.glob('../input/**/*.png', recursive=True)))",
    "from PIL import Image\nimport numpy as np\n"
    "print(Image.open('/kaggle/input/pictures/images/3.png').size, np.load('../input/pictures/a.npy').sum())",
    "print(zipfile.ZipFile('../input/pictures/inner.zip').namelist())",
    "base = sqlite3.connect('/kaggle/input/pictures/base.sqlite')\n"
    "print(base.execute('SELECT count(*) FROM rows').fetchone())",
    "!ls ../input/pictures | head -2\n!cp ../input/pictures/train.csv .\n"
    "!unzip -q ../input/pictures/inner.zip -d /kaggle/working\n"
    "print(sorted(os.listdir('/kaggle/working')))",
    "import shutil\nshutil.copytree('/kaggle/input/pictures/images', '/kaggle/temp/images')\n%cd /kaggle/temp\n"
    "print(len(os.listdir('images')))",
    "try:\n    open('/kaggle/input/pictures/train.csv', 'w')\nexcept OSError as error:\n    print(error.strerror)",
    "print(os.listdir('/kaggle/input'))",
    "import cv2, h5py\nprint(cv2.imread('/kaggle/input/pictures/images/1.png').shape)\n"
    "print(h5py.File('/kaggle/input/pictures/a.h5', 'r')['x'][99_999])",
    "import sys\nsys.path.append('../input/pictures/code')\nfrom helper_of_a_data_set import answer\nprint(answer)",
)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(5):
        Image.new("RGB", (8, 6)).save(tmp_path / f"{number}.png")
    np.save(tmp_path / "a.npy", np.arange(10))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(1_000_000, dtype=float)
    with sqlite3.connect(tmp_path / "base.sqlite") as base:
        base.execute("CREATE TABLE rows (id INTEGER)")
        base.executemany("INSERT INTO rows VALUES (?)", ((n,) for n in range(100)))
    base.close()
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as inner:
        inner.writestr("unpacked.csv", "x\n")
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train.csv", "id\n1\n")
        archive.writestr("code/helper_of_a_data_set.py", "answer = 42\n")
        for name in ("a.npy", "a.h5", "base.sqlite", "inner.zip"):
            archive.write(tmp_path / name, name)
        for number in range(5):
            archive.write(tmp_path / f"{number}.png", f"images/{number}.png")
    return tmp_path / "pictures.zip"


def test_cells_read_an_archive_in_every_way_that_notebooks_do(run: Run, pictures: Path) -> None:
    report = run(*ACCESS, inputs=[str(pictures)])
    assert report.status == "done", report.error
    assert report.shell_failures == []
    shown = [notebooks.text(report.output, index) for index in range(len(ACCESS))]
    assert shown[0] == "5\n"
    assert shown[1] == "(8, 6) 45\n"
    assert shown[2] == "['unpacked.csv']\n"
    assert shown[3] == "(100,)\n"
    assert "['train.csv', 'unpacked.csv']" in shown[4]
    assert shown[5].endswith("5\n")
    assert shown[6] == "Read-only file system\n"
    assert shown[7] == "['pictures']\n"
    assert shown[8] == "(6, 8, 3)\n99999.0\n"
    assert shown[9] == "42\n"


def test_the_outputs_and_the_inputs_version_survive_the_sessions(
    run: Run, own_hub: RunningHub, things: Path, tmp_path: Path
) -> None:
    put(things, "kaggle:someone/things")
    cell = (
        "import os, signal\nprint(open('/kaggle/input/things/train.csv').read())\n"
        "seen = os.path.exists('first.txt')\nopen('first.txt', 'w').write('x')\nopen('/kaggle/temp/t', 'x').close()\n"
        f"if not seen:\n    open({str(tmp_path / 'killed')!r}, 'w').close()\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    report = run(cell, "print('last')", inputs=["kaggle:someone/things"])
    assert report.status == "done", report.error
    assert report.sessions == 2
    assert notebooks.text(report.output, 0).startswith("id,x\n1,2")
    assert [one["name"] for one in report.outputs] == ["first.txt"]
    record = json.loads(Path(report.job, "job.json").read_text())
    assert record["inputs"][0]["source"] == "kaggle:someone/things@1"


def test_a_resumed_job_has_the_version_that_it_began_with(
    run: Run, own_hub: RunningHub, things: Path, tmp_path: Path
) -> None:
    put(things, "kaggle:someone/things")
    cell = f"print(open('../input/things/train.csv').read())\nopen({str(tmp_path / 'go')!r}).close()"
    report = run(cell, inputs=["kaggle:someone/things"])
    assert report.status == "failed"
    (things / "train.csv").write_text("changed")
    put(things, "kaggle:someone/things")
    (tmp_path / "go").touch()
    resumed = job.resume(report.job)
    assert resumed.status == "done", resumed.error
    assert notebooks.text(resumed.output, 0).startswith("id,x\n1,2")


def test_an_input_that_nobody_attached_is_proposed(run: Run, own_hub: RunningHub, things: Path) -> None:
    put(things, "kaggle:someone/things")
    report = run("print(open('/kaggle/input/things/train.csv').read())")
    assert report.status == "failed"
    [notice] = [one for one in report.notices if "no such input is attached" in one]
    assert "/kaggle/input/things/train.csv" in notice
    assert notice.endswith("haversack run --input kaggle:someone/things")
    assert "--input kaggle:OWNER/things" in str(report.error)


@pytest.mark.parametrize("method", ["bubblewrap", "literals"])
def test_other_ways_to_have_a_kaggle(run: Run, things: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_CONTENT", method)
    cells = (
        "print(open('/kaggle/input/things/train.csv').read(), end='')",
        "open('/kaggle/working/a.csv', 'w').write('x')",
    )
    if method == "bubblewrap" and shutil.which("bwrap") is None:
        pytest.skip("needs bubblewrap")
    report = run(*cells, inputs=[str(things)])
    assert report.status == "done", report.error
    assert report.content == method
    assert notebooks.text(report.output, 0) == "id,x\n1,2\n3,4\n"
    assert [one["name"] for one in report.outputs] == ["a.csv"]
    assert ("no /content and /kaggle" in " ".join(report.notices)) == (method == "literals")
