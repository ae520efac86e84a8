"""uv's failures as one error with the next step, and what happens without a network."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from haversack.errors import ConnectionFailed, HaversackError, InputError, InstallFailed
from haversack.packages import python
from haversack.packages.uv import error_of
from tests.packages.conftest import Workshop, needs
from tests.packages.wheels import served, wheel


def failure(workshop: Workshop, *requirements: str, as_of: str = "", **needed: str) -> HaversackError:
    with pytest.raises(HaversackError) as caught:
        workshop.locker.find(needs(*requirements, **needed), as_of=as_of)
    assert caught.value.what.count(". ") == 0, "more than one sentence"
    assert caught.value.next_step
    return caught.value


def test_a_package_that_does_not_exist_is_named(workshop: Workshop) -> None:
    error = failure(workshop, "secretsauce")
    assert isinstance(error, InstallFailed)
    assert error.what == "There is no package secretsauce in the index."


def test_a_package_without_a_wheel_for_this_python_is_named(workshop: Workshop) -> None:
    wheel(workshop.wheels, "ancient", tag="cp27-cp27mu-manylinux1_x86_64")
    workshop.publish()
    assert failure(workshop, "ancient").what.startswith("ancient==1.0 has no wheel for this Python and machine")


def test_a_contradiction_names_the_two_facts(workshop: Workshop) -> None:
    wheel(workshop.wheels, "base", "1.0")
    wheel(workshop.wheels, "base", "2.0")
    wheel(workshop.wheels, "before", needs=["base<2"])
    wheel(workshop.wheels, "after", needs=["base>=2"])
    workshop.publish()
    what = failure(workshop, "before", "after").what
    assert what.startswith("The packages contradict each other: ")
    assert "before depend on base<2" in what
    assert "after depend on base>=2" in what
    assert "conclude" not in what


def test_a_contradiction_with_a_requirement_of_the_users_names_it(workshop: Workshop) -> None:
    wheel(workshop.wheels, "base", "1.0")
    wheel(workshop.wheels, "base", "2.0")
    wheel(workshop.wheels, "before", needs=["base<2"])
    workshop.publish()
    what = failure(workshop, "before==1.0", "base==2.0").what
    assert "depend on base<2 and you require base==2.0" in what


def test_a_requirement_that_cannot_be_read_is_an_input_error(workshop: Workshop) -> None:
    assert isinstance(failure(workshop, "base==="), InputError)


def test_a_path_that_is_not_there_is_named(workshop: Workshop) -> None:
    assert "/nowhere/at/all" in failure(workshop, "/nowhere/at/all").what


def test_an_index_without_upload_times_cannot_keep_a_date(workshop: Workshop) -> None:
    wheel(workshop.wheels, "base")
    workshop.publish()
    assert "--as-of" in str(failure(workshop, "base", as_of="2026-01-31"))


def test_a_python_that_is_not_there_is_named(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(InstallFailed, match=r"There is no Python 3\.12\.77 on this machine"):
        python._found("==3.12.77", "3.12.77", workshop.uv, workshop.folder)


@pytest.mark.parametrize("wanted", ["3.9", "<3.11", ">=4"])
def test_a_python_that_haversack_does_not_run_on_is_an_input_error(workshop: Workshop, wanted: str) -> None:
    error = failure(workshop, python=wanted)
    assert isinstance(error, InputError)
    assert "haversack runs notebooks on 3.11 to 3.13" in error.what


def test_the_supported_pythons_are_those_of_the_package() -> None:
    project = (Path(__file__).parent.parent.parent / "pyproject.toml").read_text()
    assert f'requires-python = ">=3.{python.OLDEST[1]},<3.{python.NEWEST[1] + 1}"' in project


def test_what_is_cached_is_used_while_the_registry_is_away(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel(workshop.wheels, "base")
    workshop.publish()
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with served(workshop.folder / "index") as (address, _):
        monkeypatch.setenv("PIP_INDEX_URL", address)
        lock = workshop.locker.find(needs("base"))
        workshop.store().get(lock, workshop.locker.python_of(lock)).release()
    again = workshop.locker.find(needs("base"), fresh=True)
    assert again.packages == lock.packages
    assert workshop.notices == [f"{address.partition('//')[2]} cannot be reached, so packages come from the cache."]
    workshop.store().remove(workshop.store().all()[0].key)
    assert not workshop.store().get(again, workshop.locker.python_of(again)).from_store
    error = failure(workshop, "pandas")
    assert isinstance(error, ConnectionFailed)
    assert "pandas is not in the cache" in error.what


def test_passwords_of_indexes_are_never_printed(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:secret@127.0.0.1:1/simple")
    told = [str(failure(workshop, "base")), *workshop.shown, *workshop.notices]
    assert "127.0.0.1:1 cannot be reached" in told[0]
    assert "secret" not in " ".join(told)


def test_what_uv_says_besides_is_passed_on() -> None:
    assert error_of("error: Something new\n  cause: Its reason\n").what == "uv failed: Something new: Its reason."


def test_a_full_disk_is_said() -> None:
    told = error_of("error: Failed to install: a.whl\n  cause: No space left on device (os error 28)\n")
    assert told.what == "The disk is full, so the packages were not installed."


_SLOW = """\
import sys, time
from pathlib import Path
from haversack.cli import main
main(["env", "sync", sys.argv[1]])
"""


def test_ctrl_c_ends_with_status_130_and_leaves_nothing(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.notebook import notebooks

    # A source that takes a minute to build: the interrupt comes in the middle.
    project = tmp_path / "slow"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "slow"\nversion = "1"\n'
    )
    (project / "backend.py").write_text(
        f"import time, pathlib\ndef build_wheel(*a, **k):\n    pathlib.Path({str(tmp_path / 'begun')!r}).touch()\n"
        "    time.sleep(60)\n"
    )
    notebook = notebooks.write(
        tmp_path / "nb.ipynb", f'# /// script\n# dependencies = ["slow @ file://{project}"]\n# ///'
    )
    monkeypatch.setenv("HAVERSACK_CACHE", str(workshop.cache))
    process = subprocess.Popen([sys.executable, "-c", _SLOW, str(notebook)], start_new_session=True)
    end = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert process.poll() is None, "it ended before the package was built"
        assert time.monotonic() < end
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    assert [path.name for path in (workshop.cache / "environments").rglob(".haversack-*")] == []
