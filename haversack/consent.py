"""Asking the user for access to their drive, in their browser: OAuth for installed applications, with PKCE.

Protocol: https://developers.google.com/identity/protocols/oauth2/native-app (RFC 8252, RFC 7636). The client is the
user's own, from Google's console (`client_secret.json`). The browser comes back to a port of this machine. Where the
browser runs on another one that page fails to open, and its address, which holds the answer, is pasted instead; in a
notebook that goes into the cell's prompt. An answer counts only with the `state` that was sent along.

This module needs somebody there: without a terminal or a notebook that can ask, it says so and does nothing.
"""

from __future__ import annotations

import html
import json
import os
import select
import socket
import sys
import threading
import webbrowser
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from haversack import place, settings
from haversack.errors import ConnectionFailed, InputError, SignInError

_TIMEOUT = 30.0
_PAGE = """<!doctype html><meta charset="utf-8"><title>haversack</title>
<style>body {{ font: 1.1rem system-ui; margin: 20vh auto; max-width: 30rem; color-scheme: light dark }}</style>
<h1>{}</h1><p>You may close this page{}."""


def read_client(file: Path) -> dict[str, Any]:
    """The OAuth client in a `client_secret.json`. Raises `InputError` for another file."""
    try:
        client = json.loads(file.read_text())
        inner = client.get("installed") or client["web"]
        if all(isinstance(inner[key], str) for key in ("client_id", "client_secret", "auth_uri", "token_uri")):
            return dict(client)
    except FileNotFoundError:
        raise InputError(f"There is no file {file}.", "Download the OAuth client from Google's console.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise InputError(f"{file} is not an OAuth client.", "Download one of the type Desktop app from Google's console.")


def can_ask() -> bool:
    """Whether somebody is there to be asked: at a terminal, or at a notebook whose cells may prompt."""
    if place.in_kernel():
        kernel = sys.modules["ipykernel.kernelapp"].IPKernelApp.instance().kernel
        return bool(getattr(kernel, "_allow_stdin", False))
    return sys.stdin is not None and sys.stdin.isatty()


def obtain(client: dict[str, Any], scope: str, *, browser: bool = True) -> Any:
    """Have the user consent, and return google-auth's credentials.

    Args:
        client: what `read_client` returned; its `auth_uri` and `token_uri` are asked.
        scope: what access is asked for.
        browser: open one on this machine, if there is one.

    Raises `SignInError` when nobody is there, the user declines or the answer is not one to this question, and
    `ConnectionFailed` when the service does not answer.
    """
    if not can_ask():
        raise SignInError(
            "Nobody is there to sign in: this is no terminal and no notebook that can ask.",
            "Sign in from a terminal first (haversack login google), or set HAVERSACK_GOOGLE to a key's file.",
        )
    from google_auth_oauthlib.flow import Flow

    flow = Flow.from_client_config(client, scopes=[scope])
    with _Listener() as listener:
        flow.redirect_uri = f"http://127.0.0.1:{listener.port}/"
        # Google gives a refresh token with the first consent only, unless consent is asked for again.
        address, listener.state = flow.authorization_url(access_type="offline", prompt="consent")
        returned = _returned(address, listener, browser)
    return _exchanged(flow, returned)


def _returned(address: str, listener: _Listener, browser: bool) -> str:
    """The address that the browser was sent back to, taken from the port or pasted."""
    opened = browser and _open_browser(address)
    say = print if place.in_kernel() else _say
    say("Allow haversack to use your drive" + (" in the browser that opens now, or at:" if opened else ", at:"))
    say(f"\n    {address}\n")
    say(
        "If the last page does not open there, paste its address here"
        + (", else press Enter" * place.in_kernel())
        + ":"
    )
    while True:
        text = input("> ") if place.in_kernel() else _line_or(listener)
        address = listener.returned or text.strip()
        if address:
            _check(address, listener.state)
            return address


def _line_or(listener: _Listener) -> str:
    """A line from the terminal, or "" as soon as the browser has come back."""
    readable, _, _ = select.select([sys.stdin, listener.bell], [], [])
    if listener.bell in readable:
        return ""
    line = sys.stdin.readline()
    if not line:
        raise SignInError("The sign-in was broken off.", "Start it again: haversack login google")
    return line


def _check(address: str, state: str) -> None:
    """Raise `SignInError` unless that address answers our question."""
    asked = parse_qs(urlsplit(address).query)
    if asked.get("state") != [state]:
        raise SignInError(
            "That address is not an answer to this sign-in.", "Start again, and paste the last page's whole address."
        )
    if "error" in asked:
        raise SignInError(f"Access was not given ({asked['error'][0][:100]}).", "Start again: haversack login google")
    if "code" not in asked:
        raise SignInError("That address holds no answer.", "Start again, and paste the last page's whole address.")


def _exchanged(flow: Any, returned: str) -> Any:
    """The credentials for the code that came back."""
    import requests
    from oauthlib.oauth2 import OAuth2Error

    ca = settings.load().ca
    flow.oauth2session.verify = str(ca) if ca else True
    try:
        # oauthlib wants https, also for this machine's own port, to which nothing is sent here.
        flow.fetch_token(authorization_response=f"https://127.0.0.1/?{urlsplit(returned).query}", timeout=_TIMEOUT)
    except requests.RequestException as error:
        where = urlsplit(flow.client_config["token_uri"]).netloc
        raise ConnectionFailed(f"{where} does not answer ({type(error).__name__}).", "Try again.") from error
    except OAuth2Error as error:
        raise SignInError(
            f"The sign-in was refused ({error.error}).", "Start it again: haversack login google"
        ) from error
    except Warning as error:  # what oauthlib raises where less was allowed than asked for
        raise SignInError(
            "Access to the drive was not given.", "Start again, and leave the box for Google Drive ticked."
        ) from error
    if not flow.credentials.refresh_token:
        raise SignInError(
            "Google gave no lasting sign-in.", "Remove haversack's access in your account, and try again."
        )
    return flow.credentials


def _open_browser(address: str) -> bool:
    if sys.platform == "linux" and not any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")):
        return False  # a browser in the terminal would take it over
    try:
        return webbrowser.open(address)
    except webbrowser.Error:
        return False


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class _Listener:
    """A port of this machine that the browser is sent back to. `bell` is readable once it was."""

    def __init__(self) -> None:
        self.state = ""
        self.returned = ""
        self.bell, self._ring = socket.socketpair()
        listener = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                try:
                    _check(self.path, listener.state)
                    ended = ""
                except SignInError as error:
                    ended = error.what
                # A declined consent ends the question too; an answer to another question does not.
                ours = parse_qs(urlsplit(self.path).query).get("state") == [listener.state]
                title = html.escape(ended) or "Signed in"
                body = _PAGE.format(title, "" if ended else " and return to haversack").encode()
                self.send_response(200 if ours else 400)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                if ours and not listener.returned:
                    listener.returned = self.path
                    listener._ring.send(b"!")

            def log_message(self, *_: Any) -> None:
                """The addresses hold codes."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port

    def __enter__(self) -> _Listener:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        for end in (self.bell, self._ring):
            with suppress(OSError):
                end.close()
