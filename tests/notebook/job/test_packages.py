"""Jobs in an environment of their notebook's own packages, which come from an index of tiny wheels and the registry."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from haversack import cli
from haversack.errors import InputError, InstallFailed, JobError, NotebookInvalid
from haversack.notebook.job import job, packages
from haversack.notebook.place import sandbox
from haversack.notebook.record import store
from tests.conftest import RunningHub
from tests.notebook import notebooks
from tests.notebook.conftest import Run
from tests.packages.wheels import index, wheel


def locked(report: job.JobReport, name: str) -> str:
    """The version of a package in the lock that the job keeps."""
    return packages.Lock.decode((Path(report.job) / store.LOCK).read_text()).packages[name]


def block(*dependencies: str) -> str:
    listed = ", ".join(f'"{one}"' for one in dependencies)
    return f"# /// script\n# dependencies = [{listed}]\n# ///"


@pytest.fixture
def wheels(tmp_path: Path, uv_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that pip's configuration names beside the registry; jobs install what they need."""
    monkeypatch.delenv("HAVERSACK_INSTALL")
    folder = tmp_path / "wheels"
    wheel(folder, "tinything", "1.0", source="value = 1\n")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", index(tmp_path / "index", *folder.glob("*.whl")))
    return folder


def test_a_job_has_its_notebooks_packages_and_nothing_it_writes_reaches_the_next(wheels: Path, run: Run) -> None:
    cells = [
        block("tinything"),
        "import tinything, sys\nprint(tinything.value, sys.prefix)\n"
        "with open(tinything.__file__, 'a') as file:\n    _ = file.write('value = 2\\n')",
        "from importlib.metadata import version\nprint(*map(version, ('tinything', 'pip', 'ipykernel')))",
    ]
    first = run(*cells)
    assert first.error is None
    assert notebooks.text(first.output, 1).split() == ["1", f"{first.job}/env"]
    assert notebooks.text(first.output, 2).startswith("1.0 ")
    assert notebooks.text(first.output, 2).split()[1:] == [locked(first, "pip"), locked(first, "ipykernel")]
    second = run(*cells)
    assert notebooks.text(second.output, 1).split()[0] == "1"
    assert first.environment is not None
    assert second.environment is not None
    assert second.environment["key"] == first.environment["key"]
    assert (first.environment["from_store"], second.environment["from_store"]) == (False, True)
    assert first.environment["packages"] > 3


def test_a_resumed_job_keeps_its_lock(wheels: Path, tmp_path: Path, run: Run) -> None:
    failed = run(block("tinything"), "import tinything  # beside numpy 1.19.5\ntinything.gone")
    assert failed.error is not None
    assert failed.error.endswith(
        "tinything 1.0 may have dropped what this cell uses since the notebook was written. "
        "Versions of that time: haversack run nb.ipynb --as-of 2023-06"
    )
    wheel(wheels, "tinything", "2.0")
    os.environ["PIP_EXTRA_INDEX_URL"] = index(tmp_path / "newer", *wheels.glob("*.whl"))
    again = job.resume(Path(failed.job).name)
    assert (Path(failed.job) / store.LOCK).exists()
    assert again.environment is not None
    assert failed.environment is not None
    assert again.environment["key"] == failed.environment["key"]


