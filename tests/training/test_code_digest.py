"""The digest of a function: what changes it, and what does not."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from haversack.training import code_digest

SOURCE = """
RATE, NAMES, FOLDER, COUNT = 2, ["a"], "/tmp/one", 0
def helper(x):
    return x + RATE
def function(x, *, by={"left", "right", "up"} and 1):
    return helper(x) * by in {"left", "right", "up"} or FOLDER or NAMES or COUNT
class Layer:
    def call(self, x):
        return self.inner(x)
    def inner(self, x):
        return x
    def unused(self, x):
        return x
"""


def digests(source: str) -> list[str]:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, "<cell>", "exec"), namespace)
    return [code_digest.of(namespace["function"]), code_digest.of(namespace["Layer"].call, namespace["Layer"])]


@pytest.mark.parametrize(
    ("old", "new"),
    [("x + RATE", "x - RATE"), (") * by", ") / by"), ("and 1", "and 2")],
)
def test_what_the_function_computes_changes_it(old: str, new: str) -> None:
    before, after = digests(SOURCE), digests(SOURCE.replace(old, new))
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_a_global_that_it_reads_changes_it() -> None:
    assert digests(SOURCE)[0] != digests(SOURCE.replace("= 2, [", "= 3, ["))[0]


def test_a_method_that_it_calls_changes_it() -> None:
    other = SOURCE.replace("def inner(self, x):\n        return x", "def inner(self, x):\n        return -x")
    assert digests(SOURCE)[1] != digests(other)[1]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\ndef helper", "\n\n# Another line.\ndef helper"),
        ("return helper", "'''A docstring.'''\n    return helper"),
        ('["a"]', '["b"]'),
        ("/tmp/one", "/tmp/two"),
        ("def unused(self, x):\n        return x", "def unused(self, x):\n        return -x"),
    ],
)
def test_what_it_does_not_depend_on_does_not(old: str, new: str) -> None:
    assert digests(SOURCE) == digests(SOURCE.replace(old, new))


def test_it_is_the_same_in_each_process() -> None:
    code = f"import tests.training.test_code_digest as test; print(test.digests({SOURCE!r}))"
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parents[2],
            env={"PYTHONHASHSEED": str(seed)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2)
    }
    assert printed == {f"{digests(SOURCE)}\n"}


def scaled(by: int) -> Callable[[int], int]:
    return lambda x: x * by


def test_closures_and_partials_count() -> None:
    assert code_digest.of(scaled(2)) == code_digest.of(scaled(2))
    assert code_digest.of(scaled(2)) != code_digest.of(scaled(3))
    assert code_digest.of(functools.partial(max, 1)) != code_digest.of(functools.partial(max, 2))


def test_running_a_function_does_not_change_it() -> None:
    function = scaled(2)
    before = code_digest.of(function)
    for number in range(10_000):
        function(number)
    assert code_digest.of(function) == before


def test_the_users_code_is_told_from_libraries() -> None:
    assert code_digest.is_own(scaled(2))
    assert not code_digest.is_own(subprocess.run)
    assert not code_digest.is_own(pytest.raises)
    assert not code_digest.is_own(code_digest.of)
    assert not code_digest.is_own(len)
