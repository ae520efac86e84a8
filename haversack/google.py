"""Sign-ins to Google's Drive: the ways in, where their credentials are found, and how they are renewed.

The ways, in order of precedence; a FILE is used only if it is named:

    colab           Colab's own sign-in, which asks the user itself
    rclone[:NAME]   the drive remote of an rclone configuration: its token and client; the file is never written
    client          the user's own OAuth client, signed in with `haversack login` (`consent` asks)
    default         Google's application default credentials: gcloud's, or the key in GOOGLE_APPLICATION_CREDENTIALS
    FILE            a key file, of a service account or a user. A service account has no writable My Drive, so it is for
                    shared drives, or for reading a folder that was shared with it; the setting `root` names which.

A record is what `signin` stores of a way, a JSON object: `with`, the way; `file`, the rclone configuration or default
credentials; for "client" also `client`, the OAuth client, `said`, the file it came from, `scope` and `credentials`;
`root`, the id of the folder used as My Drive, if one was given.

google-auth renews tokens, by the HTTP client that it is given; this module sends no requests itself. A sign-in that is
merely found on this machine, such as an rclone configuration, becomes the drive only where `credentials.drive` has
nothing else to choose.
"""

from __future__ import annotations

import configparser
import json
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from haversack import place, settings, signin
from haversack.answer import Answer, Ask
from haversack.errors import ConnectionFailed, InputError, SignInError

API = "https://www.googleapis.com"
FULL = "https://www.googleapis.com/auth/drive"
NARROW = "https://www.googleapis.com/auth/drive.file"
"""Access only to files that haversack made: enough for checkpoints; other files are invisible."""
DEFAULT_FILE = Path(".config", "gcloud", "application_default_credentials.json")
"""gcloud's file of application default credentials, relative to HOME."""
_TOKEN_URI = "https://oauth2.googleapis.com/token"
_MARGIN = 225.0  # seconds before its expiry that a token is renewed, as in google-auth


