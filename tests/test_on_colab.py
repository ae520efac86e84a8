"""haversack beside what Colab has installed: nothing of it is replaced. `colab-packages.txt` is Colab's list of August
2026 (Python 3.13), as `pip freeze` prints it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import uv
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LIST = Path(__file__).with_name("colab-packages.txt")
COLAB = {
    canonicalize_name(name): version
    for name, _, version in (line.partition("==") for line in LIST.read_text().splitlines())
    if version
}
BASE = [Requirement(line) for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]]
# What Colab's own package does as far as the cell is concerned: it shows the user's drive below the mountpoint.
STUB = """
import os, pathlib
def mount(mountpoint):
    pathlib.Path(mountpoint).mkdir(parents=True)
    pathlib.Path(mountpoint, "MyDrive").symlink_to(os.environ["THE_DRIVE"])
    print("Mounted at", mountpoint)
"""


@pytest.mark.parametrize("wanted", [one for one in BASE if canonicalize_name(one.name) in COLAB], ids=str)
def test_colabs_version_of_a_dependency_is_good_enough(wanted: Requirement) -> None:
    assert wanted.specifier.contains(COLAB[canonicalize_name(wanted.name)])


def test_the_whole_of_our_dependencies_has_a_solution_with_colabs_versions(tmp_path: Path) -> None:
    """Skipped where no registry can be reached, which is not for this test to say."""
    asked = tmp_path / "requirements.in"
    asked.write_text("\n".join(str(one) for one in BASE))
    command = [
        uv.find_uv_bin(),
        "pip",
        "compile",
        "--quiet",
        "--no-header",
        "--no-annotate",
        "--python-version",
        "3.13",
    ]
    command += ["--no-python-downloads", "--constraint", LIST, asked]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if "client error (Connect)" in done.stderr:
        pytest.skip("no registry can be reached")
    assert done.returncode == 0, done.stderr
    solved = dict(line.split(" ;")[0].split("==") for line in done.stdout.splitlines() if "==" in line)
    assert {name: version for name, version in solved.items() if COLAB.get(name, version) != version} == {}
    assert solved["ipykernel"] == COLAB["ipykernel"]
    assert set(solved) - set(COLAB) >= {"isal", "mfusepy", "msgspec", "uv"}


def test_the_cell_of_the_docs_goes_on_after_the_machine_is_lost(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "from-colab.md").read_text()
    cell = re.search(r"^```\n(%pip install -q haversack\n.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert cell is not None
    package = tmp_path / "packages" / "google" / "colab"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "drive.py").write_text(STUB)
    (package / "output.py").touch()  # JAX imports it where google.colab is
    (tmp_path / "drive").mkdir()

    def machine(number: int) -> subprocess.Popen[str]:
        """A new machine: nothing of the last one is there but the drive and the packages."""
        folder = tmp_path / f"machine-{number}"
        folder.mkdir()
        code = (
            cell[1].replace("%pip", "#").replace("epochs=40", "epochs=20").replace("/content", str(folder / "content"))
        )
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HAVERSACK_")}
        own = {
            "HOME": str(folder),
            "PYTHONPATH": f"{tmp_path / 'packages'}:{ROOT}",
            "THE_DRIVE": str(tmp_path / "drive"),
        }
        command = [sys.executable, "-c", code]
        return subprocess.Popen(
            command, env={**environment, **own}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    first = machine(1)
    end = time.monotonic() + 200
    checkpoints = tmp_path / "drive" / "runs" / "signs" / "checkpoints"
    while not list(checkpoints.glob("0*/state.safetensors")):
        assert first.poll() is None, "the training ended before it was killed"
        assert time.monotonic() < end
        time.sleep(0.05)
    first.kill()
    first.communicate()
    second = machine(2)
    shown, _ = second.communicate(timeout=200)
    assert second.returncode == 0
    assert "resumed at" in shown
    assert shown.splitlines()[-1] == "20 epochs"
