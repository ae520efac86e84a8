"""What signs in to the hub: its token, the Kaggle key that follows from it, and signed links to stored bytes.

The key and the signatures are HMACs of the token, so they stay the same over restarts, and neither gives the token
away. Kaggle's clients write their key into files and logs; it opens the Kaggle part only.
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
    """Checks credentials in constant time."""

    def __init__(self, token: str) -> None:
        self._token = token
        self.kaggle_key = self._derive("kaggle key").hex()[:32]
        self._link_key = self._derive("storage links")

    def __repr__(self) -> str:
        return "SignIn(…)"

    def is_token(self, token: str) -> bool:
        return _same(token, self._token)

    def opens_drive(self, authorization: str | None) -> bool:
        """Whether the value of an Authorization header is the hub's bearer token."""
        scheme, _, value = (authorization or "").partition(" ")
        return scheme.lower() == "bearer" and self.is_token(value.strip())

    def opens_kaggle(self, authorization: str) -> bool:
        """Whether it is the bearer token, or Kaggle's user and key as Basic."""
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() != "basic":
            return self.opens_drive(authorization)
        try:
            login = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return False
        return _same(login, f"{KAGGLE_USERNAME}:{self.kaggle_key}")

    def sign(self, path: str) -> str:
        """The query of a link to `path` that needs no header and expires."""
        # On the full hour: a link that is asked for again is the same one, and a browser knows what it fetched.
        expires = str((int(time.time()) // 3600 + 1) * 3600 + LINK_LIFETIME)
        return f"expires={expires}&signature={self._signature(path, expires)}"

    def is_signed(self, path: str, expires: str, signature: str) -> bool:
        if not _same(signature, self._signature(path, expires)):
            return False
        return int(expires) >= time.time()

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self._link_key, f"{expires} {path}".encode(), hashlib.sha256).hexdigest()

    def _derive(self, purpose: str) -> bytes:
        return hmac.new(self._token.encode(), f"haversack {purpose}".encode(), hashlib.sha256).digest()


def _same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), right.encode())
