"""Credentials of the hub: its token, the Kaggle key derived from it, and signed links.

The Kaggle key and the signatures are HMACs of the token: they stay valid over restarts and do not reveal the token.
Kaggle's clients write their key into files and logs, so the key opens the Kaggle API only.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time

KAGGLE_USERNAME = "haversack"
LINK_LIFETIME = 6 * 3600


class SignIn:
    """Checks what clients send against the hub's `token`: bearer tokens, Kaggle keys and signed links.

    Comparisons take constant time. `kaggle_key`, which the hub gives to Kaggle's clients, is derived from the token.
    """

    def __init__(self, token: str) -> None:
        self._token = token
        self.kaggle_key = self._derive("kaggle key").hex()[:32]
        self._link_key = self._derive("storage links")

    def __repr__(self) -> str:
        return "SignIn(…)"

    def is_token(self, token: str) -> bool:
        """Whether `token` is the hub's token."""
        return _same(token, self._token)

    def opens_drive(self, authorization: str | None) -> bool:
        """Whether the value of an Authorization header is the hub's bearer token."""
        scheme, _, value = (authorization or "").partition(" ")
        return scheme.lower() == "bearer" and self.is_token(value.strip())

    def opens_kaggle(self, authorization: str) -> bool:
        """Whether the value of an Authorization header is the bearer token, or Kaggle's user and key (Basic)."""
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() != "basic":
            return self.opens_drive(authorization)
        try:
            login = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return False
        return _same(login, f"{KAGGLE_USERNAME}:{self.kaggle_key}")

    def sign(self, path: str) -> str:
        """Return the query string (without `?`) that makes a signed link of `path`; it expires after 6 to 7 hours."""
        # Rounded up to the full hour, so that a link stays the same and browsers can cache its content.
        expires = str((int(time.time()) // 3600 + 1) * 3600 + LINK_LIFETIME)
        return f"expires={expires}&signature={self._signature(path, expires)}"

    def is_valid_link(self, path: str, expires: str, signature: str) -> bool:
        """Whether `signature` is that of `sign` for `path` and `expires` (Unix seconds), and that time is not past."""
        if not _same(signature, self._signature(path, expires)):
            return False
        return int(expires) >= time.time()

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self._link_key, f"{expires} {path}".encode(), hashlib.sha256).hexdigest()

    def _derive(self, purpose: str) -> bytes:
        return hmac.new(self._token.encode(), f"haversack {purpose}".encode(), hashlib.sha256).digest()


def _same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), right.encode())
