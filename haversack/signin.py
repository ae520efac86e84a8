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
        google: the way in (`with`) and, for haversack's own OAuth client, its `credentials`; see `google.opened`.
        hubs: tokens by URL.
        kaggle: `token` or `key`, and `user`.
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
    """The file of the stored sign-ins, which need not exist."""
    return settings.load().data / "signin.json"


def load() -> SignIns:
    """Read the stored sign-ins; empty if there is no file. Raises `SignInError` for a file that cannot be read."""
    file = path()
    try:
        return SignIns(**json.loads(file.read_text()))
    except FileNotFoundError:
        return SignIns()
    except (ValueError, TypeError, OSError) as error:
        raise SignInError(f"{file} cannot be read.", "Delete it and sign in again: haversack login") from error


@contextmanager
def changing() -> Iterator[SignIns]:
    """Yield the stored sign-ins under the file lock; write them if the block does not raise.

    Raises `SignInError` for a file that cannot be read.
    """
    from filelock import FileLock

    file = path()
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(file.with_suffix(".lock"), timeout=30):
        kept = load()
        yield kept
        disk.write(file, json.dumps(asdict(kept)), private=True)
