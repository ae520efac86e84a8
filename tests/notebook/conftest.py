"""One job for a test: cells in, report and executed notebook out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from haversack.notebook import job
from tests.notebook import notebooks

Run = Callable[..., job.Report]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`run("cell", "cell", uploads=[…])` executes these cells as a job and returns its report."""

    def run_cells(*sources: str, tags: dict[int, list[str]] | None = None, **options: Any) -> job.Report:
        notebook = notebooks.write(tmp_path / "nb.ipynb", *sources, tags=tags)
        return job.run(notebook, tmp_path / "out.ipynb", **options)

    return run_cells
