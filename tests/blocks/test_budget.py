"""The room that a cache takes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from haversack.blocks.budget import Budget


def fill(folder: Path, names: list[str], size: int = 100_000) -> None:
    """Files used one after the other, the first one longest ago."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(os.urandom(size))
        os.utime(path, (1e9 + number, 1e9 + number))


def there(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.glob("*/*"))


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    fill(tmp_path, ["a/one", "b/two", "a/three"])
    Budget(tmp_path, 260_000).evict()
    assert there(tmp_path) == ["a/three", "b/two"]


def test_the_files_of_one_entry_go_together(tmp_path: Path) -> None:
    fill(tmp_path, ["a/one.part", "a/one.journal", "a/two"])
    Budget(tmp_path, 150_000).evict()
    assert there(tmp_path) == ["a/two"]


def test_nothing_goes_within_the_budget(tmp_path: Path) -> None:
    fill(tmp_path, ["a/one", "b/two"])
    Budget(tmp_path, 1_000_000).evict()
    assert there(tmp_path) == ["a/one", "b/two"]


def test_a_file_that_cannot_be_deleted_goes_on_counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, ["a/stuck", "b/two", "a/three"])
    delete = os.unlink

    def refuse(path: str) -> None:
        if path.endswith("stuck"):
            raise PermissionError(errno.EPERM, "Operation not permitted", path)
        delete(path)

    monkeypatch.setattr(os, "unlink", refuse)
    Budget(tmp_path, 260_000).evict()
    assert there(tmp_path) == ["a/stuck", "a/three"]
