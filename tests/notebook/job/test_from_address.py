"""`haversack run ADDRESS`: what the job keeps of where its notebook came from, and where the result goes."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from haversack.errors import JobError
from haversack.notebook.job.arguments import free_output
from haversack.notebook.job.jobs import all_jobs
from haversack.notebook.place import sandbox
from tests.notebook import notebooks

Haversack = Callable[..., subprocess.CompletedProcess[str]]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    """A server of `tmp_path`; its URL is `http://127.0.0.1:PORT`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(tmp_path))) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def haversack(tmp_path: Path) -> Haversack:
    (tmp_path / "here").mkdir()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "haversack", *arguments]
        return subprocess.run(command, cwd=tmp_path / "here", capture_output=True, text=True, timeout=400)

    return run


def test_a_job_by_address_is_isolated_named_and_resumed_from_its_own_copy(
    server: ThreadingHTTPServer, haversack: Haversack, tmp_path: Path
) -> None:
    try:
        sandbox.check()
    except JobError as error:
        pytest.skip(str(error))
    notebooks.write(
        tmp_path / "their nb.ipynb",
        "import os\nprint(os.environ.get('HAVERSACK_UNTRUSTED'))",
        "assert os.path.exists('/content/../root') and os.path.exists(os.path.expanduser('~/../downloads/again'))",
    )
    address = f"http://127.0.0.1:{server.server_address[1]}/their%20nb.ipynb"
    first = haversack("run", address, "--json")
    told = json.loads(first.stdout)
    assert first.returncode == 1
    assert (told["notebook"], told["trusted"], told["status"]) == (address, False, "failed")
    output = tmp_path / "here" / "their nb.executed.ipynb"
    assert told["output"] == str(output)
    assert "somebody else's program" in first.stderr
    assert notebooks.text(output, 0) == "1\n"
    server.shutdown()
    (tmp_path / "their nb.ipynb").unlink()
    job = Path(told["job"])
    (job / "downloads" / "again").touch()
    second = haversack("run", "--resume", job.name, "--json")
    assert second.returncode == 0, second.stdout + second.stderr
    told = json.loads(second.stdout)
    assert (told["notebook"], told["trusted"], told["status"]) == (address, False, "done")
    [stored] = all_jobs()
    assert f"from {address}" in str(stored)
    assert stored.json()["notebook"] == address
    assert os.listdir(tmp_path / "here") == ["their nb.executed.ipynb"]


def test_another_notebooks_result_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one, other = "https://example.org/x.ipynb", "https://example.com/x.ipynb"
    assert free_output(Path("/tmp/x.ipynb"), one) == (Path("x.executed.ipynb"), "")
    notebooks.write(Path("x.executed.ipynb"), "1", haversack={"source": one})
    assert free_output(Path("/tmp/x.ipynb"), one) == (Path("x.executed.ipynb"), "")
    path, said = free_output(Path("/tmp/x.ipynb"), other)
    assert path == Path("x-2.executed.ipynb")
    assert "x.executed.ipynb exists" in said
    Path("x-2.executed.ipynb").write_text("something else")
    assert free_output(Path("/tmp/x.ipynb"), other)[0] == Path("x-3.executed.ipynb")
