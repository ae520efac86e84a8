"""Paths below `/kaggle/input`: both forms lead to the same files, and a listing has each once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import pytest

from haversack.notebook.kaggle.attachment import AttachedInput
from haversack.notebook.kaggle.tree import InputFolder, InputTree


class Names:
    """`InputFiles` of which only the sizes are asked."""

    is_archive = True
    content = ""

    def __init__(self, sizes: dict[str, int]) -> None:
        self._sizes = sizes

    def sizes(self) -> Iterable[tuple[str, int]]:
        return self._sizes.items()

    def open(self, name: str) -> BinaryIO:
        raise NotImplementedError

    def read(self, name: str) -> bytes:
        raise NotImplementedError

    def prefetch(self, names: Sequence[str]) -> None:
        raise NotImplementedError

    def extract(self, folder: Path) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


CATS = AttachedInput("cats", "kaggle:ann/cats@1", "", 0.0), Names({"train.csv": 5, "deep/er/a.txt": 1, "deep/b.txt": 2})
LIONS = AttachedInput("lions", "kaggle:c/lions", "", 0.0), Names({"test.csv": 7})
LOCAL = AttachedInput("local", "/data/local", "", 0.0), Names({"x.csv": 9})


def listed(tree: InputTree, path: str) -> list[str]:
    found = tree.find(path)
    assert found is not None
    assert isinstance(found.entry, InputFolder)
    return sorted(found.entry.entries)


@pytest.mark.parametrize("newer", [False, True])
@pytest.mark.parametrize(
    ("path", "size", "number", "name"),
    [
        ("/cats/train.csv", 5, 0, "train.csv"),
        ("/datasets/ann/cats/deep/er/a.txt", 1, 0, "deep/er/a.txt"),
        ("/lions/test.csv", 7, 1, "test.csv"),
        ("/competitions/lions/test.csv", 7, 1, "test.csv"),
        ("/local/x.csv", 9, 2, "x.csv"),
    ],
)
def test_both_forms_lead_to_the_same_file(newer: bool, path: str, size: int, number: int, name: str) -> None:
    found = InputTree([CATS, LIONS, LOCAL], newer).find(path)
    assert found is not None
    assert (found.entry, found.number, found.name) == (size, number, name)


@pytest.mark.parametrize(
    "path", ["/nothing", "/cats/train.csv/more", "/datasets/bob/cats", "/cats/../lions", "/cats//x", "/train.csv"]
)
def test_other_paths_lead_nowhere(path: str) -> None:
    assert InputTree([CATS, LIONS, LOCAL]).find(path) is None


def test_the_older_form_is_listed_unless_the_notebook_uses_the_newer() -> None:
    assert listed(InputTree([CATS, LIONS, LOCAL]), "/") == ["cats", "lions", "local"]
    newer = InputTree([CATS, LIONS, LOCAL], newer=True)
    assert listed(newer, "/") == ["competitions", "datasets", "local"]
    assert listed(newer, "/datasets/ann") == ["cats"]
    assert listed(InputTree([CATS]), "/datasets/ann") == ["cats"]


def test_the_files_of_a_single_input_are_at_the_top_too() -> None:
    found = InputTree([CATS]).find("/deep/er/a.txt")
    assert found is not None
    assert (found.entry, found.number, found.name) == (1, 0, "deep/er/a.txt")
    assert listed(InputTree([CATS]), "/") == ["cats"]
    assert InputTree([CATS, LIONS]).find("/train.csv") is None


def test_folders_are_listed_with_what_is_in_them() -> None:
    tree = InputTree([CATS])
    assert listed(tree, "/cats") == ["deep", "train.csv"]
    assert listed(tree, "/cats/deep") == ["b.txt", "er"]


def test_a_name_that_is_a_file_and_a_folder_is_the_folder() -> None:
    for names in ({"a": 1, "a/b": 2}, {"a/b": 2, "a": 1}):
        assert listed(InputTree([(CATS[0], Names(names))]), "/cats/a") == ["b"]
