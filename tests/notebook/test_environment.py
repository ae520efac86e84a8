"""A job's own Python environment: what a cell installs is the job's alone."""

from __future__ import annotations

import importlib.metadata
import subprocess
import zipfile
from pathlib import Path

import pytest

from haversack.notebook import environment
from tests.notebook import notebooks
from tests.notebook.conftest import Run


def wheel(folder: Path, name: str, version: str, source: str = "") -> Path:
    """A wheel of one module, installable without a network."""
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", source)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def test_pip_installs_into_the_job(run: Run, tmp_path: Path) -> None:
    path = wheel(tmp_path, "tinypackage", "1.0", "value = 7")
    report = run(f"!pip install -q --no-index {path}", "import tinypackage\nprint(tinypackage.value)")
    assert notebooks.text(report.output, 1) == "7\n"
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("tinypackage")


def test_a_newer_package_of_the_jobs_wins_and_the_users_stays(run: Run, tmp_path: Path) -> None:
    before = importlib.metadata.version("idna")
    wheel(tmp_path, "idna", "99.0", "newer = True")
    report = run(f"%pip install -q -U --no-index --find-links {tmp_path} idna", "import idna\nprint(idna.newer)")
    assert notebooks.text(report.output, 1) == "True\n"
    assert importlib.metadata.version("idna") == before


def test_a_package_of_the_users_cannot_be_uninstalled(run: Run) -> None:
    report = run("!pip uninstall -y idna", "import idna\nprint(idna.__file__)")
    assert "outside environment" in notebooks.text(report.output, 0)
    assert report.status == "done"


def test_every_way_to_call_python_is_the_jobs(run: Run) -> None:
    cell = "import sys\nprint(sys.executable)\n!python -c 'import sys; print(sys.executable)'\n!which pip pip3 python3"
    report = run(cell)
    programs = notebooks.text(report.output, 0).split()
    assert {str(Path(program).parent) for program in programs} == {f"{report.job}/env/bin"}
    assert len(programs) == 5


def test_the_users_pip_configuration_is_read(
    own_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_CONFIG_FILE", raising=False)
    configuration = own_folders / ".config" / "pip" / "pip.conf"
    configuration.parent.mkdir(parents=True)
    configuration.write_text("[global]\ntimeout = 77\n")
    made = environment.create(tmp_path / "env")
    variables = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **made.variables(tmp_path)}
    shown = subprocess.run(
        [made.bin / "pip", "config", "list"], env=variables, capture_output=True, text=True, check=True
    )
    assert "global.timeout='77'" in shown.stdout
