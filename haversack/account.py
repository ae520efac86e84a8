"""Sign in, sign out, and show who is signed in: `haversack login`, `logout` and `whoami`.

A sign-in is stored (see `signin`) only after its service has accepted it. A sign-in to Google or to a hub also makes
its drive the default drive. Signing out deletes it here; one by the user's OAuth client is also revoked at Google.
Configurations of rclone and gcloud, and the files of Kaggle's own clients, are never changed.
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
    """Who is signed in to one service.

    Attributes:
        service: the service's name: "Google drive", "hub", "embedded hub" or "Kaggle".
        url: the base URL of its API.
        user: the user's name or address there; "" if the service does not name it.
        source: where the sign-in was found, such as "HAVERSACK_TOKEN" or a file.
        used: bytes used of the drive's quota; None if unknown, as for Kaggle.
        limit: the drive's quota in bytes; None if unknown or unlimited.
        note: a sentence on what limits the sign-in; "" for none.
    """

    service: str
    url: str
    user: str
    source: str
    used: int | None = None
    limit: int | None = None
    note: str = ""

    def json(self) -> dict[str, Any]:
        """The fields as a JSON object."""
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
    """Sign in to Google's drive or to Kaggle and store the sign-in; return the account.

    What has to be asked is asked at the terminal or by a prompt of the notebook's cell. A Kaggle sign-in that was found
    on this machine is used as it is and not stored.

    Args:
        service: "google" or "kaggle"; for a hub see `login_hub`.
        way: for Google "rclone", "rclone:REMOTE", "default", "colab", the file of an OAuth client, or a key file;
            None takes the first that is found of Colab, rclone, the user's OAuth client (which asks for consent)
            and Google's application default credentials (see docs/signin.md). For Kaggle a kaggle.json, or a file
            with a token; None takes the sign-in that is found, and asks for a token if there is none or Kaggle
            refuses it.
        narrow: ask for access only to files that haversack makes; only by an OAuth client.
        root: the id of a shared drive or folder to use as My Drive.
        browser: open a browser on this machine, if there is one.

    Raises `SignInError` if the sign-in is refused, none is found or nobody can be asked; `InputError` for an unknown
    service, a file that cannot be used, or `narrow` or `root` with Kaggle; `NotFound` if `root` does not exist;
    `ConnectionFailed` if the service does not answer, and `RemoteError` if it answers with another error.
    """
    if service == "kaggle" and (narrow or root):
        raise InputError("Kaggle has no --narrow and no --root.", "Leave them out: they are for Google's drive.")
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
    """Sign in to the hub at `url`, store its token, and make it the default drive; return the account.

    Raises `SignInError` if the hub refuses the token, `InputError` if `url` is not an HTTP URL, `ConnectionFailed` if
    the hub does not answer, and `RemoteError` if it answers with another error.
    """
    credentials.check_hub_address(url)
    account = _account(credentials.hub_at(url.rstrip("/"), token, "haversack login"))
    with signin.changing() as kept:
        kept.hubs[account.url], kept.drive = token, account.url
    return account


def logout(service: str | None = None) -> list[str]:
    """Delete stored sign-ins; return one sentence about each, [] if there was none.

    `service` is "google", "kaggle", "hub" for all hubs, the URL of one hub, or None for all. A sign-in by the user's
    OAuth client is also revoked at Google; if that fails, its sentence says so. If the default drive is signed out,
    there is none any more. Raises `SignInError` if the stored sign-ins cannot be read.
    """
    done = []
    with signin.changing() as kept:
        if kept.google and service in (None, "google"):
            done.append(_revoked(kept.google))
            kept.google = None
        if kept.kaggle and service in (None, "kaggle"):
            kept.kaggle = None
            done.append(f"Signed out of Kaggle here; the token stays valid until you revoke it: {KAGGLE_SETTINGS}")
        for url in [url for url in kept.hubs if service in (None, "hub", url)]:
            del kept.hubs[url]
            done.append(f"Signed out of the hub at {url}.")
        if (kept.drive != "google" and kept.drive not in kept.hubs) or (kept.drive == "google" and kept.google is None):
            kept.drive = None
    return done


def whoami(hub: str | None = None) -> list[Account]:
    """The accounts in use: the drive's, then Kaggle's if there is a sign-in. Only the drive's service is asked.

    `hub` names the drive: a hub's URL, "google", "embedded", or None for the default of `credentials.drive`. Raises
    `SignInError` if nobody is signed in or the sign-in is refused, `InputError` for any other `hub`, `ConnectionFailed`
    if the service does not answer, and `RemoteError` if it answers with another error.
    """
    accounts = [_account(credentials.drive(hub))]
    kaggle = credentials.own_kaggle()
    if kaggle is not None:
        kept = signin.load().kaggle or {}
        user = kaggle.kaggle_login[0] if kaggle.kaggle_login else ""
        known = kept.get("user", "") if kept.get("token") in kaggle.secrets else ""
        accounts.append(Account("Kaggle", kaggle.url, user or known, kaggle.source))
    return accounts


def _login_kaggle(file: Path | None) -> Account:
    """Sign in to Kaggle by the content of `file`, else by a sign-in that is found and accepted, else by asking."""
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
    """Why the sign-in that was just stored is not the one in use; "" if it is."""
    named = settings.load().hub or signin.load().drive
    if named not in (None, "embedded", "google"):
        return f"Data sets come from the hub {named} as long as it is the default."
    used = credentials.own_kaggle()
    if used is not None and used.secrets != server.secrets:
        return f"{used.source} takes precedence: remove it to use this sign-in."
    return ""


def _kaggle_token() -> str:
    """Ask the user for a token or the text of a kaggle.json."""
    if not consent.can_ask():
        raise SignInError(
            "Nobody can be asked to sign in: this is neither a terminal nor a notebook that can prompt.",
            "Give a file (haversack login kaggle --with kaggle.json), or set KAGGLE_API_TOKEN.",
        )
    return getpass.getpass(f"Your token from {KAGGLE_SETTINGS}: ")


def _text_of(file: Path) -> str:
    try:
        return file.read_text()
    except FileNotFoundError:
        raise InputError(f"There is no file {file}.", f"Make a kaggle.json or a token at {KAGGLE_SETTINGS}") from None
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{file} is not a text file.", f"Make a kaggle.json or a token at {KAGGLE_SETTINGS}") from None


async def _kaggle_user(server: Server) -> str:
    http = Http(server, attempts=3)
    try:
        return await KaggleApi(http).user()
    finally:
        await http.close()


def _google_record(way: str | None, narrow: bool, browser: bool) -> dict[str, Any]:
    """The record to store for the sign-in of the given way, or of the first way that works."""
    if way is not None:
        file = Path(way).expanduser().absolute()
        if way.partition(":")[0] in ("colab", "rclone", "default"):
            return google.record_of(way)
        if google.is_key(file):
            return {"with": str(file)}
        return google.consented(file, narrow=narrow, browser=browser)
    found = [] if narrow else list(google.ways())
    if "client" in found and not _is_still_accepted():
        found.remove("client")
    asks = google.knows_client() and (not found or found[0] == "default")
    if asks:
        return google.consented(narrow=narrow, browser=browser)
    if not found:
        raise SignInError(
            "No sign-in to Google was found.",
            "Make an OAuth client in two minutes (docs/signin.md), then: haversack login google --with FILE",
        )
    return dict(signin.load().google or {}) if found[0] == "client" else google.record_of(found[0])


def _is_still_accepted() -> bool:
    """Whether Google still accepts the stored sign-in of the user's OAuth client; it may have been revoked."""
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
        quota = await api.quota()
        await api.get(server.root)
        return quota
    finally:
        await http.close()


def _note(record: dict[str, Any]) -> str:
    if record.get("scope") == google.NARROW:
        return "Only files that haversack made are visible."
    if google.is_service_account(Path(record["with"])) and "root" not in record:
        return "A service account has no quota of its own: name a shared drive with --root ID."
    return ""


def _revoked(record: dict[str, Any]) -> str:
    """Revoke the sign-in in `record` at Google if it is haversack's own; return a sentence about the result."""
    own = record.get("credentials")
    if not own:
        return f"Signed out of Google; {record['with']} itself is unchanged."
    where = own["token_uri"].removesuffix("/token")
    server = Server("Google sign-in", where, "haversack login")
    body = urlencode({"token": own.get("refresh_token") or own.get("token")}).encode()
    kind = {"Content-Type": "application/x-www-form-urlencoded"}

    async def revoke() -> None:
        http = Http(server, attempts=2)
        try:
            # 400: it was revoked before.
            await http.request("POST", "/revoke", data=body, headers=kind, accept=(400,), repeatable=True)
        finally:
            await http.close()

    try:
        wait(revoke())
    except HaversackError as error:
        return f"Signed out of Google here, but Google did not revoke the sign-in: {error}"
    return "Signed out of Google, which has revoked the sign-in."
