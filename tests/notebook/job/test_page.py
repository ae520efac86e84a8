"""One environment page, two notebooks, and a second machine that reaches no package index."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from haversack.notebook.job import job
from haversack.packages import archive
from tests.conftest import RunningHub
from tests.notebook import notebooks

PAGE = 'import haversack\nhaversack.environment(packages=["humanize==4.12.3"], env={"SEED": "7"})'
FIRST = "import humanize, os\nprint(humanize.__version__, humanize.intcomma(12345), os.environ['SEED'])"
SECOND = "import humanize\nprint(humanize.naturalsize(3_000_000))"


@pytest.fixture(scope="module")
def archived(tmp_path_factory: pytest.TempPathFactory, shared_hub: RunningHub, uv_cache_folder: str) -> RunningHub:
    """The hub after a first machine ran a notebook with the page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UV_CACHE_DIR", uv_cache_folder)
        report = run(patch, shared_hub, tmp_path_factory.mktemp("first"), FIRST)
    assert report.status == "done", report.error
    assert notebooks.text(report.output, 1) == "4.12.3 12,345 7\n"
    return shared_hub


def run(patch: pytest.MonkeyPatch, hub: RunningHub, machine: Path, *cells: str) -> job.JobReport:
    """Run a notebook with the page on a machine whose folders lie in `machine`."""
    patch.delenv("HAVERSACK_INSTALL", raising=False)
    for name, value in {"HOME": "home", "HAVERSACK_DATA": "data", "HAVERSACK_CACHE": "cache"}.items():
        patch.setenv(name, str(machine / value))
    patch.setenv("HAVERSACK_HUB", hub.url)
    patch.setenv("HAVERSACK_TOKEN", hub.token)
    page = notebooks.write(machine / "setup.ipynb", PAGE)
    notebook = notebooks.write(machine / "nb.ipynb", *cells)
    return job.run(notebook, machine / "out.ipynb", page=page)


def without_index(patch: pytest.MonkeyPatch, machine: Path) -> None:
    """Let no package index be reached, nor a cache of uv's."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        patch.delenv(name)
    patch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    patch.setenv("UV_CACHE_DIR", str(machine / "uv"))


def stored(hub: RunningHub) -> Path:
    (found,) = (hub.my_drive / archive.FOLDER).glob("*.zip")
    return found


def test_the_next_machine_needs_no_index(archived: RunningHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_index(monkeypatch, tmp_path)
    report = run(monkeypatch, archived, tmp_path, SECOND)
    assert report.status == "done", report.error
    assert notebooks.text(report.output, 1) == "3.0 MB\n"


def test_an_archive_that_was_tampered_with_is_not_used(
    archived: RunningHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = stored(archived).read_bytes()
    try:
        with zipfile.ZipFile(stored(archived)) as old:
            content = {name: old.read(name) for name in old.namelist()}
        wheel = next(name for name in content if "humanize" in name)
        content[wheel] += b"x"
        with zipfile.ZipFile(stored(archived), "w") as new:
            for name, data in content.items():
                new.writestr(name, data)
        without_index(monkeypatch, tmp_path)
        report = run(monkeypatch, archived, tmp_path, SECOND)
    finally:
        stored(archived).write_bytes(whole)
    assert report.status == "failed"
    assert any("is not the wheel that its lock names" in notice for notice in report.notices)
