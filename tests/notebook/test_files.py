"""Files into and out of a job: `google.colab.files`, which is `haversack.files`."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from haversack.errors import InputError
from haversack.notebook import job
from tests.notebook import notebooks
from tests.notebook.conftest import Run

FILES = "from google.colab import files\n"


@pytest.fixture
def given(tmp_path: Path) -> list[Path]:
    """Two files that a user gives with `--upload`."""
    (tmp_path / "given").mkdir()
    paths = [tmp_path / "given" / "a.txt", tmp_path / "given" / "b.txt"]
    for path in paths:
        path.write_text(path.stem)
    return paths


def test_upload_receives_all_given_files(run: Run, given: list[Path]) -> None:
    report = run(FILES + "files.upload()", uploads=given)
    shown = "Saving a.txt to a.txt\nSaving b.txt to b.txt\n{'a.txt': b'a', 'b.txt': b'b'}"
    assert notebooks.text(report.output, 0) == shown


def test_upload_into_a_folder_makes_it(run: Run, given: list[Path]) -> None:
    report = run(FILES + "list(files.upload('new/folder'))", uploads=given[:1])
    assert notebooks.text(report.output, 0).endswith("['new/folder/a.txt']")


def test_a_taken_name_gets_a_number(run: Run, given: list[Path]) -> None:
    report = run(FILES + "open('a.txt', 'w').write('mine')\nlist(files.upload())", uploads=given[:1])
    assert notebooks.text(report.output, 0).endswith("['a (1).txt']")
    assert Path(report.job, "content", "a.txt").read_text() == "mine"


def test_upload_file_receives_the_next_one_under_its_new_name(run: Run, given: list[Path]) -> None:
    report = run(FILES + "files.upload_file('x.txt')", "list(files.upload())", uploads=given)
    assert Path(report.job, "content", "x.txt").read_text() == "a"
    assert notebooks.text(report.output, 1).endswith("['b.txt']")


def test_without_a_file_the_error_names_the_option(run: Run) -> None:
    assert "--upload FILE" in str(run(FILES + "files.upload()").failure)


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


def test_downloads_land_in_the_jobs_folder(run: Run) -> None:
    report = run(FILES + "open('r.txt', 'w').write('1')\nfiles.download('r.txt')\nfiles.download('r.txt')")
    folder = Path(report.job, "downloads")
    assert report.downloads == [str(folder / "r.txt"), str(folder / "r (1).txt")]
    assert [Path(path).read_text() for path in report.downloads] == ["1", "1"]
    assert f"Downloaded r.txt to {folder / 'r.txt'}" in notebooks.text(report.output, 0)


@pytest.mark.parametrize("call", ["download", "view"])
def test_a_missing_file_has_colabs_message(run: Run, call: str) -> None:
    report = run(FILES + f"files.{call}('none.txt')")
    assert "FileNotFoundError: Cannot find file: none.txt" in str(report.failure)


def test_view_shows_text_and_pictures(run: Run) -> None:
    make = "from PIL import Image\nImage.new('L', (4, 4)).save('p.png')\nopen('t.txt', 'w').write('hello')\n"
    report = run(FILES + make + "files.view('t.txt')\nfiles.view('p.png')")
    outputs = notebooks.read(report.output).cells[0].outputs
    assert outputs[0].text == "hello\n"
    assert "image/png" in outputs[1].data


def test_in_a_terminal_the_path_is_asked_for(tmp_path: Path, given: list[Path]) -> None:
    command = [sys.executable, "-c", "import haversack; haversack.files.upload()"]
    typed, terminal = pty.openpty()
    os.write(typed, f"{given[0]}\n".encode())
    shown = subprocess.run(command, cwd=tmp_path, stdin=terminal, capture_output=True, text=True, check=True)
    assert "Saving a.txt to a.txt" in shown.stdout
    assert (tmp_path / "a.txt").read_text() == "a"


def test_without_anybody_to_ask_there_is_an_error(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import haversack; haversack.files.upload()"]
    shown = subprocess.run(command, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert "--upload FILE" in shown.stderr
