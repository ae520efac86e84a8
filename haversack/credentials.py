"""Which server drive and Kaggle calls go to, its credentials, and where they were found.

The drive is chosen in this order:

    1. the one that is named: by an argument or `--hub`, else by the setting `hub` (a hub's URL, `google` or `embedded`)
    2. the one of the last `haversack login` to Google or a hub
    3. the embedded hub, if this machine's disk outlives the session
    4. Google, by a sign-in that is found on this machine, or by asking the user if their OAuth client is known

A hub whose URL is chosen by 1 or 2 serves Kaggle's API too. Otherwise Kaggle's own service is used if a Kaggle sign-in
is found, in this order of precedence, and else the embedded hub:

    KAGGLE_API_V1_TOKEN, KAGGLE_API_TOKEN     a token, or a file with one
    haversack login kaggle                    its stored sign-in; in a job it comes after all others
    ~/.kaggle/access_token
    KAGGLE_USERNAME and KAGGLE_KEY
    kaggle.json                               in KAGGLE_CONFIG_DIR or ~/.kaggle
    Colab's secrets                           KAGGLE_API_TOKEN, or KAGGLE_USERNAME and KAGGLE_KEY

Apart from `haversack login` that is the order of Kaggle's own clients. No `repr` shows a secret.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from haversack import embedded, google, place, settings, signin
from haversack.answer import Ask
from haversack.errors import InputError, SignInError
from haversack.google import GoogleSignIn

KAGGLE = "https://api.kaggle.com"
KAGGLE_SETTINGS = "https://www.kaggle.com/settings/api"
"""The page where a user makes tokens and key files."""


class Renewable(Protocol):
    """A sign-in that expires. `Http` renews it, once for all concurrent calls.

    Attributes:
        source: where the sign-in was found, for messages.
        service: the URL of the service that renews it.
    """

    source: str
    service: str

    def header(self) -> str | None:
        """The value of the Authorization header; None if it must be renewed first."""

    def renew(self, ask: Ask, refused: str | None) -> None:
        """Renew the sign-in by calls of `ask`; blocks, so call it outside the event loop's thread.

        `refused` is the header that the server refused, None if none was. Does nothing if there is a fresh header other
        than `refused` already. Raises `SignInError` if the sign-in is no longer accepted, and `ConnectionFailed`.
        """


@dataclass(frozen=True)
class Server:
    """A service and the credentials for it.

    Attributes:
        name: what messages call the service, such as "hub" or "Google drive".
        url: its base URL, without a slash at the end.
        source: where the sign-in was found, for messages; "nobody" if there is none.
        authorization: the value of the Authorization header; None with a `sign_in`, or if none is sent.
        folder: the folder of the drive's files on this machine; None except for the embedded hub.
        secrets: bare tokens and keys, to be masked wherever they appear.
        kaggle_login: (user name, key) for Kaggle's own clients; None if unknown.
        sign_in: the renewable sign-in that takes the place of `authorization`; None if it does not expire.
        root: the id of the folder used as My Drive.
        quota: the service's quota as `rate_limit.RateQuota.parse` reads it; None if unknown.
    """

    name: str
    url: str
    source: str
    authorization: str | None = field(default=None, repr=False)
    folder: Path | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)
    kaggle_login: tuple[str, str] | None = field(default=None, repr=False)
    sign_in: Renewable | None = field(default=None, repr=False, compare=False)
    root: str = "root"
    quota: str | None = None


def drive(hub: str | None = None) -> Server:
    """Choose the server of the drive and return it with its credentials; may start the embedded hub.

    `hub` is a hub's URL, "google", "embedded", or None for the order in the module's docstring; then the user may be
    asked for consent, which is stored. Raises `SignInError` if there is no sign-in or token for it, `InputError` if
    `hub` or the setting is neither a URL nor one of these names, and `ConnectionFailed` if the embedded hub does not
    start.
    """
    chosen = hub or settings.load().hub or signin.load().drive
    if chosen == "google":
        return _google()
    if chosen is None and not place.disk_outlives_session(settings.load().data) and _found_google():
        return _google()
    return _hub(chosen)


def names_hub() -> bool:
    """Whether a hub's URL is named, by `--hub`, the setting or the last login: then that hub serves Kaggle's API."""
    return (settings.load().hub or signin.load().drive) not in (None, "embedded", "google")


def kaggle(hub: str | None = None) -> Server:
    """Choose the server of Kaggle's API as in the module's docstring, and return it; may start the embedded hub.

    `hub` is a hub's URL, "embedded", or None or "google" for the default. As an argument "embedded" means the embedded
    hub; as the setting `hub` it means that hub only if no Kaggle sign-in is found. A mirror in the setting `kaggle` is
    used without a sign-in if none is found. Raises `SignInError` if nobody is signed in or a key file is invalid,
    `InputError` if the hub's address is not a URL, and `ConnectionFailed` if the embedded hub does not start.
    """
    named = hub if hub != "google" else None
    chosen = named or settings.load().hub or signin.load().drive
    if chosen == "google":
        chosen = None
    if named or (chosen and chosen != "embedded"):
        return _hub(chosen)
    if settings.load().kaggle and _kaggle_sign_in() is None:
        return Server("Kaggle service", _kaggle_url(), "nobody")  # public data sets need no sign-in
    return own_kaggle() or _hub(chosen)


def google_drive(sign_in: GoogleSignIn, root: str | None = None) -> Server:
    """Google's Drive with the credentials of `sign_in`, as a `Server` with the quota of the settings.

    `root` is the id of the folder used as My Drive; None for the one that the sign-in names.
    """
    return Server(
        name="Google drive",
        url=google.API,
        source=sign_in.source,
        secrets=sign_in.secrets,
        sign_in=sign_in,
        root=root or sign_in.root,
        quota=settings.load().quota,
    )


def own_kaggle() -> Server | None:
    """Kaggle's own service, or the mirror in the setting `kaggle`, with the first sign-in that is found, else None.

    None also if that sign-in is the key that the embedded hub gave out. Raises `SignInError` for a kaggle.json or
    stored sign-ins with invalid content.
    """
    found = _kaggle_sign_in()
    return None if found is None or _is_embedded_key(found) else found


def _google() -> Server:
    return google_drive(google.sign_in(), settings.load().root or (signin.load().google or {}).get("root"))


def _found_google() -> bool:
    """Whether a sign-in to Google is found here; asks the user for one if their OAuth client is known."""
    if settings.load().google or next(google.ways(), None):
        return True
    from haversack import consent

    if not (google.knows_client() and consent.can_ask()):
        return False
    record = google.consented()
    with signin.changing() as kept:
        kept.google, kept.drive = record, "google"
    return True


def _hub(chosen: str | None) -> Server:
    if chosen and chosen != "embedded":
        return _named_hub(chosen)
    data = settings.load().data
    if chosen is None and not place.disk_outlives_session(data):
        raise SignInError(
            f"Nobody is signed in, and {data} is lost with this machine's session.",
            "Sign in (haversack login), name a hub with --hub URL, or accept the loss with --hub embedded.",
        )
    hub = embedded.attach(data)
    return Server(
        name="embedded hub",
        url=hub.url,
        source=str(data),
        authorization=f"Bearer {hub.token}",
        folder=hub.my_drive,
        secrets=(hub.token, hub.kaggle_key),
        kaggle_login=(hub.kaggle_username, hub.kaggle_key),
    )


def _named_hub(url: str) -> Server:
    check_hub_address(url)
    url = url.rstrip("/")
    token, source = os.environ.get("HAVERSACK_TOKEN", "").strip(), "HAVERSACK_TOKEN"
    if not token:
        token, source = signin.load().hubs.get(url, ""), "haversack login"
    if not token:
        raise SignInError(
            f"There is no token for the hub at {url}.",
            f"Put it in the environment variable HAVERSACK_TOKEN, or sign in: haversack login hub {url}",
        )
    return hub_at(url, token, source)


def check_hub_address(url: str) -> None:
    """Raise `InputError` if `url` is not an HTTP or HTTPS URL with a host."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(
            f"{url!r} is not a hub's address.", "Give it like http://127.0.0.1:8080, or say embedded or google."
        )


