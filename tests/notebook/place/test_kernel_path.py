"""What of haversack a kernel can import from the folder that is last on its path."""

from __future__ import annotations

import importlib.metadata
import subprocess
from pathlib import Path

import pytest

import haversack
from haversack.notebook.place import kernel_path
from haversack.packages.pip_settings import UvSettings


@pytest.fixture
def bare(bare_environment: Path) -> Path:
    return bare_environment


def test_it_has_links_to_the_packages_of_this_process(bare: Path, tmp_path: Path) -> None:
    assert kernel_path.make(tmp_path / "path", bare, tmp_path / "cache") == ""
    names = sorted(entry.name for entry in (tmp_path / "path").iterdir())
    assert names == sorted(["haversack", *kernel_path.PACKAGES])
    assert (tmp_path / "path" / "haversack").resolve() == Path(haversack.__file__).parent
    assert not (tmp_path / "cache").exists()


def test_another_pythons_packages_are_installed_once_in_our_versions(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uv_cache: Path
) -> None:
    monkeypatch.setattr(kernel_path, "_OWN_TAG", "python3.10")
    for name in ("one", "two"):
        assert kernel_path.make(tmp_path / name, bare, tmp_path / "cache") == ""
        monkeypatch.setenv("PATH", "")  # the second finds what the first installed, and starts no uv
        monkeypatch.setattr(kernel_path, "_install", None)
    versions = "import fsspec, xxhash; print(fsspec.__version__, xxhash.VERSION, fsspec.__file__)"
    done = subprocess.run(
        [bare / "bin" / "python", "-c", versions], env={"PYTHONPATH": str(tmp_path / "two")}, capture_output=True
    )
    shown = done.stdout.decode().split()
    assert shown[:2] == [importlib.metadata.version(name) for name in kernel_path.PACKAGES]
    assert shown[2] == f"{tmp_path}/two/fsspec/__init__.py"


def test_without_them_the_kernel_still_has_haversack_and_the_user_is_told(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uv_cache: Path
) -> None:
    monkeypatch.setattr(kernel_path, "_OWN_TAG", "python3.10")
    settings = UvSettings(arguments=("--no-index", "--no-cache"))
    notice = kernel_path.make(tmp_path / "path", bare, tmp_path / "cache", settings)
    assert notice.startswith("Trainings of this notebook do not resume: fsspec==")
    assert [entry.name for entry in (tmp_path / "path").iterdir()] == ["haversack"]
    assert list((tmp_path / "cache").rglob("fsspec")) == []


def test_it_comes_after_the_environments_own_packages(bare: Path, tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    kernel_path.add(tmp_path / "path", packages)
    assert [file.read_text() for file in packages.iterdir()] == [f"{tmp_path}/path\n"]
    code = f"import site, sys; site.addsitedir({str(packages)!r}); print(sys.path[-2:])"
    (tmp_path / "path").mkdir()
    done = subprocess.run([bare / "bin" / "python", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{[str(packages), str(tmp_path / 'path')]}\n"
