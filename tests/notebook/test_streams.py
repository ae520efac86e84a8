"""The random streams of a job: kept, and begun again where a training goes on."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np

from haversack.notebook import streams
from haversack.notebook.sessions import kept_streams
from tests.notebook.conftest import Run
from tests.notebook.test_plainfit import DIE_ONCE


def drawn(file: Path) -> list[float]:
    """What Python's and numpy's streams give in a session that has this file."""
    session = streams.Streams(file)
    session.begin(random)
    session.begin(np)
    return [random.random(), random.gauss(), float(np.random.random()), float(np.random.standard_normal())]


def test_streams_begin_again_where_they_began(tmp_path: Path) -> None:
    file = tmp_path / streams.FILE
    first = drawn(file)
    assert drawn(file) == first
    file.unlink()
    assert drawn(file) != first


def test_a_file_that_cannot_be_read_is_written_anew(tmp_path: Path) -> None:
    file = tmp_path / streams.FILE
    file.write_text('{"random": [3,')
    first = drawn(file)
    assert drawn(file) == first


def test_a_library_is_not_imported_for_its_stream() -> None:
    code = "import sys, haversack.notebook.streams; print({'numpy', 'torch', 'tensorflow', 'keras'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_only_a_job_with_a_training_begins_again(tmp_path: Path) -> None:
    drawn(tmp_path / streams.FILE)
    assert kept_streams.prepare(tmp_path, unseeded=False) is False
    assert not (tmp_path / streams.FILE).exists()
    first = drawn(tmp_path / streams.FILE)
    kept_streams.confirm(tmp_path)
    assert kept_streams.prepare(tmp_path, unseeded=False) is True
    assert drawn(tmp_path / streams.FILE) == first


def test_unseeded_sessions_begin_anew(tmp_path: Path) -> None:
    drawn(tmp_path / streams.FILE)
    kept_streams.confirm(tmp_path)
    assert kept_streams.prepare(tmp_path, unseeded=True) is False
    assert not (tmp_path / streams.FILE).exists()


def test_a_notebook_without_a_training_draws_new_samples_in_each_session(run: Run, tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    line = "{random.random()} {np.random.random()}\\n"
    append = f"import random, numpy as np\nopen({str(samples)!r}, 'a').write(f'{line}')"
    report = run(append, DIE_ONCE.format(count=str(tmp_path / "count")), "1")
    assert (report.status, report.sessions) == ("done", 2)
    assert len({*samples.read_text().split()}) == 4
    assert not [notice for notice in report.notices if "--unseeded" in notice]
