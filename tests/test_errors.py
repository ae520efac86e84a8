from __future__ import annotations

import errno
import inspect

import pytest

from haversack import errors

CLASSES = [value for _, value in inspect.getmembers(errors, inspect.isclass) if value.__module__ == errors.__name__]
PUBLIC = [value for value in CLASSES if not value.__name__.startswith("_")]


def test_all_names_every_class() -> None:
    assert sorted(errors.__all__) == sorted(value.__name__ for value in PUBLIC)


@pytest.mark.parametrize("error", PUBLIC)
def test_the_docstring_is_the_tree(error: type[Exception]) -> None:
    tree = errors.__doc__ or ""
    line = next(line for line in tree.splitlines() if line.strip("│├└─ ").split(" ")[0] == error.__name__)
    for outside in (ValueError, PermissionError, ConnectionError, FileNotFoundError, FileExistsError, ImportError):
        if f"({outside.__name__})" in line:
            assert issubclass(error, outside)


@pytest.mark.parametrize("error", PUBLIC)
def test_a_message_is_what_happened_then_what_to_do(error: type[errors.HaversackError]) -> None:
    assert str(error("The disk is full.", "Free some space.")) == "The disk is full. Free some space."


def test_a_system_error_carries_its_errno() -> None:
    assert errors.DiskFull("Full.").errno == errno.ENOSPC
    assert errors.QuotaExceeded("Full.", status=403).errno == errno.EDQUOT
    assert isinstance(errors.NotFound("Gone."), FileNotFoundError)


def test_bad_input_has_its_own_exit_status() -> None:
    assert errors.NotebookInvalid("No.").exit_code == 2
    assert errors.MountError("No.").exit_code == 1
