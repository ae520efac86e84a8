"""Notebooks of other frameworks, run by the real command beside which these frameworks are installed.

`make test` leaves these tests out: `make frameworks` makes an environment for each file here and runs it in there.
Where a framework is missing, its tests fail.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.notebook import notebooks

NOTEBOOKS = Path(__file__).parent / "notebooks"


@dataclass(frozen=True)
class Executed:
    """A notebook that `haversack run` has executed; `report` is what `--json` printed."""

    output: Path
    report: dict[str, object]

    def text(self, cell: int) -> str:
        """What the cell shows; cells count from 1."""
        return notebooks.text(self.output, cell - 1)

    def last_line(self, cell: int) -> str:
        """The last line on the cell's standard output."""
        outputs = notebooks.read(self.output).cells[cell - 1].outputs
        return "".join(one.text for one in outputs if one.get("name") == "stdout").rstrip().rpartition("\n")[2]


Run = Callable[..., Executed]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`run("name")` executes `notebooks/name.ipynb` as a job; `run(path, "--plain")` another notebook, with options."""

    def run_notebook(notebook: str | Path, *options: str) -> Executed:
        path = notebook if isinstance(notebook, Path) else NOTEBOOKS / f"{notebook}.ipynb"
        output = tmp_path / f"{path.stem}{'-'.join(options)}.executed.ipynb"
        command = [sys.executable, "-m", "haversack", "run", str(path), "--output", str(output), "--json", *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return Executed(output, json.loads(done.stdout))

    return run_notebook


@pytest.fixture
def listed() -> dict[str, dict[str, object]]:
    """What `haversack devices --json` says of each framework, by its name."""
    command = [sys.executable, "-m", "haversack", "devices", "--json"]
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return {one["name"]: one for one in json.loads(done.stdout)["frameworks"]}
