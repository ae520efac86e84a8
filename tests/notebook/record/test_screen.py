"""What people see while a job runs."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from haversack.notebook.record.screen import plain
from tests.notebook import notebooks


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b[2Jcleared\x08\x00", "cleared"),
        ("two\nlines", "two lines"),
        ("ünïcode ✓", "ünïcode ✓"),
    ],
)
def test_nothing_steers_the_terminal(written: str, shown: str) -> None:
    assert plain(written) == shown


def test_a_terminal_sees_the_cell_its_last_line_and_no_secret(tmp_path: Path) -> None:
    loop = "for i in range(20):\n    print('step', i, 'hf_' + 'a' * 30, end='\\r', flush=True)\n    time.sleep(0.1)"
    notebook = notebooks.write(tmp_path / "nb.ipynb", f"import time\n{loop}")
    reader, terminal = pty.openpty()
    command = [sys.executable, "-m", "haversack", "run", str(notebook), "-o", str(tmp_path / "out.ipynb")]
    process = subprocess.Popen(command, stderr=terminal, stdout=subprocess.DEVNULL, env={**os.environ, "TERM": "xterm"})
    os.close(terminal)
    seen = b""
    while piece := _read(reader):
        seen += piece
    assert process.wait(60) == 0
    assert b"[1/1] import time" in seen
    assert b"step" in seen
    assert b"hf_aaaa" not in seen


def _read(reader: int) -> bytes:
    try:
        return os.read(reader, 65536)
    except OSError:
        return b""  # the other end is closed
