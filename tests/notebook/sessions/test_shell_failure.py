"""Which failed command an error is put down to."""

from __future__ import annotations

import pytest

from haversack.notebook.sessions.shell_failure import ShellFailure, named_cause, possible_cause

FAILURES = [
    ShellFailure(1, "!apt-get install -y tree", 100),
    ShellFailure(2, "!wget -q https://example.org/files/data.zip -O data.zip", 4),
    ShellFailure(3, "!git clone https://github.com/someone/their-tools.git", 128),
    ShellFailure(4, "!python -m pip install -q Segment-Anything", 1),
]


@pytest.mark.parametrize(
    ("source", "error", "cell"),
    [
        ("zipfile.ZipFile('data.zip')", "BadZipFile: File is not a zip file", 2),
        ("load()", "FileNotFoundError: No such file or directory: '/content/data.zip'", 2),
        ("%cd their-tools", "OSError: no such folder", 3),
        ("import segment_anything", "ModuleNotFoundError: No module named 'segment_anything'", 4),
        ("1 / 0", "ZeroDivisionError: division by zero", None),
        ("import pip, json\n# install https data", "ValueError: download", None),
    ],
)
def test_a_command_is_named_for_what_it_was_to_bring(source: str, error: str, cell: int | None) -> None:
    found = named_cause(FAILURES, source, error)
    assert (found and found.cell) == cell


def test_something_missing_may_be_the_first_failures_fault() -> None:
    assert possible_cause(FAILURES, "FileNotFoundError: 'train.csv'") is FAILURES[0]
    assert possible_cause(FAILURES, "ZeroDivisionError: division by zero") is None
    assert possible_cause([], "FileNotFoundError: 'train.csv'") is None


def test_a_signal_is_told_apart_from_a_status() -> None:
    assert ShellFailure(1, "!a", 4).end == "exit status 4"
    assert ShellFailure(1, "!a", -9).end == "signal 9"


def test_a_name_is_one_short_line() -> None:
    assert ShellFailure(1, "\nset -e\nfalse\n", 1).name == "set -e"
    assert len(ShellFailure(1, "!" + "a" * 1000, 1).name) == 100
