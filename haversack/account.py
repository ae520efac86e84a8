"""Signing in and out, and saying who is signed in: what `haversack login`, `logout` and `whoami` do.

A sign-in is kept only once its service has answered to it. From then on that drive is the one that is meant where none
is named. Signing out forgets it here and, where it is haversack's own, has Google revoke it; configurations of rclone
and gcloud, and what Kaggle's own clients keep, are theirs and stay as they are.
"""

from __future__ import annotations

import getpass
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from haversack import consent, credentials, google, settings, signin
from haversack.credentials import KAGGLE_SETTINGS, Server
from haversack.datasets.kaggle import KaggleApi
from haversack.drive.remote.api import DriveApi, Quota
from haversack.errors import HaversackError, InputError, SignInError
from haversack.http import Http, wait


@dataclass(frozen=True)
class Account:
    """Who is signed in to one service. `used` and `limit` in bytes; `limit` is None where there is none."""

    service: str
    url: str
    user: str
    source: str
    used: int | None = None
    limit: int | None = None
    note: str = ""

    def json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        said = f"Signed in to {self.service} at {self.url} as {self.user or 'somebody'}, by {self.source}."
        return f"{said} {self.note}".strip()


def login(
    service: str = "google",
    *,
    way: str | None = None,
    narrow: bool = False,
    root: str | None = None,
    browser: bool = True,
) -> Account:
    """Sign in to Google's drive or to Kaggle; in a notebook the cell asks.

    Args:
        service: "google" or "kaggle"; for a hub see `login_hub`.
        way: "rclone", "rclone:REMOTE", "default", "colab", the file of an OAuth client, or that of a service account's
            key; None takes the first of these that leads in (see docs/signin.md). For Kaggle a kaggle.json, or another
            file with a token; None takes the sign-in that is found, and asks for a token where there is none.
        narrow: ask for the files only that haversack makes.
        root: the id of the shared drive or folder that is meant instead of My Drive.
        browser: open one on this machine, if there is one.

    Raises `SignInError` when it is refused or nobody is there to be asked, `InputError` for a way that is none.
    """
    if service == "kaggle" and (narrow or root):
        raise InputError("Kaggle is signed in to as a whole.", "Leave --narrow and --root to Google's drive.")
    if service == "kaggle":
        return _login_kaggle(Path(way).expanduser().absolute() if way else None)
    if service != "google":
        raise InputError(
            f"There is no sign-in to {service!r}.", "Sign in to google, kaggle, or a hub: haversack login hub URL"
        )
    record = _google_record(way, narrow, browser) | ({"root": root} if root else {})
    account = _account(credentials.google_drive(google.opened(record), root), _note(record))
    with signin.changing() as kept:
        kept.google, kept.drive = record, "google"
    return account


def login_hub(url: str, token: str) -> Account:
    """Sign in to a hub and keep its token. Raises `SignInError` when it is refused, `InputError` for no URL."""
    credentials.check_hub_address(url)
    account = _account(credentials.hub_at(url.rstrip("/"), token, "haversack login"))
    with signin.changing() as kept:
        kept.hubs[account.url], kept.drive = token, account.url
    return account


def logout(service: str | None = None) -> list[str]:
    """Forget sign-ins: Google's, Kaggle's, those to hubs ("hub", or one's URL), or all; a sentence about each."""
    done = []
    with signin.changing() as kept:
        if kept.google and service in (None, "google"):
            done.append(_revoked(kept.google))
            kept.google = None
        if kept.kaggle and service in (None, "kaggle"):
            kept.kaggle = None
            done.append(f"Signed out of Kaggle here; what signed in is good until you revoke it: {KAGGLE_SETTINGS}")
        for url in [url for url in kept.hubs if service in (None, "hub", url)]:
            del kept.hubs[url]
            done.append(f"Signed out of the hub at {url}.")
        if (kept.drive != "google" and kept.drive not in kept.hubs) or (kept.drive == "google" and kept.google is None):
            kept.drive = None
    return done


def whoami(hub: str | None = None) -> list[Account]:
    """The accounts in use: the drive's, and Kaggle's where there is a sign-in. Raises as `credentials.drive`."""
    accounts = [_account(credentials.drive(hub))]
    kaggle = credentials.own_kaggle()
    if kaggle is not None:
        kept = signin.load().kaggle or {}
        user = kaggle.kaggle_login[0] if kaggle.kaggle_login else ""
        known = kept.get("user", "") if kept.get("token") in kaggle.secrets else ""
        accounts.append(Account("Kaggle", kaggle.url, user or known, kaggle.source))
    return accounts


