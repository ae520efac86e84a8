"""The user's secrets for notebooks: `HAVERSACK_SECRET_<KEY>` in the environment, then the file `secrets.toml`.

Used in both processes: the kernel reads the secrets, the parent masks them. `change` writes the file, and users do by
hand. It has one `KEY = "value"` to a line, lies beside `settings.toml` in haversack's configuration folder, and must be
readable by its owner only. A job has another HOME, so the parent passes the file's path in `HAVERSACK_SECRETS`. The
file is read at each use.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from haversack import settings
from haversack.errors import InputError

_PREFIX = "HAVERSACK_SECRET_"


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
    return {key: str(secret) for key, secret in parsed(text()).items()}


def text() -> str:
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


def parsed(content: str) -> dict[str, object]:
    """Parse the file's text. Raises `InputError`; the parser's message is left out, because it may quote a secret."""
    try:
        return tomllib.loads(content)
    except tomllib.TOMLDecodeError:
        raise _not_toml() from None


def _not_toml() -> InputError:
    return InputError(f"{path()} is not TOML.", 'Write one KEY = "value" on each line.')
