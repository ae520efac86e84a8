"""The store of environments: complete or absent, made once, never evicted while in use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from haversack.errors import DiskFull, InputError, NotFound
from haversack.packages.lock import Lock
from haversack.packages.python import own
from haversack.packages.store import Held, Store, key_of
from tests.packages.conftest import Workshop, needs
from tests.packages.wheels import wheel


def get(workshop: Workshop, *requirements: str, store: Store | None = None) -> Held:
    lock = workshop.locker.find(needs(*requirements))
    return (store or workshop.store()).get(lock, workshop.locker.python_of(lock))


def leftovers(workshop: Workshop) -> list[str]:
    return [path.name for path in (workshop.cache / "environments").glob(".haversack-*")]


@pytest.fixture
def base(workshop: Workshop) -> Workshop:
    wheel(workshop.wheels, "base", files={"base/blob": os.urandom(200_000)})
    wheel(workshop.wheels, "other", files={"other/blob": os.urandom(200_000)})
    workshop.publish()
    return workshop


def test_an_environment_has_the_packages_of_its_lock_and_its_own_python(base: Workshop) -> None:
    held = get(base, "base")
    python = held.environment.tree / "bin" / "python"
    code = "import base, sys, importlib.metadata as m; print(base.__version__, m.version('pip'), sys.prefix)"
    shown = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["1.0", "20.0", str(held.environment.tree)]
    assert not list(held.environment.tree.rglob("*.pth.haversack"))
    held.release()


def test_the_same_lock_is_taken_from_the_store(base: Workshop) -> None:
    first = get(base, "base")
    second = get(base, "base")
    assert (first.from_store, second.from_store) == (False, True)
    assert first.environment.key == second.environment.key
    assert get(base, "other").environment.key != first.environment.key


def test_an_environment_can_be_moved_with_its_commands(workshop: Workshop, tmp_path: Path) -> None:
    info = "tool-1.0.dist-info/entry_points.txt"
    wheel(workshop.wheels, "tool", source="def main():\n    import sys; print(sys.prefix)\n",
          files={info: b"[console_scripts]\ntool = tool:main\n"})  # fmt: skip
    workshop.publish()
    held = get(workshop, "tool")
    held.environment.tree.rename(tmp_path / "moved")
    shown = subprocess.run([tmp_path / "moved" / "bin" / "tool"], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == str(tmp_path / "moved")


def test_one_whose_interpreter_is_gone_is_made_again(base: Workshop) -> None:
    held = get(base, "base")
    held.release()
    (held.environment.tree / "bin" / "python").unlink()
    assert base.store().all() == []
    again = get(base, "base")
    assert not again.from_store
    assert (again.environment.tree / "bin" / "python").exists()


def test_the_least_recently_used_are_evicted_but_none_in_use(base: Workshop) -> None:
    one = get(base, "base")
    get(base, "other").release()
    get(base, "other", "base").release()
    sizes = {found.key: found.size for found in base.store().all()}
    for age, key in enumerate(sizes):
        os.utime(base.cache / "environments" / f"{key}.lock", (time.time() - age, time.time() - age))
    newest = next(iter(sizes))
    base.store(sizes[newest] + sizes[one.environment.key]).evict()
    assert {found.key for found in base.store().all()} == {newest, one.environment.key}
    base.store(0).evict()
    assert [found.key for found in base.store().all()] == [one.environment.key]
    one.release()
    base.store(0).evict()
    assert base.store().all() == []
    assert leftovers(base) == []


def test_one_in_use_is_listed_so_and_cannot_be_removed(base: Workshop) -> None:
    held = get(base, "base")
    assert [found.in_use for found in base.store().all()] == [True]
    with pytest.raises(InputError, match="in use"):
        base.store().remove(held.environment.key)
    held.release()
    assert base.store().remove(held.environment.key[:6]).key == held.environment.key
    with pytest.raises(NotFound):
        base.store().remove(held.environment.key)


_MAKE = """\
import sys
from pathlib import Path
from haversack.packages.lock import Lock
from haversack.packages.python import own
from haversack.packages.store import Store
from haversack.packages.uv import Uv
cache = Path(sys.argv[1])
store = Store(cache / "environments", 10**9, Uv.make(cache), compiles=False)
held = store.get(Lock.decode(Path(sys.argv[2]).read_text()), own())
print(held.environment.key, held.from_store)
"""


def start(workshop: Workshop, lock: Lock) -> subprocess.Popen[str]:
    (workshop.folder / "the.lock").write_text(lock.text)
    command = [sys.executable, "-c", _MAKE, str(workshop.cache), str(workshop.folder / "the.lock")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_at_once_make_it_once(base: Workshop) -> None:
    lock = base.locker.find(needs("base"))
    processes = [start(base, lock) for _ in range(2)]
    answers = [process.communicate(timeout=120)[0].split() for process in processes]
    key = key_of(lock, own())
    assert sorted(answers) == [[key, "False"], [key, "True"]]


def slow(workshop: Workshop) -> Lock:
    """A lock with a package that takes a minute to build; the file `begun` tells that it has begun."""
    project = workshop.folder / "slow"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "slow"\nversion = "1"\n'
    )
    begun = workshop.folder / "begun"
    (project / "backend.py").write_text(
        "import os, pathlib, time\n"
        "def build_wheel(*arguments, **options):\n"
        f"    begun = pathlib.Path({str(begun)!r})\n"
        '    begun.write_text(f"{os.getppid()} {os.getpid()}")\n'
        "    time.sleep(60)\n"
    )
    lock = workshop.locker.find(needs())
    return Lock(lock.python, lock.platform, lock.accelerator, "", "", f"slow @ file://{project}\n")


@pytest.fixture
def killed(base: Workshop) -> Iterator[list[int]]:
    """Kill a process in the middle of making an environment; yield the ids of its uv and uv's child, which live on."""
    process = start(base, slow(base))
    end = time.monotonic() + 60
    while not (base.folder / "begun").exists() or not (base.folder / "begun").read_text():
        assert process.poll() is None, "it ended before the package was built"
        assert time.monotonic() < end
        time.sleep(0.05)
    process.kill()
    process.wait()
    orphans = [int(number) for number in (base.folder / "begun").read_text().split()]
    yield orphans
    end_all(orphans)


