"""Changes to the secrets file: `haversack secrets set` and `rm`. Runs in no kernel.

A line is written or removed, and the file's other lines and comments stay as they are. A write is atomic, under a file
lock.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock

from haversack import disk
from haversack.errors import InputError
from haversack.notebook.secrets import file

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")  # https://toml.io/en/v1.0.0#keys
_EDIT = "Edit it by hand."


def store(key: str, secret: str) -> None:
    """Write the secret named `key` to the file, in place of one of that name.

    Raises `InputError` for an empty key or secret, a key with control characters, and a file that cannot be changed
    line by line; what `file.stored` raises; `OSError`; and `TimeoutError` if another process changes the file for 30 s.
    """
    if not key.isprintable() or not key.strip():
        raise InputError(f"{key!r} is not a name for a secret.", "Name it with letters, digits and _.")
    if not secret:
        raise InputError(f"The secret {key} is empty.", f"To remove it: haversack secrets rm {key}")
    with _changing() as text:
        _write(_with_line(text, key, f"{_key(key)} = {_string(secret)}\n", {**file.parsed(text), key: secret}))


def remove(key: str) -> None:
    """Remove the secret named `key` from the file.

    Raises `InputError` if it is not there or the file cannot be changed line by line, and what `store` raises.
    """
    with _changing() as text:
        remaining = file.parsed(text)
        if remaining.pop(key, None) is None:
            raise InputError(f"There is no secret {key} in {file.path()}.", "List them: haversack secrets ls")
        _write(_with_line(text, key, "", remaining))


@contextmanager
def _changing() -> Iterator[str]:
    """Yield the file's text, to be changed in the block under a file lock."""
    at = file.path()
    at.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(at.with_name(f".{at.name}.lock"), timeout=30):
        yield file.text()


def _write(text: str) -> None:
    disk.write(file.path().resolve(), text, private=True)  # a symbolic link stays one


def _with_line(text: str, key: str, line: str, expected: dict[str, object]) -> str:
    """Return `text` with `line` in place of the definition of `key`, or as a new one if it has none; "" removes it.

    A definition may take several lines. The result is parsed: it has to be `expected`, else `InputError` is raised.
    """
    lines = [one if one.endswith("\n") else f"{one}\n" for one in text.splitlines(keepends=True)]
    count = len(lines)
    # A new one stands last, or first, because what stands below a [table] belongs to it.
    places = [(count, count), (0, 0)]
    if key in file.parsed(text):
        starts = [number for number, one in enumerate(lines) if _defines(one, key)]
        places = [(start, end) for start in starts for end in range(start + 1, count + 1)]
    for start, end in places:
        changed = "".join([*lines[:start], line, *lines[end:]])
        try:
            if tomllib.loads(changed) == expected:
                return changed
        except tomllib.TOMLDecodeError:
            continue  # the definition goes on
    raise InputError(f"{key} in {file.path()} cannot be changed here.", _EDIT)


def _defines(line: str, key: str) -> bool:
    """Whether `line` may begin the definition of `key`."""
    name = line.partition("=")[0].strip()
    return name in (key, _string(key), f"'{key}'")


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _string(key)


def _string(text: str) -> str:
    """`text` as a TOML string. JSON escapes all that TOML does, except one character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
