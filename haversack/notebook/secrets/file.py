"""The user's secrets for notebooks: `HAVERSACK_SECRET_<KEY>` in the environment, then the file `secrets.toml`.

Used in both processes: the kernel reads the secrets, the parent masks them; `haversack secrets` changes them. The file
has one `KEY = "value"` to a line, lies beside `settings.toml` in haversack's configuration folder, and must be readable
by its owner only. A job has another HOME, so the parent passes the file's path in `HAVERSACK_SECRETS`. The file is read
at each use. It may also be written by hand: a change keeps its other lines and comments as they are.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from haversack import disk, settings
from haversack.errors import InputError

_PREFIX = "HAVERSACK_SECRET_"
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")  # https://toml.io/en/v1.0.0#keys
_EDIT = "Edit it by hand."


def path() -> Path:
    """Return the path of the secrets file, which may not exist."""
    named = os.environ.get("HAVERSACK_SECRETS")
    return Path(named) if named else settings.folder() / "secrets.toml"


def value(key: str) -> str | None:
    """Return the secret named `key`; None if there is none.

    The order is `HAVERSACK_SECRET_<key>`, then the same with the key in upper case, then the file. Raises
    `PermissionError` if other users may read the file, and `InputError` if it is not TOML.
    """
    for name in (_PREFIX + key, _PREFIX + key.upper()):
        if name in os.environ:
            return os.environ[name]
    return stored().get(key)


def known() -> list[str]:
    """Return all secret values of the environment variables `HAVERSACK_SECRET_…` and of the file, to be masked.

    Raises `PermissionError` if other users may read the file, and `InputError` if it is not TOML.
    """
    values = [value for name, value in os.environ.items() if name.startswith(_PREFIX)]
    return values + list(stored().values())


def stored() -> dict[str, str]:
    """Return the file's secrets as key → value; {} if there is no file.

    Raises `PermissionError` if other users may read the file, and `InputError` if it is not TOML.
    """
    return {key: str(secret) for key, secret in _parsed(_text()).items()}


def store(key: str, secret: str) -> None:
    """Write the secret named `key` to the file, in place of one of that name.

    Raises `InputError` for an empty key or secret, a key with control characters, and a file that cannot be changed
    line by line; what `stored` raises; `OSError`; and `TimeoutError` if another process is changing the file for 30 s.
    """
    if not key.isprintable() or not key.strip():
        raise InputError(f"{key!r} is not a name for a secret.", "Name it with letters, digits and _.")
    if not secret:
        raise InputError(f"The secret {key} is empty.", f"To remove it: haversack secrets rm {key}")
    with _changing() as text:
        _write(_with_line(text, key, f"{_key(key)} = {_string(secret)}\n", {**_parsed(text), key: secret}))


def remove(key: str) -> None:
    """Remove the secret named `key` from the file.

    Raises `InputError` if it is not there or the file cannot be changed line by line, and what `store` raises.
    """
    with _changing() as text:
        remaining = _parsed(text)
        if remaining.pop(key, None) is None:
            raise InputError(f"There is no secret {key} in {path()}.", "List them: haversack secrets ls")
        _write(_with_line(text, key, "", remaining))


def _text() -> str:
    """Return the file's text; "" if there is no file. Raises `PermissionError` if other users may read it."""
    file = path()
    try:
        if file.stat().st_mode & 0o077:
            raise PermissionError(f"Other users may read {file}. Make it private: chmod 600 {file}")
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise _not_toml() from None


def _parsed(text: str) -> dict[str, object]:
    """Parse the file's text. Raises `InputError`; the parser's message is left out, because it may quote a secret."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise _not_toml() from None


def _not_toml() -> InputError:
    return InputError(f"{path()} is not TOML.", 'Write one KEY = "value" on each line.')


@contextmanager
def _changing() -> Iterator[str]:
    """Yield the file's text, to be changed in the block under a file lock."""
    from filelock import FileLock

    file = path()
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(file.with_name(f".{file.name}.lock"), timeout=30):
        yield _text()


def _write(text: str) -> None:
    disk.write(path().resolve(), text, private=True)  # a symbolic link stays one


def _with_line(text: str, key: str, line: str, expected: dict[str, object]) -> str:
    """Return `text` with `line` in place of the definition of `key`, or as a new one if it has none; "" removes it.

    A definition may take several lines. The result is parsed: it has to be `expected`, else `InputError` is raised.
    """
    lines = [one if one.endswith("\n") else f"{one}\n" for one in text.splitlines(keepends=True)]
    count = len(lines)
    # A new one stands last, or first, because what stands below a [table] belongs to it.
    places = [(count, count), (0, 0)]
    if key in _parsed(text):
        starts = [number for number, one in enumerate(lines) if _defines(one, key)]
        places = [(start, end) for start in starts for end in range(start + 1, count + 1)]
    for start, end in places:
        changed = "".join([*lines[:start], line, *lines[end:]])
        try:
            if tomllib.loads(changed) == expected:
                return changed
        except tomllib.TOMLDecodeError:
            continue  # the definition goes on
    raise InputError(f"{key} in {path()} cannot be changed here.", _EDIT)


def _defines(line: str, key: str) -> bool:
    """Whether `line` may begin the definition of `key`."""
    name = line.partition("=")[0].strip()
    return name in (key, _string(key), f"'{key}'")


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _string(key)


def _string(text: str) -> str:
    """`text` as a TOML string. JSON escapes all that TOML does, except one character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