def end_all(processes: list[int]) -> None:
    """Kill processes, and wait until they have ended."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    end = time.monotonic() + 60
    while any(Path(f"/proc/{process}/fd/0").exists() for process in processes) and time.monotonic() < end:
        time.sleep(0.05)


def test_what_a_killed_process_left_is_never_used_and_deleted_later(base: Workshop, killed: list[int]) -> None:
    assert base.store().all() == []
    assert len(leftovers(base)) == 1
    # uv outlives its parent, and still writes: what it writes to stays until it has ended.
    get(base, "other").release()
    assert len(leftovers(base)) == 1
    end_all(killed)
    get(base, "base").release()
    assert leftovers(base) == []
    assert len(base.store().all()) == 2


def test_a_failed_installation_leaves_nothing(base: Workshop) -> None:
    lock = base.locker.find(needs("base"))
    broken = Lock(
        lock.python, lock.platform, lock.accelerator, "", "", "base @ file:///nowhere/base-1.0-py3-none-any.whl\n"
    )
    with pytest.raises(Exception, match="nowhere"):
        base.store().get(broken, own())
    assert leftovers(base) == []
    assert base.store().all() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_full_disk_is_one_sentence_and_leaves_nothing(base: Workshop, tmp_path: Path) -> None:
    wheel(base.wheels, "large", files={f"large/{number}": os.urandom(1_000_000) for number in range(12)})
    base.publish()
    lock = base.locker.find(needs("large"))
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", small], check=True)
    try:
        store = Store(small / "environments", 10**9, base.uv, compiles=False)
        with pytest.raises(DiskFull) as caught:
            store.get(lock, own())
        assert caught.value.what == "The disk is full, so the packages were not installed."
        assert [path.name for path in (small / "environments").iterdir() if path.suffix != ".lock"] == []
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_progress_counts_what_is_installed(base: Workshop) -> None:
    get(base, "base").release()
    assert "installing 5 packages" in base.shown


def test_a_process_waits_for_another_that_makes_it(base: Workshop) -> None:
    store = base.store()
    lock = base.locker.find(needs("base"))
    key = key_of(lock, own())
    (base.cache / "environments").mkdir(parents=True, exist_ok=True)
    found: list[Held] = []
    with store._locked(key):
        thread = threading.Thread(target=lambda: found.append(store.get(lock, own())))
        thread.start()
        end = time.monotonic() + 60
        while "waiting for another job that makes this environment" not in base.shown:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert not found
    thread.join(60)
    assert found[0].environment.key == key
