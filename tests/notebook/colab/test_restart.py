"""A cell that replaces a package which this kernel has imported is told so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_SHELL = """
import sys
from pathlib import Path
from IPython.core.interactiveshell import InteractiveShell
from haversack.notebook.colab import restart
sys.path.insert(0, sys.argv[1])
shell = InteractiveShell()
restart.install(shell, Path(sys.argv[1]))
for cell in sys.argv[2:]:
    shell.run_cell(cell)
"""


def run(folder: Path, *cells: str) -> str:
    """Run `cells` in a shell whose environment is `folder`, and return what they print."""
    command = [sys.executable, "-c", _SHELL, str(folder), *cells]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def change(folder: Path, installed: dict[str, str], removed: dict[str, str]) -> str:
    """A cell that does what pip records as this change."""
    line = json.dumps({"installed": installed, "removed": removed})
    return f"with open({str(folder / 'haversack-changes.jsonl')!r}, 'a') as file: _ = file.write({line + chr(10)!r})"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the package `tinybase` 1.0.0."""
    (tmp_path / "tinybase.py").write_text("__version__ = '1.0.0'")
    return tmp_path


def test_a_replaced_package_wants_a_restart(folder: Path) -> None:
    replaced = change(folder, {"tinybase": "2.0.0"}, {"tinybase": "1.0.0"})
    assert run(folder, "import tinybase", replaced, "1").splitlines()[0] == (
        "haversack: You must restart the runtime to use tinybase 2.0.0: this kernel has imported 1.0.0. In a job, "
        "install it in a cell before its first import."
    )
    assert run(folder, "import tinybase", replaced, "1").count("haversack:") == 1


def test_a_removed_one_stays_imported(folder: Path) -> None:
    said = run(folder, "import tinybase", change(folder, {}, {"tinybase": "1.0.0"}))
    assert said == "haversack: tinybase 1.0.0 is uninstalled, but this kernel has imported it and keeps it.\n"


@pytest.mark.parametrize(
    ("imported", "installed", "removed"),
    [
        (False, {"tinybase": "2.0.0"}, {"tinybase": "1.0.0"}),  # imported after it, or never
        (True, {"tinybase": "1.0.0"}, {"tinybase": "1.0.0"}),  # reinstalled
        (True, {"tinybase": "1.0.0.9"}, {"tinybase": "1.0.0.8"}),  # the module's version has not changed
        (True, {"tinyother": "2.0.0"}, {"tinyother": "1.0.0"}),
        (True, {"tinyother": "2.0.0"}, {}),
    ],
)
def test_nothing_else_is_told(folder: Path, imported: bool, installed: dict[str, str], removed: dict[str, str]) -> None:
    assert run(folder, "import tinybase" if imported else "pass", change(folder, installed, removed)) == ""


def test_what_an_earlier_kernel_changed_is_not_told(folder: Path) -> None:
    (folder / "haversack-changes.jsonl").write_text(
        '{"installed": {"tinybase": "2"}, "removed": {"tinybase": "1.0.0"}}\n'
    )
    assert run(folder, "import tinybase") == ""
