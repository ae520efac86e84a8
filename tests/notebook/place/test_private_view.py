"""A job's view of an environment in the store: what is written through it, also in place, stays the job's."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from haversack.errors import DiskFull, JobError
from haversack.notebook.place import content, environment, sandbox
from haversack.notebook.place.content import ContentFolder
from haversack.packages.python import own

PACKAGE = Path("lib", f"python{own().minor}", "site-packages", "thing")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An environment like those in the store, with one package, whose files are hard links to a cache."""
    folder = tmp_path / "tree"
    subprocess.run([own().path, "-m", "venv", "--without-pip", folder], check=True)
    cached = tmp_path / "cached"
    cached.mkdir()
    (cached / "__init__.py").write_text("value = 1\n")
    (folder / PACKAGE).mkdir()
    os.link(cached / "__init__.py", folder / PACKAGE / "__init__.py")
    return folder


@pytest.fixture(params=content.METHODS)
def private(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ContentFolder]:
    """A `/content` by each method that works here."""
    job = tmp_path / "job"
    for name in ("content", "home"):
        (job / name).mkdir(parents=True)
    monkeypatch.setenv("HAVERSACK_CONTENT", request.param)
    try:
        made = content.prepare(job / "content", job / "home")
    except JobError:
        pytest.skip(f"{request.param} does not work on this machine")
    yield made
    made.release()


def provide(job: Path, tree: Path, private: ContentFolder) -> tuple[environment.Environment, ContentFolder]:
    return environment.provide(job, tree, private, tree.with_name("cache"), pytest.fail)


def execute(content: ContentFolder, found: environment.Environment, code: str) -> str:
    """Run Python code as the kernel is run."""
    command = [*content.prefix, str(found.python), "-I", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def state(tree: Path) -> dict[str, str]:
    return {str(path): path.read_text() for path in [*(tree / PACKAGE.parent).rglob("*.py"), tree / "pyvenv.cfg"]}


def test_no_write_reaches_the_store_or_another_job(private: ContentFolder, tree: Path, tmp_path: Path) -> None:
    before = state(tree)
    names = sorted(path.name for path in tree.rglob("*"))
    found, mounted = provide(tmp_path / "job", tree, private)
    code = (
        "import thing, pathlib, shutil, sys\n"
        "here = pathlib.Path(thing.__file__)\n"
        "here.open('a').write('value = 2\\n')\n"  # in place: through a hard link it would reach the cache
        "(here.parent / 'more.py').write_text('')\n"
        "pathlib.Path(sys.prefix, 'pyvenv.cfg').unlink()\n"
        "shutil.rmtree(here.parent.parent / 'pip', ignore_errors=True)\n"
        "print(here.read_text().split(), sys.prefix)"
    )
    assert execute(mounted, found, code) == f"['value', '=', '1', 'value', '=', '2'] {tmp_path / 'job' / 'env'}"
    assert state(tree) == before
    assert sorted(path.name for path in tree.rglob("*")) == names
    assert (tmp_path / "cached" / "__init__.py").read_text() == "value = 1\n"
    (tmp_path / "second").mkdir()
    other, seen = provide(tmp_path / "second", tree, private)
    assert execute(seen, other, "import thing; print(thing.value)") == "1"


def test_what_a_job_changed_is_there_for_its_other_processes(
    private: ContentFolder, tree: Path, tmp_path: Path
) -> None:
    found, mounted = provide(tmp_path / "job", tree, private)
    code = (
        "import thing, subprocess, sys\n"
        "open(thing.__file__, 'a').write('value = 2\\n')\n"
        "print(subprocess.run([sys.executable, '-c', 'import thing; print(thing.value)'], capture_output=True).stdout)"
    )
    assert execute(mounted, found, code) == r"b'2\n'"


def test_only_a_mounted_content_has_an_overlay_and_a_copy_tells_its_time(
    private: ContentFolder, tree: Path, tmp_path: Path
) -> None:
    found, mounted = provide(tmp_path / "job", tree, private)
    is_overlay = mounted is not private
    assert (found.copied == 0) == is_overlay
    assert (tmp_path / "job" / "overlay").exists() == is_overlay
    if private.kind in ("folder", "literals"):
        assert not is_overlay


def test_the_folders_of_a_session_can_be_deleted(private: ContentFolder, tree: Path, tmp_path: Path) -> None:
    from haversack import disk

    found, mounted = provide(tmp_path / "job", tree, private)
    execute(mounted, found, "import thing, os; os.unlink(thing.__file__)")
    for name in environment.FOLDERS:
        if (tmp_path / "job" / name).exists():
            disk.delete_tree(tmp_path / "job" / name)
    provide(tmp_path / "job", tree, private)


def test_a_path_that_an_overlay_cannot_name_is_copied(tree: Path, tmp_path: Path) -> None:
    made = ContentFolder("namespace", tmp_path, tmp_path)
    assert made.with_overlay(tmp_path / "a,b", tmp_path / "own", tmp_path / "env") is None
    assert made.with_overlay(tmp_path / "a:b", tmp_path / "own", tmp_path / "env") is None


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounts a small file system")
def test_a_copy_that_does_not_fit_is_a_full_disk_and_leaves_nothing(tree: Path, tmp_path: Path) -> None:
    (tree / "large").write_bytes(os.urandom(5_000_000))
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", small], check=True)
    try:
        with pytest.raises(DiskFull):
            provide(small, tree, ContentFolder("literals", small, small))
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_packages_that_a_cell_installs_are_no_hard_links_to_the_cache(tmp_path: Path) -> None:
    assert environment.Environment(tmp_path, tmp_path, Path("lib")).variables(tmp_path)["UV_LINK_MODE"] == "copy"


def test_a_sandbox_has_the_view_too_and_nothing_else_of_the_users(
    private: ContentFolder, tree: Path, tmp_path: Path
) -> None:
    try:
        sandbox.check()
    except JobError as error:
        pytest.skip(str(error))
    (tmp_path / "sockets").mkdir()
    (tmp_path / "letter").write_text("dear")
    before = state(tree)
    found, mounted = provide(tmp_path / "job", tree, private)
    isolated = sandbox.isolated(mounted, tmp_path / "job", found, tree, tmp_path / "sockets")
    code = (
        "import os, pathlib, thing\n"
        "pathlib.Path(thing.__file__).open('a').write('value = 2\\n')\n"
        "pathlib.Path('made').write_text('x')\n"
        f"print(thing.value, os.getcwd(), os.path.exists({str(tmp_path / 'letter')!r}), os.path.exists({str(tree)!r}))"
    )
    assert execute(isolated, found, code) == f"1 {private.path} False False"
    assert (tmp_path / "job" / "content" / "made").exists()
    assert state(tree) == before
