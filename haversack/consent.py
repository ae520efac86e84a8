"""Ask the user in their browser for access to their drive: OAuth for installed applications, with PKCE.

Protocol: https://developers.google.com/identity/protocols/oauth2/native-app (RFC 8252, RFC 7636). The OAuth client is
the user's own, from Google's console (`client_secret.json`). Google redirects the browser to a loopback port of this
machine. If the browser runs on another machine, the redirect's page does not open; the user copies its address, which
holds the authorization code, to the terminal or into the cell's prompt. A redirect is accepted only with the `state`
that was sent.

Without a terminal or a notebook that can prompt, `obtain` raises `SignInError`.
"""

from __future__ import annotations

import html
import json
import os
import selectors
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
    """Return the content of a `client_secret.json`: an OAuth client, under the key "installed" or "web".

    Raises `InputError` if there is no such file or it holds no OAuth client.
    """
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
    """Whether the user can be prompted for a line: at a terminal, or in a notebook whose front end answers prompts."""
    if place.in_kernel():
        kernel = sys.modules["ipykernel.kernelapp"].IPKernelApp.instance().kernel
        return bool(getattr(kernel, "_allow_stdin", False))
    return sys.stdin is not None and sys.stdin.isatty()


def obtain(client: dict[str, Any], scope: str, *, browser: bool = True) -> Any:
    """Ask the user for consent and wait for it; return google-auth's credentials with a refresh token.

    They are `google.oauth2.credentials.Credentials`. The consent page's address is printed as well.

    Args:
        client: the OAuth client, as `read_client` returns it.
        scope: the OAuth scope to ask for.
        browser: open a browser on this machine, if there is one.

    Raises `SignInError` if nobody can be asked, the user declines, the redirect has another `state` or no authorization
    code, or Google refuses the code; `ConnectionFailed` if Google's token endpoint does not answer.
    """
    if not can_ask():
        raise SignInError(
            "Nobody can be asked to sign in: this is neither a terminal nor a notebook that can prompt.",
            "Sign in from a terminal first (haversack login google), or set HAVERSACK_GOOGLE to a key file.",
        )
    from google_auth_oauthlib.flow import Flow

    flow = Flow.from_client_config(client, scopes=[scope])
    with _Listener() as listener:
        flow.redirect_uri = f"http://127.0.0.1:{listener.port}/"
        # prompt="consent": otherwise Google gives a refresh token only with the first consent.
        address, listener.state = flow.authorization_url(access_type="offline", prompt="consent")
        returned = _redirect_address(address, listener, browser)
    return _exchanged(flow, returned)


def _redirect_address(address: str, listener: _Listener, browser: bool) -> str:
    """The address that Google redirected the browser to, received on the port or pasted by the user."""
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
    """A line from the terminal, or "" as soon as the redirect is received. Raises `SignInError` at end of input."""
    # Not select(2), which fails in a process with more than 1,024 files, nor epoll, which takes no regular file.
    with selectors.PollSelector() as selector:
        for one in (sys.stdin, listener.bell):
            selector.register(one, selectors.EVENT_READ)
        readable = [key.fileobj for key, _ in selector.select()]
    if listener.bell in readable:
        return ""
    line = sys.stdin.readline()
    if not line:
        raise SignInError("The sign-in was cancelled.", "Start it again: haversack login google")
    return line


def _check(address: str, state: str) -> None:
    """Raise `SignInError` unless `address` holds an authorization code and the `state` that was sent."""
    asked = parse_qs(urlsplit(address).query)
    if asked.get("state") != [state]:
        raise SignInError(
            "That address does not belong to this sign-in.", "Start again, and paste the last page's whole address."
        )
    if "error" in asked:
        raise SignInError(f"Access was not granted ({asked['error'][0][:100]}).", "Start again: haversack login google")
    if "code" not in asked:
        raise SignInError(
            "That address holds no authorization code.", "Start again, and paste the last page's whole address."
        )


def _exchanged(flow: Any, returned: str) -> Any:
    """Exchange the authorization code in the address `returned` for credentials."""
    import requests
    from oauthlib.oauth2 import OAuth2Error

    ca = settings.load().ca
    flow.oauth2session.verify = str(ca) if ca else True
    try:
        # oauthlib requires https; nothing is sent to this address.
        flow.fetch_token(authorization_response=f"https://127.0.0.1/?{urlsplit(returned).query}", timeout=_TIMEOUT)
    except requests.RequestException as error:
        where = urlsplit(flow.client_config["token_uri"]).netloc
        raise ConnectionFailed(f"{where} does not answer ({type(error).__name__}).", "Try again.") from error
    except OAuth2Error as error:
        raise SignInError(
            f"The sign-in was refused ({error.error}).", "Start it again: haversack login google"
        ) from error
    except Warning as error:  # oauthlib raises a Warning if less access was granted than asked for
        raise SignInError(
            "Access to the drive was not granted.", "Start again, and leave the box for Google Drive ticked."
        ) from error
    if not flow.credentials.refresh_token:
        raise SignInError("Google gave no refresh token.", "Remove haversack's access in your account, and try again.")
    return flow.credentials


def _open_browser(address: str) -> bool:
    if sys.platform == "linux" and not any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")):
        return False  # a text browser would take over the terminal
    try:
        return webbrowser.open(address)
    except webbrowser.Error:
        return False


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class _Listener:
    """An HTTP server on a loopback port that receives the redirect; it runs inside a `with` block.

    Attributes:
        port: the port.
        state: the `state` that a redirect must carry; set by the user of this class.
        returned: path and query of the redirect; "" before it is received.
        bell: a socket that becomes readable when `returned` is set.
    """

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
                # A declined consent is an answer too; a request with another state is not.
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
                """Log nothing: addresses contain authorization codes."""

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