def hub_at(url: str, token: str, source: str) -> Server:
    """The hub at `url` as a `Server`, signed in to by `token`; `source` says where the token was found."""
    return Server("hub", url, source, f"Bearer {token}", secrets=(token,))


def kaggle_by(text: str, source: str) -> Server:
    """Kaggle's own service, or the mirror in the setting `kaggle`, signed in to by `text`.

    `text` is a token or the content of a kaggle.json; `source` says where it was found. Nothing is sent. Raises
    `SignInError` if `text` has neither form.
    """
    text = text.strip()
    if text.startswith("{"):
        return _kaggle_by_key(text, source)
    if not text.isprintable() or not text or " " in text:
        raise SignInError(f"{source} holds no Kaggle token.", f"Make a new one at {KAGGLE_SETTINGS}")
    return _kaggle_token(text, source)


def _kaggle_sign_in() -> Server | None:
    """Kaggle's own service, or its mirror, with the first sign-in in the order of the module's docstring."""
    return next(filter(None, _kaggle_ways()), None)


def _kaggle_ways() -> Iterator[Server | None]:
    for variable in ("KAGGLE_API_V1_TOKEN", "KAGGLE_API_TOKEN"):
        if token := os.environ.get(variable):
            yield _kaggle_token(_token_in(token), variable)
    in_job = "HAVERSACK_JOB" in os.environ
    if not in_job:
        yield _kept_kaggle()
    own = Path.home() / ".kaggle" / "access_token"
    if own.is_file() and (token := own.read_text().strip()):
        yield _kaggle_token(token, str(own))
    user, key = os.environ.get("KAGGLE_USERNAME"), os.environ.get("KAGGLE_KEY")
    if user and key:
        yield _kaggle_basic(user, key, "KAGGLE_USERNAME and KAGGLE_KEY")
    file = Path(os.environ.get("KAGGLE_CONFIG_DIR") or Path.home() / ".kaggle") / "kaggle.json"
    if file.is_file():
        yield _kaggle_by_key(file.read_text(), str(file))
    yield _kaggle_of_colab()
    if in_job:
        yield _kept_kaggle()


