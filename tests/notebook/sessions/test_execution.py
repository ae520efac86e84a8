"""What cells write, and the shell commands in them that fail, in real kernels."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest

from haversack.notebook.job import job
from tests.notebook import notebooks
from tests.notebook.conftest import Run


@pytest.fixture(scope="module")
def long(run_once: Run) -> str:
    """The executed notebook of cells that write much, or in several ways."""
    report = run_once(
        "print('A' * 1_000_000)",
        "print(list(range(100_000)))",
        "for i in range(50):\n    print(i, '#' * i, end='\\r', flush=True)\nprint('whole')",
        """
import sys
for i in range(3):
    print('out', i, flush=True)
    print('error', i, file=sys.stderr, flush=True)
shown = display('before', display_id=True)
print('after')
""",
        "shown.update('updated')",
    )
    assert report.status == "done", report.error
    assert report.notices == []
    return report.output


def test_a_line_of_a_megabyte_is_kept(long: str) -> None:
    assert notebooks.text(long, 0) == "A" * 1_000_000 + "\n"
    assert notebooks.text(long, 1) == f"{list(range(100_000))}\n"


def test_a_progress_bar_leaves_its_last_line(long: str) -> None:
    assert notebooks.text(long, 2) == "whole\n"


def test_each_stream_is_one_output_standard_output_first(long: str) -> None:
    outputs = notebooks.read(long).cells[3].outputs
    assert [output.get("name") for output in outputs] == ["stdout", "stderr", None]
    assert outputs[0].text == "out 0\nout 1\nout 2\nafter\n"
    assert outputs[1].text == "error 0\nerror 1\nerror 2\n"


def test_a_display_that_a_later_cell_updates_is_found_again(long: str) -> None:
    assert notebooks.read(long).cells[3].outputs[2].data["text/plain"] == "'updated'"


def test_an_output_beyond_the_limit_is_cut_and_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_OUTPUT", "0.1")
    report = run(
        "print('first')\nfor _ in range(10_000):\n    print('x' * 99)\nprint('last')",
        "'B' * 500_000",
        "for i in range(10_000):\n    print('#' * 99, end='\\r')\nprint('a bar is short')",
        "print('kept before it was cleared' * 10_000)\nfrom google.colab import output\noutput.clear()\nprint('x')",
    )
    assert report.status == "done", report.error
    lines, value, bar, cleared = (notebooks.text(report.output, index) for index in range(4))
    assert lines.startswith("first\nxxx")
    assert lines.endswith("xxx\nlast\n")
    assert "[haversack: 0.9 MB of this output were left out;" in lines
    assert "[haversack: 0.4 MB of this output were left out;" in value
    assert max(len(lines), len(value)) < 101_000
    assert (bar, cleared) == ("a bar is short\n", "x\n")
    keep = "to keep them, run the notebook with HAVERSACK_OUTPUT="
    assert report.notices == [
        f"Cell 1: 0.9 MB of this output were left out; {keep}2.",
        f"Cell 2: 0.4 MB of this output were left out; {keep}1.",
    ]


WGET = "!wget -q --no-proxy http://127.0.0.1:9/data.zip -O data.zip"


@pytest.fixture(scope="module")
def failing(run_once: Run) -> tuple[job.JobReport, list[str]]:
    """The report of a job with commands that fail, and the lines that it printed."""
    with contextlib.redirect_stderr(io.StringIO()) as heard:
        report = run_once(
            WGET,
            "print('a cell between')",
            "def f():\n    what = 'sev' + 'en'\n    !exit 7 # {what} $$HOME\nf()\n!true",
            "%%shell --ignore-errors\nexit 3",
            "%%bash\necho bash\nexit 6",
            "%shell exit 8",
            "%pip install --no-index no-such-package",
            "captured = !echo both; echo streams >&2; exit 5\nprint(captured)",
            "%%bash --no-raise-error --out said\necho said\nexit 9",
            "print(said)\nquiet = !true",
            "import zipfile\nzipfile.ZipFile('data.zip')",
            tags={4: ["raises-exception"], 5: ["raises-exception"]},
        )
    return report, heard.getvalue().splitlines()


def test_every_failed_command_is_reported_with_its_status(failing: tuple[job.JobReport, list[str]]) -> None:
    found = [(one["cell"], one["command"].strip(), one["status"]) for one in failing[0].json()["shell_failures"]]
    assert found[0][:2] == (1, WGET)
    assert found[0][2] > 0
    assert found[1:5] == [
        (3, "!exit 7 # seven $HOME", 7),
        (4, "%shell exit 3", 3),
        (5, "echo bash\nexit 6", 6),
        (6, "exit 8", 8),
    ]
    assert found[5:] == [
        (7, "!python -m pip install --no-index no-such-package", 1),
        (8, "!echo both; echo streams >&2; exit 5", 5),
        (9, "echo said\nexit 9", 9),
    ]


def test_a_command_whose_output_the_notebook_takes_gives_it_all_the_same(
    failing: tuple[job.JobReport, list[str]],
) -> None:
    assert notebooks.text(failing[0].output, 7) == "['both', 'streams']\n"
    assert notebooks.text(failing[0].output, 9) == "said\n\n"


def test_a_failed_command_is_marked_below_its_cell(failing: tuple[job.JobReport, list[str]]) -> None:
    report, lines = failing
    first = next(number for number, line in enumerate(lines) if line.startswith("✗ [1/11] !wget"))
    assert lines[first + 1] == f"  exit status {report.shell_failures[0]['status']}: {WGET}"
    assert lines[first + 2].startswith("✓ [2/11] print")
    assert lines[first + 3].startswith("✗ [3/11] def f")
    assert lines[first + 4] == "  exit status 7: !exit 7 # seven $HOME"


def test_the_first_failure_is_named_in_the_error_and_in_the_notebook(
    failing: tuple[job.JobReport, list[str]],
) -> None:
    report, _ = failing
    advice = f"Look first at cell 1: its command `{WGET}` failed with exit status {report.shell_failures[0]['status']}."
    assert report.error is not None
    assert report.error.startswith("Cell 11 failed: ")
    assert report.error.endswith(advice)
    assert notebooks.text(report.output, 10).endswith(f"haversack: {advice}")


def test_the_tracebacks_last_lines_are_printed(failing: tuple[job.JobReport, list[str]]) -> None:
    report, lines = failing
    assert report.error is not None
    error = report.error.removeprefix("Cell 11 failed: ").split(". ")[0]
    assert lines[-1].startswith(f"  {error}")
    last = next(number for number, line in enumerate(lines) if line.startswith("✗ [11/11]"))
    assert 2 <= len(lines) - last - 1 <= 10


def test_a_secret_in_a_failed_command_and_in_a_traceback_is_masked(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    token = "hf_" + "a" * 30
    report = run(f"!exit 4 # {token}", f"raise FileNotFoundError({token!r})")
    assert report.shell_failures == [{"cell": 1, "command": "!exit 4 # ***", "status": 4}]
    assert "`!exit 4 # ***` failed" in str(report.error)
    assert "FileNotFoundError: ***" in capsys.readouterr().err
    assert "hf_aaa" not in f"{report.json()}{Path(report.output).read_text()}"


def test_an_error_of_another_kind_names_no_command(run: Run) -> None:
    report = run("!exit 4", "1 / 0")
    assert report.error == (
        "Cell 2 failed: ZeroDivisionError: division by zero. The executed notebook has its traceback."
    )


def test_a_command_of_a_cell_that_is_not_repeated_is_named_after_a_resume(run: Run) -> None:
    first = run("!exit 4 # brings data.zip", "open('data.zip')", tags={0: ["once"]})
    second = job.resume(first.job)
    assert second.shell_failures == first.shell_failures != []
    assert second.error is not None
    assert second.error.endswith(
        "Look first at cell 1: its command `!exit 4 # brings data.zip` failed with exit status 4."
    )
