"""Which uploads a call of `files.upload()` receives: by the notebook's source, and in a job."""

from __future__ import annotations

from pathlib import Path

import pytest

from haversack.notebook import uploads
from tests.notebook import notebooks
from tests.notebook.conftest import Run

FILES = "from google.colab import files\n"
CALL = "uploaded = files.upload()"
GIVEN = ["0/digit.png", "1/kaggle.json", "2/notes.txt"]


def received(*cells: str, cell: int = 0, line: int | None = 1, left: list[str] = GIVEN) -> list[str]:
    """The names of the files that the call in this cell and line receives."""
    return [path.partition("/")[2] for path in uploads.chosen(cells, cell, line, left)]


def test_a_single_call_receives_all() -> None:
    assert received(CALL, "open('kaggle.json')") == ["digit.png", "kaggle.json", "notes.txt"]


def test_the_last_of_several_calls_receives_all_that_are_left() -> None:
    assert received(CALL, CALL, cell=1, left=GIVEN[1:]) == ["kaggle.json", "notes.txt"]


@pytest.mark.parametrize(
    "asks",
    [
        "open('kaggle.json')",
        "pandas.read_json('/content/kaggle.json')",
        "!cp kaggle.json ~/.kaggle/",
        "!mkdir -p ~/.kaggle && mv kaggle.json ~/.kaggle",
        "%%bash\nchmod 600 kaggle.json",
        "%%capture\nopen('kaggle.json')",
        "text = f'{here}/kaggle.json'",
    ],
)
def test_while_more_calls_follow_a_call_receives_what_the_cells_after_it_ask_for(asks: str) -> None:
    assert received(CALL, asks, CALL, "open('digit.png')") == ["kaggle.json"]


def test_all_files_that_are_asked_for_come_with_one_call() -> None:
    assert received(CALL, "open('notes.txt'), open('digit.png')", CALL) == ["digit.png", "notes.txt"]


def test_a_name_that_is_only_part_of_another_is_not_asked_for() -> None:
    assert received(CALL, "open('my-kaggle.json'), open('kaggle.json.bak'), open('notes.txt')", CALL) == ["notes.txt"]


def test_where_no_name_is_asked_for_each_call_receives_one_that_no_later_call_asks_for() -> None:
    assert received(CALL, CALL, "open('digit.png')") == ["kaggle.json"]
    assert received(CALL, CALL) == ["digit.png"]


def test_a_comment_asks_for_nothing() -> None:
    assert received(CALL, "# then kaggle.json", CALL) == ["digit.png"]


def test_two_calls_in_one_cell_are_told_apart_by_their_lines() -> None:
    cell = f"{CALL}\nopen('kaggle.json')\n{CALL}\nopen('notes.txt')"
    assert received(cell, line=1) == ["kaggle.json"]
    assert received(cell, line=3, left=["0/digit.png", "2/notes.txt"]) == ["digit.png", "notes.txt"]


def test_a_call_that_a_magic_executes_is_not_taken_for_two() -> None:
    assert received(f"%%time\n{FILES}{CALL}", line=1) == ["digit.png", "kaggle.json", "notes.txt"]


@pytest.mark.parametrize(
    ("first", "call"),
    [
        ("from google.colab import files as f", "f.upload()"),
        ("import google.colab", "google.colab.files.upload()"),
        ("from google.colab.files import upload", "upload()"),
        ("from haversack import files", "files.upload_file('notes.txt')"),
    ],
)
def test_calls_are_found_under_other_names(first: str, call: str) -> None:
    assert received(f"{first}\n{CALL}", call, line=2) == ["digit.png"]


def test_other_calls_of_that_name_are_none() -> None:
    assert received(CALL, "client.upload(x); upload(x)") == ["digit.png", "kaggle.json", "notes.txt"]


def test_a_file_that_is_asked_for_by_its_name_is_that_one_else_the_next() -> None:
    assert uploads.one("data/notes.txt", GIVEN) == "2/notes.txt"
    assert uploads.one("other.txt", GIVEN) == "0/digit.png"


def test_two_calls_of_a_notebook_receive_one_file_each(run: Run, tmp_path: Path) -> None:
    given = [tmp_path / "digit.png", tmp_path / "kaggle.json"]
    given[0].write_bytes(b"x")
    given[1].write_text('{"username": "u", "key": "0123456789abcdef"}')
    report = run(
        FILES + "uploaded = files.upload()\nassert list(uploaded) == ['kaggle.json'], list(uploaded)\n"
        "!mkdir -p ~/.kaggle\n!cp kaggle.json ~/.kaggle/",
        "uploaded = files.upload()\nprint(list(uploaded))",
        uploads=given,
    )
    assert report.status == "done", report.error
    assert notebooks.text(report.output, 1).endswith("['digit.png']\n")


def test_a_finished_once_cell_keeps_its_uploads_from_the_next_session(run: Run, tmp_path: Path) -> None:
    given = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for path in given:
        path.write_text(path.stem)
    begun = str(tmp_path / "begun")
    report = run(
        FILES + "files.upload()\nopen('b.txt')",
        f"import os\nif not os.path.exists({begun!r}):\n    open({begun!r}, 'w').close(); os._exit(1)",
        FILES + "print(list(files.upload()))",
        tags={0: ["once"]},
        uploads=given,
    )
    assert (report.status, report.sessions) == ("done", 2), report.error
    assert notebooks.text(report.output, 2).endswith("['a.txt']\n")