def _kept_kaggle() -> Server | None:
    """What `haversack login kaggle` keeps."""
    kept = signin.load().kaggle
    if not kept:
        return None
    source = "haversack login"
    return _kaggle_token(kept["token"], source) if "token" in kept else _kaggle_basic(kept["user"], kept["key"], source)


def _kaggle_by_key(text: str, source: str) -> Server:
    try:
        login = json.loads(text)
        return _kaggle_basic(login["username"], login["key"], source)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise SignInError(f"{source} is not a Kaggle key file.", f"Make a new one at {KAGGLE_SETTINGS}") from error


def _kaggle_of_colab() -> Server | None:
    """Kaggle's own service with the secrets of a Colab notebook, on Colab or in a job; None if there are none."""
    if not place.in_kernel() or importlib.util.find_spec("google") is None:
        return None
    try:
        from google.colab import userdata
    except ImportError:
        return None

    def secret(name: str) -> str:
        try:
            return str(userdata.get(name) or "").strip()
        except (userdata.SecretNotFoundError, userdata.NotebookAccessError, userdata.TimeoutException):
            return ""

    if token := secret("KAGGLE_API_TOKEN"):
        return _kaggle_token(token, "Colab's secret KAGGLE_API_TOKEN")
    user, key = secret("KAGGLE_USERNAME"), secret("KAGGLE_KEY")
    return _kaggle_basic(user, key, "Colab's secrets KAGGLE_USERNAME and KAGGLE_KEY") if user and key else None


def _kaggle_url() -> str:
    return settings.load().kaggle or KAGGLE


def _token_in(given: str) -> str:
    """`given`, or the content of the file of that name. `os.path.isfile` accepts tokens too long for a path."""
    return Path(given).read_text().strip() if os.path.isfile(given) else given


def _kaggle_token(token: str, source: str) -> Server:
    return Server("Kaggle service", _kaggle_url(), source, f"Bearer {token}", secrets=(token,))


def _kaggle_basic(user: str, key: str, source: str) -> Server:
    basic = base64.b64encode(f"{user}:{key}".encode()).decode()
    return Server(
        "Kaggle service", _kaggle_url(), source, f"Basic {basic}", secrets=(key, basic), kaggle_login=(user, key)
    )


def _is_embedded_key(found: Server) -> bool:
    """Whether the sign-in that was found is the key that the embedded hub gives out, not one of Kaggle's."""
    known = embedded.known_kaggle_key(settings.load().data)
    return known is not None and known in found.secrets
