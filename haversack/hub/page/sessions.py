"""The sessions of the web page: each has a cookie that scripts cannot read and a key that other servers never get.

Browsers send a cookie to every port of a host, so any server on this machine that the user visits receives it, and that
server's pages count as the same site. The cookie alone therefore opens nothing: each call also carries, in a header,
the key that the page got at sign-in. The page keeps the key in its origin's storage, which is separate for each port.
Pages of other origins cannot set the header, so the key also protects against cross-site request forgery.

Sessions are in memory and end with the hub.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass

LIFETIME = 12 * 3600
"""Seconds from sign-in until the token is asked for again."""
_CODE_LIFETIME = 15 * 60
_MAX_SESSIONS = 1000


@dataclass(frozen=True)
class HubSession:
    """A session: its secret `cookie` and `key`, and when it expires (monotonic clock, seconds)."""

    cookie: str
    key: str
    expires: float

    def __repr__(self) -> str:
        return "HubSession(…)"


class HubSessions:
    """The signed-in sessions of one hub's page, at most 1000, and the one-time code of its link. Event loop only."""

    def __init__(self) -> None:
        # By a hash of the cookie, so that the time of a lookup reveals nothing about existing cookies.
        self._open: dict[bytes, HubSession] = {}
        self._code: tuple[str, float] | None = None

    def open(self) -> HubSession:
        """Open a session that lasts 12 hours and return it; with 1000 open ones, the oldest is deleted."""
        session = HubSession(secrets.token_urlsafe(24), secrets.token_urlsafe(24), time.monotonic() + LIFETIME)
        while len(self._open) >= _MAX_SESSIONS:
            del self._open[next(iter(self._open))]
        self._open[_hash(session.cookie)] = session
        return session

    def has(self, cookie: str, key: str) -> bool:
        """Whether `cookie` and `key` belong to one session that has not expired; an expired one is deleted."""
        session = self._open.get(_hash(cookie))
        if session is None:
            return False
        if session.expires < time.monotonic():
            self.end(cookie)
            return False
        return hmac.compare_digest(session.key.encode(), key.encode(errors="replace"))

    def end(self, cookie: str) -> None:
        """Delete the session that has this cookie, if it exists."""
        self._open.pop(_hash(cookie), None)

    def new_code(self) -> str:
        """Return a secret code that signs in once within 15 minutes, in place of the token; older codes end."""
        code = secrets.token_urlsafe(24)
        self._code = (code, time.monotonic() + _CODE_LIFETIME)
        return code

    def redeem(self, code: str) -> bool:
        """Use up `code`, and return whether it was the current one-time code and had not expired."""
        if self._code is None or not hmac.compare_digest(self._code[0].encode(), code.encode(errors="replace")):
            return False
        expires, self._code = self._code[1], None
        return time.monotonic() <= expires


def _hash(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode(errors="replace")).digest()
