"""Files into and out of a job: `google.colab.files`, which is `haversack.files`."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from haversack.errors import InputError, NotebookInvalid
from haversack.notebook.job import job
from tests.notebook import notebooks
from tests.notebook.conftest import Run

FILES = "from google.colab import files\n"


@pytest.fixture(scope="module")
def report(run_once: Run, tmp_path_factory: pytest.TempPathFactory) -> job.JobReport:
    """A job that was given `a.txt`, `b.txt` and `c.txt`, each with its letter in it; each test looks at one cell."""
    folder = tmp_path_factory.mktemp("given")
    given = [folder / "a.txt", folder / "b.txt", folder / "c.txt"]
    for path in given:
        path.write_text(path.stem)
    cells = [
        FILES.strip(),
        "files.upload_file('x.txt')",
        "files.upload('new/folder')",
        "getattr(files, 'upload')()",  # not to be found in the source, so the call before it is the last one
        "open('r.txt', 'w').write('1')\nfiles.download('r.txt')\nfiles.download('r.txt')",
        "files.download('none.txt')",
        "files.view('none.txt')",
        "from PIL import Image\nImage.new('L', (4, 4)).save('p.png')\nfiles.view('x.txt')\nfiles.view('p.png')",
    ]
    return run_once(*cells, uploads=given, tags={index: ["raises-exception"] for index in range(len(cells))})


def test_upload_file_receives_the_next_one_under_its_new_name(report: job.JobReport) -> None:
    assert Path(report.job, "content", "x.txt").read_text() == "a"


def test_upload_receives_all_that_are_left_into_a_folder_it_makes(report: job.JobReport) -> None:
    shown = "Saving b.txt to new/folder/b.txt\nSaving c.txt to new/folder/c.txt\n"
    assert notebooks.text(report.output, 2) == shown + "{'new/folder/b.txt': b'b', 'new/folder/c.txt': b'c'}"


def test_when_all_are_received_the_error_names_the_option(report: job.JobReport) -> None:
    assert "--upload FILE" in notebooks.text(report.output, 3)


def test_downloads_land_in_the_jobs_folder(report: job.JobReport) -> None:
    folder = Path(report.job, "downloads")
    assert report.downloads == [str(folder / "r.txt"), str(folder / "r (1).txt")]
    assert [Path(path).read_text() for path in report.downloads] == ["1", "1"]
    assert f"Downloaded r.txt to {folder / 'r.txt'}" in notebooks.text(report.output, 4)


@pytest.mark.parametrize("cell", [5, 6])
def test_a_missing_file_has_colabs_message(report: job.JobReport, cell: int) -> None:
    assert "Cannot find file: none.txt" in notebooks.text(report.output, cell)


def test_view_shows_text_and_pictures(report: job.JobReport) -> None:
    outputs = notebooks.read(report.output).cells[7].outputs
    assert outputs[0].text == "a\n"
    assert "image/png" in outputs[1].data


def test_a_taken_name_gets_a_number(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    cell = FILES + "open('a.txt', 'w').write('mine')\nlist(files.upload())"
    report = run(cell, uploads=[tmp_path / "a.txt"])
    assert notebooks.text(report.output, 0).endswith("['a (1).txt']")
    assert Path(report.job, "content", "a.txt").read_text() == "mine"


def test_a_missing_upload_is_refused_before_anything_runs(run: Run, tmp_path: Path, own_folders: Path) -> None:
    with pytest.raises(InputError, match="There is no file"):
        run("1", uploads=[tmp_path / "none"])
    assert not (own_folders / "data" / "jobs").exists()


def test_a_notebook_may_name_its_own_uploads(tmp_path: Path) -> None:
    (tmp_path / "digit.png").write_bytes(b"x")
    notebook = notebooks.write(tmp_path / "nb.ipynb", FILES + "files.upload()", haversack={"uploads": ["digit.png"]})
    report = job.run(notebook, tmp_path / "out.ipynb")
    assert "{'digit.png': b'x'}" in notebooks.text(report.output, 0)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "link"])
def test_a_notebooks_own_uploads_never_leave_its_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "outside").touch()
    (folder / "link").symlink_to(tmp_path / "outside")
    notebook = notebooks.write(folder / "nb.ipynb", "1", haversack={"uploads": [name]})
    with pytest.raises(InputError, match="outside its folder"):
        job.run(notebook, tmp_path / "out.ipynb")


def test_in_a_terminal_the_path_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "a.txt").write_text("a")
    command = [sys.executable, "-c", "import haversack; haversack.files.upload()"]
    typed, terminal = pty.openpty()
    os.write(typed, b"given/a.txt\n")
    shown = subprocess.run(command, cwd=tmp_path, stdin=terminal, capture_output=True, text=True, check=True)
    assert "Saving a.txt to a.txt" in shown.stdout
    assert (tmp_path / "a.txt").read_text() == "a"


def test_without_anybody_to_ask_there_is_an_error(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import haversack; haversack.files.upload()"]
    shown = subprocess.run(command, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert "--upload FILE" in shown.stderr


@pytest.mark.parametrize("ours", ["digit.png", {"uploads": "digit.png"}, {"uploads": [1]}])
def test_metadata_that_cannot_be_read_is_said(tmp_path: Path, ours: object) -> None:
    with pytest.raises(NotebookInvalid, match=r'Write \{"haversack"'):
        job.run(notebooks.write(tmp_path / "nb.ipynb", "1", haversack=ours), tmp_path / "out.ipynb")
