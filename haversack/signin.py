"""The sign-ins that `haversack login` keeps: one file in the data folder, readable by its owner alone.

It holds what signs in to Google and to Kaggle, a token for each hub, and which drive is meant when none is named: the
one that was signed in to last. Writing is complete or absent, and one process at a time.
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
    """What is kept. `drive` is "google", a hub's URL or None; `google` says where its sign-in comes from, and holds it
    when it is haversack's own; `hubs` are tokens by URL; `kaggle` has a `token` or a `key`, and whose it is (`user`).
    """

    drive: str | None = None
    google: dict[str, Any] | None = field(default=None, repr=False)
    hubs: dict[str, str] = field(default_factory=dict, repr=False)
    kaggle: dict[str, str] | None = field(default=None, repr=False)

    def secrets(self) -> tuple[str, ...]:
        """What must never be shown."""
        own = (self.google or {}).get("credentials") or {}
        found = [own.get(name) for name in ("refresh_token", "client_secret", "token")]
        found += [(self.kaggle or {}).get(name) for name in ("token", "key")]
        return tuple(str(secret) for secret in (*found, *self.hubs.values()) if secret)


def path() -> Path:
    return settings.load().data / "signin.json"


def load() -> SignIns:
    """What is kept now. Raises `SignInError` for a file that cannot be read."""
    file = path()
    try:
        return SignIns(**json.loads(file.read_text()))
    except FileNotFoundError:
        return SignIns()
    except (ValueError, TypeError, OSError) as error:
        raise SignInError(f"{file} cannot be read.", "Remove it and sign in anew: haversack login") from error


@contextmanager
def changing() -> Iterator[SignIns]:
    """What is kept, to be changed; it is written when the block ends well."""
    from filelock import FileLock

    file = path()
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(file.with_suffix(".lock"), timeout=30):
        kept = load()
        yield kept
        disk.write(file, json.dumps(asdict(kept)), private=True)
