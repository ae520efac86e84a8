"""The stored sign-ins of `haversack login`: one file in the data folder, readable by its user only.

It holds the credentials for Google and Kaggle, a token for each hub, and the default drive: the one of the last login.
It is written by atomic replace, under a file lock.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from haversack import disk, settings
from haversack.errors import SignInError


@dataclass
class SignIns:
    """The stored sign-ins.

    Attributes:
        drive: the default drive: "google", a hub's URL, or None.
        google: a record of the way in, as described in `google`; None if not signed in.
        hubs: hub's URL → its token.
        kaggle: `user`, and `token` or `key`; None if not signed in.
    """

    drive: str | None = None
    google: dict[str, Any] | None = field(default=None, repr=False)
    hubs: dict[str, str] = field(default_factory=dict, repr=False)
    kaggle: dict[str, str] | None = field(default=None, repr=False)

    def secrets(self) -> tuple[str, ...]:
        """All stored tokens and keys, to be masked wherever they appear."""
        own = (self.google or {}).get("credentials") or {}
        found = [own.get(name) for name in ("refresh_token", "client_secret", "token")]
        found += [(self.kaggle or {}).get(name) for name in ("token", "key")]
        return tuple(str(secret) for secret in (*found, *self.hubs.values()) if secret)


def path() -> Path:
    """The path of the file of the stored sign-ins, `signin.json` in the data folder; it need not exist."""
    return settings.load().data / "signin.json"


def load() -> SignIns:
    """Read the stored sign-ins; empty ones if there is no file. Raises `SignInError` for an unreadable file."""
    file = path()
    try:
        return SignIns(**json.loads(file.read_text()))
    except FileNotFoundError:
        return SignIns()
    except (ValueError, TypeError, OSError) as error:
        raise SignInError(f"{file} cannot be read.", "Delete it and sign in again: haversack login") from error


@contextmanager
def changing() -> Iterator[SignIns]:
    """Yield the stored sign-ins, to be changed in the block under the file lock; then write them, unless it raises.

    Raises `SignInError` if the file cannot be read, `OSError` if it cannot be written, and `TimeoutError` if another
    process holds the lock for 30 s.
    """
    from filelock import FileLock

    file = path()
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(file.with_suffix(".lock"), timeout=30):
        kept = load()
        yield kept
        disk.write(file, json.dumps(asdict(kept)), private=True)
