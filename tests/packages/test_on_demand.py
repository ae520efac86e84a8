"""Imports on demand, in a process whose `__main__` is the notebook's code and whose folder is its `/content`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.packages.conftest import UV, Environment
from tests.packages.wheels import JSON_PAGE, dated_index, served, wheel

_START = "from pathlib import Path\nfrom haversack.packages import on_demand\non_demand.install(Path('content'))\n"


def cell(env: Environment, source: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `source` as a cell."""
    file = env.folder.parent / "content" / "cell.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text(_START + source)
    return env.run("python", "-P", str(file), **variables)


def test_an_import_of_the_notebooks_own_is_installed(env: Environment) -> None:
    done = cell(env, "import tabulate\nprint(tabulate.__version__)")
    first, second = done.stdout.splitlines()
    assert first.startswith("haversack: installed tabulate 1.0 (import tabulate, ")
    assert second == "1.0"
    assert env.version("tabulate") == "1.0"


def test_it_is_installed_once(env: Environment) -> None:
    assert cell(env, "import tabulate").stdout != ""
    assert cell(env, "import tabulate").stdout == ""


@pytest.mark.parametrize(
    "source",
    [
        "from tabulate import __version__",
        "import importlib\nimportlib.import_module('tabulate')",
        "def f():\n    import tabulate\nf()",
    ],
)
def test_every_way_to_import(env: Environment, source: str) -> None:
    assert "installed tabulate 1.0 (import tabulate" in cell(env, source).stdout


def test_so_is_one_of_a_module_of_its_own(env: Environment) -> None:
    content = env.folder.parent / "content"
    content.mkdir()
    (content / "mine.py").write_text("import tabulate")
    done = cell(env, "import sys\nsys.path.insert(0, 'content')\nimport mine")
    assert "installed tabulate 1.0" in done.stdout


@pytest.mark.parametrize("source", ["import tinybase", "import nothing_like_it", "import apt"])
def test_no_name_is_guessed(env: Environment, source: str) -> None:
    done = cell(env, source)
    assert "ModuleNotFoundError: No module named" in done.stderr
    assert done.stdout == ""


def test_a_librarys_import_installs_nothing(env: Environment) -> None:
    done = cell(env, "import seaborn")
    assert "installed seaborn 1.0" in done.stdout
    assert "No module named 'wordcloud'" in done.stderr
    assert env.version("wordcloud") == ""


@pytest.mark.parametrize(
    "probe",
    [
        "import importlib.util\nprint(importlib.util.find_spec('tabulate'))",
        "try:\n    import tabulate\nexcept ImportError:\n    print(None)",
    ],
)
def test_a_librarys_probe_installs_nothing(env: Environment, probe: str) -> None:
    (env.packages / "library.py").write_text(probe)
    done = cell(env, "import library")
    assert done.stdout == "None\n"
    assert env.version("tabulate") == ""


def test_find_spec_is_a_probe_in_a_cell_too(env: Environment) -> None:
    """In the notebook's folder too: the import system's own code has a name that looks like a path relative to it."""
    probe = "import importlib.util, os\nos.chdir('content')\nprint(importlib.util.find_spec('tabulate'))"
    done = cell(env, probe)
    assert done.stdout == "None\n"


GUARDS = {
    "try": "try:\n    import {0}\nexcept ImportError:\n    print('absent')",
    "bare": "try:\n    import {0}\nexcept:\n    print('absent')",
    "a caller": "def f():\n    import {0}\ntry:\n    f()\nexcept ModuleNotFoundError:\n    print('absent')",
    "no source": "exec('try:\\n    import {0}\\nexcept ImportError:\\n    print(\"absent\")')",
    "suppress": "from contextlib import suppress\nwith suppress(ImportError):\n    import {0}\nimport sys\n"
    "if '{0}' not in sys.modules:\n    print('absent')",
}


