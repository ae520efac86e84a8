"""A job's own Python environment: what a cell installs is the job's alone."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from haversack.notebook.job import job
from haversack.notebook.place import environment
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


@pytest.fixture(scope="module")
def report(run_once: Run, tmp_path_factory: pytest.TempPathFactory) -> job.JobReport:
    """A job that installs a package that is new, one that the user has, and tries to remove another of the user's."""
    wheels = tmp_path_factory.mktemp("wheels")
    wheel(wheels, "tinypackage", "1.0", "value = 7")
    wheel(wheels, "idna", "99.0", "newer = True")
    return run_once(
        f"%pip install -q -U --no-index --no-deps --find-links {wheels} idna tinypackage",
        "import idna, tinypackage\nprint(tinypackage.value, idna.newer)",
        "!pip uninstall -y fsspec",
        "import fsspec",
        "import sys\nprint(sys.executable)\n!python -c 'import sys; print(sys.executable)'\n!which pip pip3 python3",
    )


def test_pip_installs_into_the_job_and_that_wins(report: job.JobReport) -> None:
    assert notebooks.text(report.output, 1) == "7 True\n"


def test_the_users_packages_stay_as_they_are(report: job.JobReport) -> None:
    assert importlib.metadata.version("idna") != "99.0"
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("tinypackage")


def test_a_package_of_the_users_cannot_be_uninstalled(report: job.JobReport) -> None:
    assert "outside environment" in notebooks.text(report.output, 2)
    assert notebooks.text(report.output, 3) == ""


def test_every_way_to_call_python_is_the_jobs(report: job.JobReport) -> None:
    programs = notebooks.text(report.output, 4).split()
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


def test_commands_beside_haversack_are_found_unless_the_environment_is_the_notebooks_own(tmp_path: Path) -> None:
    beside, commands = str(Path(sys.executable).parent), tmp_path / "bin"
    inherited = os.pathsep.join(["/usr/bin", beside, "/bin"])
    place = (tmp_path / "env", tmp_path / "env", Path("lib"))
    ours = environment.Environment(*place).search_path(commands, inherited).split(os.pathsep)
    own = environment.Environment(*place, is_own=True).search_path(commands, inherited).split(os.pathsep)
    assert ours == [str(commands), f"{tmp_path}/env/bin", beside, "/usr/bin", beside, "/bin"]
    assert own == [str(commands), f"{tmp_path}/env/bin", "/usr/bin", "/bin"]