class GoogleSignIn:
    """One sign-in to Google; implements `credentials.Renewable`. Thread-safe.

    A token is renewed 225 s before it expires, or in the last quarter of a shorter life.

    Args:
        source: where the sign-in was found, for messages.
        credentials: google-auth's credentials.
        root: the id of the folder that the sign-in names as My Drive.
        keep: called with the credentials after each renewal, to store them.
        file: the file with the credentials, in a format of Google's own; None if they come from elsewhere.
    """

    def __init__(
        self,
        source: str,
        credentials: Any,
        *,
        root: str = "root",
        keep: Callable[[Any], None] = lambda credentials: None,
        file: Path | None = None,
    ) -> None:
        self.source = source
        self.root = root
        self.file = file
        uri = urlsplit(
            getattr(credentials, "token_uri", None) or getattr(credentials, "_token_uri", None) or _TOKEN_URI
        )
        self.service = f"{uri.scheme}://{uri.netloc}"
        self._credentials = credentials
        self._keep = keep
        self._lock = threading.Lock()
        self._fresh_until = self._renewal_time()

    @property
    def secrets(self) -> tuple[str, ...]:
        """The present access token, refresh token and client secret, to be masked."""
        names = ("refresh_token", "client_secret", "token")
        found = (getattr(self._credentials, name, None) for name in names)
        return tuple(str(secret) for secret in found if secret)

    def application_default(self) -> dict[str, Any] | None:
        """The content of a file of application default credentials for this sign-in of a user.

        None without a refresh token. Google's libraries renew the token at Google, whatever `service` is.
        """
        names = ("client_id", "client_secret", "refresh_token")
        values = {name: getattr(self._credentials, name, None) for name in names}
        return {"type": "authorized_user", **values} if all(values.values()) else None

    def header(self) -> str | None:
        """The value of the Authorization header; None if the token must be renewed first."""
        token = self._credentials.token
        return f"Bearer {token}" if token and time.monotonic() < self._fresh_until else None

    def renew(self, ask: Ask, refused: str | None) -> None:
        """Renew the token by calls of `ask`; blocks.

        Does nothing if the present token is fresh and its header is not `refused`. That is the Authorization header
        that the server refused, None if none was. Raises `SignInError` if Google no longer accepts the sign-in, and
        `ConnectionFailed` if it does not answer.
        """
        from google.auth import exceptions

        with self._lock:
            if self.header() not in (None, refused):
                return
            try:
                self._credentials.refresh(_Transport(ask))
            except exceptions.TransportError as error:
                raise ConnectionFailed(f"{self.service} does not answer ({error}).", "Try again.") from error
            except exceptions.GoogleAuthError as error:
                raise SignInError(
                    f"Google no longer accepts the sign-in of {self.source} ({_message_of(error)}).",
                    "Sign in again: haversack login google",
                ) from error
            self._fresh_until = self._renewal_time()
            self._keep(self._credentials)

    def _renewal_time(self) -> float:
        expiry = self._credentials.expiry
        if expiry is None:
            return float("inf")
        left = (expiry.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()
        return float(time.monotonic() + left - min(_MARGIN, max(left, 0.0) / 4))


class _Transport:
    """google-auth's interface of an HTTP client (`google.auth.transport.Request`), implemented by an `answer.Ask`."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        **_: Any,
    ) -> _Response:
        text = body.encode() if isinstance(body, str) else body
        return _Response(self._ask(method, url, text, headers or {}))


class _Response:
    def __init__(self, answer: Answer) -> None:
        self.status, self.headers, self.data = answer.status, answer.headers, answer.body


_opened_sign_ins: dict[tuple[str, ...], GoogleSignIn] = {}


def sign_in(way: str | None = None) -> GoogleSignIn:
    """The sign-in by `way`, one of those in the module's docstring.

    None stands for the setting `google`, else the way of the last login, else the first of `ways`. Raises `SignInError`
    if there is none or it has expired, and `InputError` if a key file is missing or invalid.
    """
    record = signin.load().google or {}
    way = way or settings.load().google or record.get("with") or next(ways(), None)
    if way is None:
        raise SignInError("Nobody is signed in to Google.", "Sign in: haversack login google")
    if way != record.get("with"):
        record = {}
    return opened({**record, "with": way})


def consented(client_file: Path | None = None, *, narrow: bool = False, browser: bool = True) -> dict[str, Any]:
    """Ask the user for access by their own OAuth client; return the record, which the caller stores.

    Args:
        client_file: the client's `client_secret.json`; None for the client of the last login or, without one, the
            file at `client_path`.
        narrow: ask for access only to files that haversack makes.
        browser: open a browser on this machine, if there is one.

    Raises `SignInError` if nobody can be asked or the user declines, `ConnectionFailed` if Google does not answer, and
    `InputError` if the file does not exist or is not an OAuth client.
    """
    from haversack import consent

    kept = signin.load().google or {}
    if client_file is not None or "client" not in kept:
        client_file = client_file or client_path()
        client, said = consent.read_client(client_file), str(client_file)
    else:
        client, said = kept["client"], kept["said"]
    scope = NARROW if narrow else FULL
    credentials = consent.obtain(client, scope, browser=browser)
    return {"with": "client", "client": client, "said": said, "scope": scope, "credentials": _as_json(credentials)}


def client_path() -> Path:
    """The file of the user's OAuth client if none was named: `client_secret.json` in the configuration folder."""
    return settings.folder() / "client_secret.json"


def knows_client() -> bool:
    """Whether an OAuth client of the user's is known: stored by the last login, or at `client_path`."""
    return "client" in (signin.load().google or {}) or client_path().is_file()


def ways() -> Iterator[str]:
    """Yield the ways in that are found here, of "colab", "rclone:NAME", "client" and "default", in order of precedence.

    Only ways that work without asking for consent: "client" needs a stored consent, rclone a token that has not expired
    or can be renewed. Key files are not searched for.
    """
    if place.here() == "colab":
        yield "colab"
    for name, section in _rclone_remotes(_rclone_file()):
        if _renews(section) or not _has_expired(section):
            yield f"rclone:{name}"
            break
    if (signin.load().google or {}).get("with") == "client":
        yield "client"
    if _default_file() is not None:
        yield "default"


def record_of(way: str) -> dict[str, Any]:
    """The record to store for the way "colab", "rclone[:NAME]" or "default".

    It holds the path of the way's file, because a job has another HOME and would not find the file.
    """
    file = _rclone_file() if way.startswith("rclone") else _default_file() if way == "default" else None
    return {"with": way, **({"file": str(file)} if file else {})}


def opened(record: Mapping[str, Any]) -> GoogleSignIn:
    """The sign-in of a stored record (see the module); the same object for the same way, file and refresh token.

    On Colab, Colab may ask the user. Raises `SignInError` if the sign-in has expired or its credentials are missing,
    and `InputError` if a key file is missing or invalid.
    """
    way = str(record["with"])
    key = (way, str(record.get("file")), str((record.get("credentials") or {}).get("refresh_token")))
    if key not in _opened_sign_ins:
        _opened_sign_ins[key] = _opened(way, record)
    return _opened_sign_ins[key]


def _opened(way: str, record: Mapping[str, Any]) -> GoogleSignIn:
    kind, _, name = way.partition(":")
    if kind == "colab":
        if place.in_kernel():
            from google.colab import auth

            auth.authenticate_user()
        # Outside the kernel, the default credentials are those that Colab's sign-in left in the environment.
        return _default("Colab")
    if kind == "rclone":
        return _rclone(name, Path(record["file"]) if "file" in record else _rclone_file())
    if kind == "client":
        return _own(record)
    if kind == "default":
        return _default("Google's application default", record.get("file"))
    return _key(Path(way).expanduser())


def is_key(file: Path) -> bool:
    """Whether `file` is a key file, of a service account or a user ("authorized_user"); an OAuth client is none."""
    return _type(file) in ("service_account", "authorized_user")


def is_service_account(file: Path) -> bool:
    """Whether `file` is the key file of a service account; False if it cannot be read."""
    return _type(file) == "service_account"


def _type(file: Path) -> str:
    try:
        return str(json.loads(file.read_text())["type"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _own(record: Mapping[str, Any]) -> GoogleSignIn:
    def keep(credentials: Any) -> None:
        with signin.changing() as kept:
            # Only if the stored sign-in is still this one: the user may have signed out or in with another client.
            if kept.google and (kept.google.get("credentials") or {}).get("client_id") == credentials.client_id:
                kept.google["credentials"] = _as_json(credentials)

    if not record.get("credentials"):
        raise SignInError("Nobody is signed in to Google.", "Sign in: haversack login google")
    return GoogleSignIn(f"the client in {record['said']}", _user(**record["credentials"]), keep=keep)


def _rclone(name: str, file: Path | None) -> GoogleSignIn:
    found = [section for remote, section in _rclone_remotes(file) if remote == name or not name]
    if not found:
        which = f"no drive remote {name!r}" if name else "no drive remote with a token"
        raise SignInError(f"rclone's configuration has {which}.", "See `rclone config`, or: haversack login google")
    section = found[0]
    if not _renews(section) and _has_expired(section):
        raise SignInError(
            f"The sign-in of rclone's remote {section.name} has expired, and only rclone can renew it.",
            "Use it once with rclone, or give it a client_id of your own with `rclone config`.",
        )
    token = json.loads(section["token"])
    credentials = _user(
        token=token.get("access_token"),
        # Without a client_id the token belongs to rclone's own client, whose secret is not ours to use.
        refresh_token=token.get("refresh_token") if _renews(section) else None,
        token_uri=section.get("token_url") or _TOKEN_URI,
        client_id=section.get("client_id"),
        client_secret=section.get("client_secret"),
        expiry=token.get("expiry"),
    )
    root = section.get("team_drive") or section.get("root_folder_id") or "root"
    return GoogleSignIn(f"rclone's remote {section.name}", credentials, root=root)


def _default(said: str, file: str | None = None) -> GoogleSignIn:
    import google.auth
    from google.auth import exceptions

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a project to bill, which Drive does not need
            load: Any = google.auth.load_credentials_from_file
            credentials, _ = load(file, scopes=[FULL]) if file else google.auth.default(scopes=[FULL])
    except exceptions.DefaultCredentialsError as error:
        raise SignInError(
            f"Google's application default credentials do not work ({_message_of(error)}).",
            f"Run: gcloud auth application-default login --scopes={FULL},https://www.googleapis.com/auth/cloud-platform",
        ) from error
    return GoogleSignIn(said, credentials, file=Path(file) if file else _default_file())


def _key(file: Path) -> GoogleSignIn:
    from google.oauth2 import service_account

    try:
        about = json.loads(file.read_text())
        kind = about.get("type")
        if kind == "service_account":
            credentials = service_account.Credentials.from_service_account_info(about, scopes=[FULL])
            return GoogleSignIn(f"the service account {about['client_email']}", credentials, file=file)
        if kind == "authorized_user":
            fields = ("token", "refresh_token", "token_uri", "client_id", "client_secret", "expiry")
            user = _user(**{name: about[name] for name in fields if name in about})
            return GoogleSignIn(str(file), user, file=file)
    except FileNotFoundError:
        raise InputError(
            f"There is no key {file}.", "HAVERSACK_GOOGLE names rclone, default, colab or a file."
        ) from None
    except (OSError, ValueError, AttributeError, KeyError) as error:
        raise InputError(f"{file} is not one of Google's keys.", "Make a new one in Google's console.") from error
    raise InputError(f"{file} is not a key for signing in.", "For an OAuth client: haversack login google --with FILE")


def _user(
    token: str | None = None,
    refresh_token: str | None = None,
    token_uri: str | None = None,
    client_id: str | None = None,
    client_secret: str | None = None,
    expiry: str | None = None,
    **_: Any,
) -> Any:
    from google.oauth2.credentials import Credentials

    end = _utc(expiry).replace(tzinfo=None) if expiry else None
    return Credentials(
        token=token,
        refresh_token=refresh_token,
        token_uri=token_uri or _TOKEN_URI,
        client_id=client_id,
        client_secret=client_secret,
        # A token of unknown expiry counts as expired if it can be renewed.
        expiry=end or (datetime(1970, 1, 1) if refresh_token else None),
    )


def _default_file() -> Path | None:
    """The file of Google's application default credentials, if there is one."""
    gcloud = Path(os.environ.get("CLOUDSDK_CONFIG") or Path.home() / ".config" / "gcloud")
    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    file = Path(named) if named else gcloud / "application_default_credentials.json"
    return file if file.is_file() else None


def _rclone_file() -> Path | None:
    """rclone's configuration file, found by rclone's own rules; None if there is none."""
    home = Path.home()
    named = os.environ.get("RCLONE_CONFIG")
    usual = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "rclone" / "rclone.conf"
    places = [Path(named)] if named else [usual, home / ".rclone.conf"]
    return next((place for place in places if place.is_file()), None)


def _rclone_remotes(file: Path | None) -> list[tuple[str, configparser.SectionProxy]]:
    """(name, section) of the Drive remotes that have a token; [] for an encrypted configuration."""
    parser = configparser.RawConfigParser(strict=False)
    try:
        if file is not None:
            parser.read_string(file.read_text(), str(file))
    except (OSError, ValueError, configparser.Error):
        return []
    sections = [parser[name] for name in parser.sections()]
    return [(one.name, one) for one in sections if one.get("type") == "drive" and _is_token(one.get("token", ""))]


def _is_token(text: str) -> bool:
    try:
        return bool(json.loads(text)["access_token"])
    except (ValueError, KeyError, TypeError):
        return False


def _renews(section: configparser.SectionProxy) -> bool:
    return bool(section.get("client_id") and json.loads(section["token"]).get("refresh_token"))


def _has_expired(section: configparser.SectionProxy) -> bool:
    expiry = json.loads(section["token"]).get("expiry")
    return bool(expiry) and _utc(expiry) < datetime.now(UTC)


def _utc(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
    return time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)


def _as_json(credentials: Any) -> dict[str, Any]:
    return dict(json.loads(credentials.to_json()))


def _message_of(error: Exception) -> str:
    """The first line of an error of google-auth, without the answer's body that may follow it."""
    return str(error.args[0] if error.args else error).splitlines()[0].rstrip(".")[:200]