def test_another_machine_gets_the_lock_from_the_drive(
    wheels: Path, tmp_path: Path, run: Run, own_hub: RunningHub
) -> None:
    lucky = tmp_path / "luck"
    failed = run(
        block("tinything"), f"import importlib.metadata as m\nopen({str(lucky)!r})\nprint(m.version('tinything'))"
    )
    name = Path(failed.job).name
    kept = (Path(failed.job) / store.LOCK).read_text()
    wheel(wheels, "tinything", "2.0")
    index(tmp_path / "index", *wheels.glob("*.whl"))
    lucky.touch()
    there = {**os.environ, "HAVERSACK_DATA": str(tmp_path / "there"), "HAVERSACK_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "haversack", "run", "--resume", name, "-o", str(tmp_path / "again.ipynb")]
    subprocess.run(command, env=there, check=True)
    assert (tmp_path / "there" / "jobs" / name / store.LOCK).read_text() == kept
    assert notebooks.text(tmp_path / "again.ipynb", 1) == "1.0\n"


def test_a_package_that_cannot_be_had_fails_the_job_before_its_first_cell(wheels: Path, run: Run) -> None:
    report = run(block("no-such-package-of-anybody"), "print('executed')")
    assert report.status == "failed"
    assert isinstance(report.failure, InstallFailed)
    assert report.error is not None
    assert report.error.startswith("There is no package no-such-package-of-anybody in the index.")
    assert (report.environment, report.sessions) == (None, 0)
    assert notebooks.read(report.output).cells[1].outputs == []
    assert not report.resumable
    assert "--resume" not in report.summary
    assert not (Path(report.job) / "env").exists()


def test_unknown_imports_stop_the_job_before_anything_is_made(wheels: Path, run: Run, own_folders: Path) -> None:
    with pytest.raises(InputError, match=r"secretsauce .*othersauce"):
        run("import secretsauce, othersauce")
    assert not (own_folders / "data" / "jobs").exists()


def test_no_install_resolves_nothing(wheels: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_UV", "/nowhere/uv")
    report = run("import fsspec", install=False)
    assert (report.status, report.environment) == ("done", None)


def test_options_about_packages_need_an_installation(wheels: Path, run: Run) -> None:
    with pytest.raises(InputError, match="--no-install"):
        run("1", install=False, as_of="2026-01")
    with pytest.raises(InputError, match="--as-of"):
        run("1", as_of="soon")
    with pytest.raises(InputError, match=r"Python 3\.8"):
        run("1", python="3.8")


@pytest.mark.skipif(shutil.which("python3.12") is None, reason="needs Python 3.12")
def test_the_notebooks_python_is_taken(wheels: Path, run: Run) -> None:
    listed = packages.needed_by(
        notebooks.read(notebooks.write(wheels / "a.ipynb", '# /// script\n# requires-python = ">=3.12"\n# ///')),
        wheels,
        None,
    )
    assert listed.python == ">=3.12"


@pytest.mark.parametrize(
    ("locked", "frameworks"),
    [
        ("keras jax", {"jax"}),
        ("tensorflow-cpu keras", {"tensorflow"}),
        ("torch jax", {"torch", "jax"}),
        ("numpy", set()),
    ],
)
def test_keras_can_run_on_what_the_lock_holds(locked: str, frameworks: set[str]) -> None:
    lock = packages.Lock("3.11.7", "linux-x86_64", "cpu", "", "", "".join(f"{one}==1\n" for one in locked.split()))
    needed = packages.requirements_of(["import keras"], {})
    assert packages.Packages(None, lock, needed, False, 0).frameworks == frameworks  # type: ignore[arg-type]


def test_passwords_of_indexes_are_secrets() -> None:
    assert packages.secrets_of({"UV_INDEX": "https://me:hidden@one/simple https://two/simple"}) == ["hidden"]


def test_env_commands_lock_make_list_and_remove(
    wheels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = notebooks.write(tmp_path / "nb.ipynb", block("tinything"))

    def env(*arguments: str) -> dict[str, object]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["env", *arguments, "--json"])
        assert ended.value.code == 0
        return json.loads(capsys.readouterr().out)

    locked = env("lock", str(notebook), "-o", str(tmp_path / "nb.lock"))
    assert "tinything==1.0" in (tmp_path / "nb.lock").read_text()
    assert env("show", str(notebook))["locked"] == locked["locked"]
    made = env("sync", str(notebook))
    listed = env("ls")["environments"]
    assert [(one["key"], one["packages"], one["in_use"]) for one in listed] == [(made["key"], made["packages"], False)]
    assert [one["key"] for one in env("rm", str(made["key"])[:8])["removed"]] == [made["key"]]
    assert env("ls") == {"environments": []}
    assert env("rm", "--all") == {"removed": []}


def test_somebody_elses_notebook_has_its_packages_in_its_sandbox(wheels: Path, run: Run) -> None:
    try:
        sandbox.check()
    except JobError as error:
        pytest.skip(str(error))
    report = run(
        block("tinything"),
        "import tinything\nprint(tinything.value, __import__('os').path.exists(tinything.__file__))",
        "!pip --version",
        "!kaggle --version || haversack --version",
        trusted=False,
        address="https://example.org/x.ipynb",
    )
    assert report.error is None
    assert notebooks.text(report.output, 1) == "1 True\n"
    assert notebooks.text(report.output, 2).startswith("pip ")
    assert "not found" in notebooks.text(report.output, 3)


def test_an_unusable_notebook_that_was_fetched_is_called_by_its_address(tmp_path: Path) -> None:
    (tmp_path / "old.ipynb").write_text('{"nbformat": 3}')
    with pytest.raises(NotebookInvalid, match=r"^https://example\.org/old\.ipynb is a notebook of version 3"):
        packages.sync(tmp_path / "old.ipynb", "https://example.org/old.ipynb")
