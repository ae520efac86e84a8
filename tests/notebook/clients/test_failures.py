"""Errors that cross from one process to another arrive as themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from haversack import errors
from haversack.errors import HaversackError, RemoteError
from haversack.notebook.clients import failures


def crossed(error: Exception) -> Exception:
    return failures.decode(json.loads(json.dumps(failures.encode(error))))


@pytest.mark.parametrize("name", errors.__all__)
def test_each_error_of_ours_keeps_its_class_and_its_sentences(name: str) -> None:
    kind = getattr(errors, name)
    arrived = crossed(kind("It happened.", "Do this."))
    assert type(arrived) is kind
    assert isinstance(arrived, HaversackError)
    assert (arrived.what, arrived.next_step) == ("It happened.", "Do this.")


def test_an_answer_of_a_server_keeps_its_status_and_reason() -> None:
    arrived = crossed(errors.RateLimited("Too often.", status=403, reason="rateLimitExceeded"))
    assert isinstance(arrived, RemoteError)
    assert (arrived.status, arrived.reason) == (403, "rateLimitExceeded")


def test_an_error_of_the_system_keeps_its_number_and_file() -> None:
    with pytest.raises(FileNotFoundError) as raised:
        Path("/nowhere/at/all").read_text()
    arrived = crossed(raised.value)
    assert type(arrived) is FileNotFoundError
    assert (arrived.errno, arrived.filename) == (raised.value.errno, "/nowhere/at/all")


@pytest.mark.parametrize("error", [ValueError("mount failed: x"), FileExistsError("a.txt"), PermissionError("no")])
def test_builtin_errors_with_a_message_alone_arrive_too(error: Exception) -> None:
    arrived = crossed(error)
    assert (type(arrived), str(arrived)) == (type(error), str(error))


def test_any_other_error_becomes_a_sentence_that_names_it() -> None:
    arrived = crossed(ZeroDivisionError("division by zero"))
    assert type(arrived) is HaversackError
    assert "ZeroDivisionError: division by zero" in str(arrived)
