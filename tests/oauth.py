"""An OAuth server on loopback that signs in to the drive of a hub, as Google's does to its own.

It gives codes (PKCE, RFC 7636), short-lived tokens, new ones for refresh tokens and for service accounts' assertions,
and takes them back. Everything else is a drive: a call with a valid token goes on to the hub, any other is refused.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from google.auth import jwt

from tests.conftest import RunningHub

CLIENT = {"client_id": "client-1", "client_secret": "the-client-secret"}


@dataclass
class OAuth:
    """`life` is how long tokens live, in seconds; `grants` what each refresh token or service account may do."""

    hub: RunningHub
    url: str = ""
    life: float = 3600.0
    scope: str | None = None
    declines: bool = False
    certificate: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)
    refreshed: int = 0
    calls: int = 0
    grants: set[str] = field(default_factory=set)
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)
    _tokens: dict[str, float] = field(default_factory=dict)

    def client(self) -> dict[str, dict[str, str]]:
        """What a `client_secret.json` from the console says."""
        return {"installed": {**CLIENT, "auth_uri": f"{self.url}/auth", "token_uri": f"{self.url}/token"}}

    def grant(self) -> str:
        """A new refresh token."""
        self.grants.add(token := f"refresh-{secrets.token_hex(8)}")
        return token

    def token(self) -> dict[str, object]:
        """A new access token, as the token endpoint answers it."""
        access = f"access-{secrets.token_hex(8)}"
        self._tokens[access] = time.monotonic() + self.life
        return {"access_token": access, "expires_in": int(max(self.life, 1)), "token_type": "Bearer"}

    def expire(self) -> None:
        """No token that was given is valid any more."""
        self._tokens.clear()

    async def authorize(self, request: web.Request) -> web.StreamResponse:
        asked = dict(request.query)
        self.asked.append(asked)
        back = f"{asked['redirect_uri']}?state={asked['state']}"
        if self.declines:
            raise web.HTTPFound(f"{back}&error=access_denied")
        self._codes[code := secrets.token_hex(8)] = asked
        raise web.HTTPFound(f"{back}&code={code}&scope={asked['scope']}")

    async def exchange(self, request: web.Request) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        if form["grant_type"] == "authorization_code":
            asked = self._codes.pop(form["code"])
            digest = hashlib.sha256(form["code_verifier"].encode()).digest()
            assert base64.urlsafe_b64encode(digest).decode().rstrip("=") == asked["code_challenge"]
            login = base64.b64encode(f"{CLIENT['client_id']}:{CLIENT['client_secret']}".encode()).decode()
            assert request.headers["Authorization"] == f"Basic {login}"
            scope = asked["scope"] if self.scope is None else self.scope
            return web.json_response({**self.token(), "refresh_token": self.grant(), "scope": scope})
        if form["grant_type"] == "refresh_token":
            self.refreshed += 1
            if form["refresh_token"] not in self.grants:
                said = {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}
                return web.json_response(said, status=400)
            return web.json_response(self.token())
        claims = jwt.decode(form["assertion"], certs=self.certificate, audience="https://oauth2.googleapis.com/token")
        assert claims["scope"] == "https://www.googleapis.com/auth/drive"
        return web.json_response(self.token())

    async def revoke(self, request: web.Request) -> web.StreamResponse:
        self.grants.discard(str((await request.post())["token"]))
        return web.json_response({})

    async def drive(self, request: web.Request) -> web.StreamResponse:
        self.calls += 1
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self._tokens.get(given, 0) < time.monotonic():
            reason = {"domain": "global", "reason": "authError", "message": "Invalid Credentials"}
            error = {"code": 401, "message": "Invalid Credentials", "errors": [reason]}
            return web.json_response({"error": error}, status=401)
        headers = {name: value for name, value in request.headers.items() if name not in ("Authorization", "Host")}
        headers["Authorization"] = f"Bearer {self.hub.token}"
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            target = self.hub.url + str(request.rel_url)
            async with session.request(
                request.method, target, data=await request.read(), headers=headers, allow_redirects=False
            ) as answer:
                kept = {name: value for name, value in answer.headers.items() if name != "Transfer-Encoding"}
                if "Location" in kept:
                    kept["Location"] = kept["Location"].replace(self.hub.url, self.url)
                return web.Response(status=answer.status, headers=kept, body=await answer.read())


@contextmanager
def serving(hub: RunningHub) -> Iterator[OAuth]:
    oauth, started, stopped = OAuth(hub), threading.Event(), threading.Event()

    async def main() -> None:
        application = web.Application(client_max_size=1 << 30)
        application.router.add_get("/auth", oauth.authorize)
        application.router.add_post("/token", oauth.exchange)
        application.router.add_post("/revoke", oauth.revoke)
        application.router.add_route("*", "/{path:.*}", oauth.drive)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        oauth.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        started.set()
        await asyncio.to_thread(stopped.wait)
        await runner.cleanup()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert started.wait(60)
    try:
        yield oauth
    finally:
        stopped.set()
        thread.join()
