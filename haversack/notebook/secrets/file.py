"""The secrets a user keeps for notebooks: `HAVERSACK_SECRET_<KEY>` in the environment, and the file `secrets.toml`.

The file lies beside `settings.toml`; a job has a HOME of its own, so `HAVERSACK_SECRETS` tells it where the file is.
It is read again at each use and never written.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import platformdirs

from haversack.errors import InputError

_PREFIX = "HAVERSACK_SECRET_"


def path() -> Path:
    """Where the file is looked for."""
    named = os.environ.get("HAVERSACK_SECRETS")
    return Path(named) if named else platformdirs.user_config_path("haversack") / "secrets.toml"


def value(key: str) -> str | None:
    """The secret named `key`; None where there is none. Raises like `stored`."""
    for name in (_PREFIX + key, _PREFIX + key.upper()):
        if name in os.environ:
            return os.environ[name]
    return stored().get(key)


def known() -> list[str]:
    """Every value that is set, in the environment and in the file."""
    values = [value for name, value in os.environ.items() if name.startswith(_PREFIX)]
    return values + list(stored().values())


def stored() -> dict[str, str]:
    """The file's secrets, empty without a file.

    Raises `PermissionError` when others than its owner may read it, `InputError` when it is not TOML.
    """
    file = path()
    try:
        if file.stat().st_mode & 0o077:
            raise PermissionError(f"Others may read {file}. Close it with: chmod 600 {file}")
        secrets = tomllib.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        # The parser's message may quote a secret.
        raise InputError(f"{file} is not TOML.", 'Write one KEY = "value" to a line.') from None
    return {key: str(secret) for key, secret in secrets.items()}