@pytest.mark.parametrize("guard", GUARDS)
def test_a_guard_finds_what_colab_has_and_nothing_else(env: Environment, guard: str) -> None:
    assert "installed tabulate" in cell(env, GUARDS[guard].format("tabulate")).stdout
    assert cell(env, GUARDS[guard].format("boto3")).stdout == "absent\n"


def test_what_is_no_guard_installs_what_colab_has_not(env: Environment) -> None:
    source = "try:\n    1 / 0\nexcept (ValueError, ZeroDivisionError):\n    import boto3\n"
    assert "installed boto3 1.0" in cell(env, source).stdout


def test_what_is_imported_stays_at_its_version(env: Environment) -> None:
    env.pip("install", "-q", "tinybase==1.0")
    done = cell(env, "import tinybase\nimport gdown")
    assert done.stdout.startswith("haversack: gdown was not installed (import gdown): ")
    assert "tinybase==1.0" in done.stdout
    assert "ModuleNotFoundError: No module named 'gdown'" in done.stderr
    assert env.version("tinybase") == "1.0"
    assert "installed gdown 1.0" in cell(env, "import gdown").stdout


def test_no_release_after_the_day_of_as_of_is_installed(env: Environment, tmp_path: Path) -> None:
    first, second = (wheel(tmp_path / "dated", "tabulate", version) for version in ("1.0", "2.0"))
    dated_index(tmp_path / "index", "tabulate", {first: "2020-01-31", second: "2020-02-01"})
    with served(tmp_path / "index", JSON_PAGE) as (address, _):
        done = cell(env, "import tabulate", HAVERSACK_AS_OF="2020-01-31", PIP_INDEX_URL=address)
    assert "installed tabulate 1.0" in done.stdout, done.stdout


def test_a_failure_is_said_once(env: Environment) -> None:
    env.pip("install", "-q", "tinybase==1.0")
    again = "try:\n    import gdown\nexcept ImportError:\n    pass\n"
    assert cell(env, f"import tinybase\n{again}{again}").stdout.count("was not installed") == 1


def test_no_install_turns_it_off(env: Environment) -> None:
    done = cell(env, "import tabulate", HAVERSACK_INSTALL="no")
    assert "ModuleNotFoundError" in done.stderr
    assert env.version("tabulate") == ""


def test_an_environment_that_is_not_the_jobs_own_gets_nothing(env: Environment) -> None:
    (env.packages / "haversack_pip.pth").unlink()
    assert "ModuleNotFoundError" in cell(env, "import tabulate").stderr
    assert env.version("tabulate") == ""


def test_one_installation_runs_at_a_time(env: Environment, tmp_path: Path) -> None:
    watched = tmp_path / "watched-uv"
    watched.write_text(f'#!/bin/sh\necho start >> {tmp_path}/log\n{UV} "$@"\necho end >> {tmp_path}/log\n')
    watched.chmod(0o755)
    source = (
        "import threading\n"
        "def one():\n    import tabulate\n    print('has', tabulate.__version__)\n"
        "def other():\n    import boto3\n    print('has', boto3.__version__)\n"
        "threads = [threading.Thread(target=target) for target in (one, other, one, other)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
    )
    lines = sorted(cell(env, source, HAVERSACK_UV=str(watched)).stdout.splitlines())
    assert lines[:4] == ["has 1.0"] * 4
    assert len(lines) == 6
    log = (tmp_path / "log").read_text().split()
    assert log == ["start", "end"] * (len(log) // 2)


def test_a_module_of_a_shared_package(env: Environment, tmp_path: Path) -> None:
    folder = tmp_path / "google"
    wheel(folder, "google_cloud_bigquery", "1.0", module="google/cloud/bigquery")
    done = cell(env, "from google.cloud import bigquery\nprint(bigquery.__version__)", PIP_FIND_LINKS=str(folder))
    assert done.stdout.splitlines()[1:] == ["1.0"]
    assert "installed google-cloud-bigquery 1.0 (import google.cloud.bigquery" in done.stdout