def _login_kaggle(file: Path | None) -> Account:
    """Sign in to Kaggle by what `file` holds, else by what is found and still leads in, else by asking."""
    if file is None:
        found = credentials.own_kaggle()
        try:
            if found is not None:
                return Account("Kaggle", found.url, wait(_kaggle_user(found)), found.source)
        except SignInError as error:
            if not consent.can_ask():
                raise
            print(error.what, file=sys.stderr)
        server = credentials.kaggle_by(_kaggle_token(), "haversack login")
    else:
        server = credentials.kaggle_by(_text_of(file), str(file))
    user = wait(_kaggle_user(server))
    with signin.changing() as kept:
        name = "token" if server.kaggle_login is None else "key"
        kept.kaggle = {"user": user, name: server.secrets[0]}
    return Account("Kaggle", server.url, user, server.source, note=_kaggle_note(server))


def _kaggle_note(server: Server) -> str:
    """What keeps a sign-in that was just kept from being used."""
    named = settings.load().hub or signin.load().drive
    if named not in (None, "embedded", "google"):
        return f"While the hub {named} is named, data sets come from there."
    used = credentials.own_kaggle()
    if used is not None and used.secrets != server.secrets:
        return f"{used.source} comes before it: remove that where this one is meant."
    return ""


def _kaggle_token() -> str:
    """A token, or the text of a kaggle.json, from who is there."""
    if not consent.can_ask():
        raise SignInError(
            "Nobody is there to sign in: this is no terminal and no notebook that can ask.",
            "Give a file (haversack login kaggle --with kaggle.json), or set KAGGLE_API_TOKEN.",
        )
    return getpass.getpass(f"Your token from {KAGGLE_SETTINGS}: ")


def _text_of(file: Path) -> str:
    try:
        return file.read_text()
    except FileNotFoundError:
        raise InputError(f"There is no file {file}.", f"Make a kaggle.json or a token at {KAGGLE_SETTINGS}") from None
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{file} is no text.", f"Make a kaggle.json or a token at {KAGGLE_SETTINGS}") from None


async def _kaggle_user(server: Server) -> str:
    http = Http(server, attempts=3)
    try:
        return await KaggleApi(http).user()
    finally:
        await http.close()


def _google_record(way: str | None, narrow: bool, browser: bool) -> dict[str, Any]:
    """What is to be kept of the sign-in that was asked for, or of the first that leads in."""
    if way is not None:
        file = Path(way).expanduser().absolute()
        if way.partition(":")[0] in ("colab", "rclone", "default"):
            return google.record_of(way)
        if google.is_key(file):
            return {"with": str(file)}
        return google.consented(file, narrow=narrow, browser=browser)
    found = [] if narrow else list(google.ways())
    if "client" in found and not _still_leads_in():
        found.remove("client")
    asks = google.knows_client() and (not found or found[0] == "default")
    if asks:
        return google.consented(narrow=narrow, browser=browser)
    if not found:
        raise SignInError(
            "No way to sign in to Google was found.",
            "Make an OAuth client in two minutes (docs/signin.md), then: haversack login google --with FILE",
        )
    return dict(signin.load().google or {}) if found[0] == "client" else google.record_of(found[0])


def _still_leads_in() -> bool:
    """Whether the sign-in that is kept still works; where it was revoked, the user is asked anew."""
    try:
        _account(credentials.google_drive(google.sign_in("client")))
    except SignInError:
        return False
    return True


def _account(server: Server, note: str = "") -> Account:
    quota = wait(_asked(server))
    return Account(server.name, server.url, quota.user, server.source, quota.used, quota.limit, note)


async def _asked(server: Server) -> Quota:
    http = Http(server, attempts=3)
    try:
        api = DriveApi(server, http)
        quota = await api.about()
        await api.get(server.root)
        return quota
    finally:
        await http.close()


def _note(record: dict[str, Any]) -> str:
    if record.get("scope") == google.NARROW:
        return "Only files that haversack makes are seen."
    if google.is_service_account(Path(record["with"])) and "root" not in record:
        return "A service account has no quota of its own: name a shared drive with --root ID."
    return ""


def _revoked(record: dict[str, Any]) -> str:
    """Have Google forget a sign-in of haversack's own; a sentence about how that went."""
    own = record.get("credentials")
    if not own:
        return f"Signed out of Google; {record['with']} itself was left as it is."
    where = own["token_uri"].removesuffix("/token")
    server = Server("Google sign-in", where, "haversack login")
    body = urlencode({"token": own.get("refresh_token") or own.get("token")}).encode()
    kind = {"Content-Type": "application/x-www-form-urlencoded"}

    async def revoke() -> None:
        http = Http(server, attempts=2)
        try:
            # One that was revoked already is answered with 400.
            await http.request("POST", "/revoke", data=body, headers=kind, accept=(400,), again=True)
        finally:
            await http.close()

    try:
        wait(revoke())
    except HaversackError as error:
        return f"Signed out of Google here; Google itself could not be told: {error}"
    return "Signed out of Google, which has forgotten the sign-in too."
