"""Who is signed in to the page: a cookie that scripts cannot read, and a key that other servers never get.

A cookie goes to every port of a host, so any server on this machine that the user visits is sent it, and a page of that
server counts as the same site. The cookie alone therefore opens nothing: each call also carries, in a header, the key
that was given to the page at sign-in. The page keeps it in its origin's own storage, which ends at the port; no foreign
page can set the header, so the key guards against forged calls too.

Sessions are in memory: they end with the hub.
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
_MOST = 1000


@dataclass(frozen=True)
class HubSession:
    """`cookie` and `key` are secrets; `ends` on the monotonic clock."""

    cookie: str
    key: str
    ends: float

    def __repr__(self) -> str:
        return "Session(…)"


class HubSessions:
    """The sessions of one hub's page."""

    def __init__(self) -> None:
        # By a hash of the cookie, so that a lookup's time tells nothing of the cookies there are.
        self._open: dict[bytes, HubSession] = {}
        self._code: tuple[str, float] | None = None

    def open(self) -> HubSession:
        """A new session; of very many, the oldest ends."""
        session = HubSession(secrets.token_urlsafe(24), secrets.token_urlsafe(24), time.monotonic() + LIFETIME)
        while len(self._open) >= _MOST:
            del self._open[next(iter(self._open))]
        self._open[_hashed(session.cookie)] = session
        return session

    def has(self, cookie: str, key: str) -> bool:
        """Whether both belong to one session that has not ended."""
        session = self._open.get(_hashed(cookie))
        if session is None:
            return False
        if session.ends < time.monotonic():
            self.end(cookie)
            return False
        return hmac.compare_digest(session.key.encode(), key.encode(errors="replace"))

    def end(self, cookie: str) -> None:
        self._open.pop(_hashed(cookie), None)

    def new_code(self) -> str:
        """A code that signs in once, within a quarter of an hour, in place of the token; the one before it is void."""
        code = secrets.token_urlsafe(24)
        self._code = (code, time.monotonic() + _CODE_LIFETIME)
        return code

    def redeem(self, code: str) -> bool:
        """Whether this is the code; from then on it is void."""
        if self._code is None or not hmac.compare_digest(self._code[0].encode(), code.encode(errors="replace")):
            return False
        ends, self._code = self._code[1], None
        return time.monotonic() <= ends


def _hashed(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode(errors="replace")).digest()
