"""Modules are compiled once for each environment, in the background, and what jobs use is never changed."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from haversack.packages import bytecode
from haversack.packages.store import Held, Store
from tests.packages.conftest import BUDGET, Workshop, needs
from tests.packages.wheels import wheel


@pytest.fixture
def held(workshop: Workshop) -> Held:
    wheel(workshop.wheels, "base")
    workshop.publish()
    lock = workshop.locker.find(needs("base"))
    return workshop.store().get(lock, workshop.locker.python_of(lock))


def compiled(tree: Path) -> list[str]:
    return [path.parent.parent.name for path in tree.rglob("*.pyc") if "base" in str(path)]


def test_the_compiled_tree_is_taken_by_later_jobs_and_the_first_one_is_unchanged(held: Held) -> None:
    first, folder = held.environment.tree, held.environment.folder.parent
    assert bytecode.compile_tree(folder, held.environment.key)
    assert compiled(first) == []
    assert held.environment.tree.name == bytecode.COMPILED
    assert compiled(held.environment.tree) == ["base"]
    code = "import base; print(base.__cached__, base.__file__)"
    python = held.environment.tree / "bin" / "python"
    shown = subprocess.run([python, "-I", "-v", "-c", code], capture_output=True, text=True, check=True)
    assert f"{bytecode.COMPILED}/lib" in shown.stdout
    assert "code object from" not in next(line for line in shown.stderr.splitlines() if "base/__init__.py" in line)


def test_what_a_kernel_imports_is_compiled_before_the_first_job_starts(workshop: Workshop) -> None:
    wheel(workshop.wheels, "base")
    workshop.publish()
    lock = workshop.locker.find(needs("base"))
    tree = workshop.store().get(lock, workshop.locker.python_of(lock)).environment.tree
    compiled = {path.parent.parent.name for path in tree.rglob("*.pyc")}
    assert "ipykernel" in compiled
    assert "base" not in compiled


def test_what_another_environment_has_compiled_is_linked(held: Held, workshop: Workshop) -> None:
    assert bytecode.compile_tree(held.environment.folder.parent, held.environment.key)
    [known] = held.environment.tree.rglob("base/__pycache__/*.pyc")
    wheel(workshop.wheels, "other")
    workshop.publish()
    lock = workshop.locker.find(needs("base", "other"))
    tree = workshop.store().get(lock, workshop.locker.python_of(lock)).environment.tree
    [linked] = tree.rglob("base/__pycache__/*.pyc")
    assert linked.samefile(known)
    assert not list(tree.rglob("other/__pycache__/*.pyc"))


def test_the_bytecode_of_another_file_is_not_linked(held: Held, tmp_path: Path) -> None:
    assert bytecode.compile_tree(held.environment.folder.parent, held.environment.key)
    below = Path("lib/python3.11/site-packages/base")
    (tmp_path / below).mkdir(parents=True)
    (tmp_path / below / "__init__.py").write_text("")
    bytecode.reuse(tmp_path, held.environment.tree)
    assert not (tmp_path / below / "__pycache__").exists()


def test_it_is_done_once(held: Held) -> None:
    folder = held.environment.folder.parent
    assert bytecode.compile_tree(folder, held.environment.key)
    assert not bytecode.compile_tree(folder, held.environment.key)


def test_an_environment_that_was_deleted_is_left_alone(held: Held, workshop: Workshop) -> None:
    folder = held.environment.folder.parent
    held.release()
    workshop.store().remove(held.environment.key)
    assert not bytecode.compile_tree(folder, held.environment.key)
    assert [path.name for path in folder.glob(".haversack-*")] == []


def test_the_store_starts_it_in_the_background(held: Held, workshop: Workshop) -> None:
    store = Store(held.environment.folder.parent, BUDGET, workshop.uv)
    store.get(held.environment.lock, workshop.locker.python_of(held.environment.lock)).release()
    end = time.monotonic() + 60
    while held.environment.tree.name != bytecode.COMPILED:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert store.find(held.environment.key) is not None


def test_no_code_of_its_packages_runs(workshop: Workshop, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    line = f"import pathlib; pathlib.Path({str(marker)!r}).touch()\n"
    wheel(workshop.wheels, "base", files={"base-start.pth": line.encode()})
    workshop.publish()
    lock = workshop.locker.find(needs("base"))
    held = workshop.store().get(lock, workshop.locker.python_of(lock))
    assert bytecode.compile_tree(held.environment.folder.parent, held.environment.key)
    assert not marker.exists()
    subprocess.run([held.environment.tree / "bin" / "python", "-c", ""], check=True)
    assert marker.exists()
