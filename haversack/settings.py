"""The settings, from `settings.toml` in the configuration folder and from the environment, which takes precedence.

    HAVERSACK_HUB      hub       the URL of a hub or "embedded", for drive and Kaggle; "google" for Google's drive
    HAVERSACK_DATA     data      the folder for data that must not be lost: embedded hub, journals, jobs, sign-ins
    HAVERSACK_CACHE    cache     the folder for data that can be fetched again: archives, blocks, indices
    HAVERSACK_GOOGLE   google    the sign-in to Google: "rclone", "rclone:REMOTE", "default", "colab", or a key file
    HAVERSACK_ROOT     root      the id of a shared drive or folder to use as My Drive, on Google
    HAVERSACK_QUOTA    quota     your project's quota at Google, like "12000/min"; see `rate_limit`
    HAVERSACK_FOLLOW   follow    seconds between two requests of the drive's changes feed (5)
    HAVERSACK_AHEAD    ahead     MB of new bytes after which a file is uploaded while it is written; 0: never (32)
    HAVERSACK_KAGGLE   kaggle    the address of a mirror of Kaggle, instead of https://api.kaggle.com
    HAVERSACK_STREAMS  streams   the most ranges of a file that are fetched at once (16)
    HAVERSACK_OUTPUT   output    MB of each output of a cell that an executed notebook keeps, at least 0.1 (10)
    HAVERSACK_CACHES   caches    GB of the libraries' caches that jobs share, or "private" (a fifth of the free space)
    HAVERSACK_CA       ca        a PEM file of certificate authorities to trust besides the system's
    HAVERSACK_INSTALL  install   whether a job gets its notebook's packages; no: those beside haversack (yes)
    HAVERSACK_ENVIRONMENTS  environments  GB of environments that are kept for the next jobs (20)

`HAVERSACK_TOKEN`, the hub's token, is read by `credentials` and is no setting. `HAVERSACK_SETTINGS` names another file:
a job has another HOME, so its processes are told where the user's settings are. With it and the folders for data and
cache, settings are read by the standard library alone, as a job's kernel needs it.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from haversack.errors import InputError

_APPLICATION = "haversack"
_YES, _NO = ("yes", "true", "on", "1"), ("no", "false", "off", "0")


@dataclass(frozen=True)
class Settings:
    """The settings; paths are absolute and may not exist yet.

    Attributes:
        data: the folder for data that must not be lost: embedded hub, journals, jobs, sign-ins.
        cache: the folder for data that can be fetched again.
        hub: the URL of a hub, "embedded" or "google"; None if not set.
        google: the sign-in to Google: "rclone", "rclone:REMOTE", "default", "colab" or the path of a key; None for the
            last login or the first one found.
        root: the id of the shared drive or folder used as My Drive on Google.
        quota: the project's quota at Google, such as "12000/min"; see `rate_limit.RateQuota`.
        follow: seconds between two requests of the drive's changes feed.
        ahead: bytes appended to a file after which it is uploaded while it is written; 0 for never.
        kaggle: the address of a mirror of Kaggle; None for Kaggle itself.
        streams: the most ranges of one file that are fetched at once.
        output: characters of each text output of a cell that an executed notebook keeps.
        caches: the most bytes of the model and data set caches that jobs share; 0 if they share none, None for a fifth
            of the disk's space that is free or theirs.
        ca: a PEM file of certificate authorities to trust besides the system's.
        install: whether a job gets an environment with the packages that its notebook needs.
        environments: bytes of environments that are kept for the next jobs.
    """

    data: Path
    cache: Path
    hub: str | None = None
    google: str | None = None
    root: str | None = None
    quota: str | None = None
    follow: float = 5.0
    ahead: int = 32 * 10**6
    kaggle: str | None = None
    streams: int = 16
    output: int = 10 * 10**6
    caches: int | None = None
    ca: Path | None = None
    install: bool = True
    environments: int = 20 * 10**9


def folder() -> Path:
    """The folder of the user's configuration, such as `settings.toml`. Only secrets are written there."""
    import platformdirs

    return platformdirs.user_config_path(_APPLICATION)


def path() -> Path:
    """The path of the user's `settings.toml`, which may not exist: `HAVERSACK_SETTINGS`, else in `folder`."""
    named = os.environ.get("HAVERSACK_SETTINGS")
    return Path(named).absolute() if named else folder() / "settings.toml"


def load(environment: Mapping[str, str] = os.environ, file: Path | None = None) -> Settings:
    """Read the settings from `environment` and `file`, by default the user's `settings.toml` (`path`).

    Raises `InputError` for a file that is not TOML, a name that is not a setting, and a value that cannot be used.
    """
    file = file or path()
    values = _read(file)
    known = [field.name for field in fields(Settings)]
    for name in known:
        if given := environment.get(f"HAVERSACK_{name.upper()}"):
            values[name] = given
    if unknown := sorted(set(values) - set(known)):
        raise InputError(
            f"{file} sets {unknown[0]!r}, which is not a setting.", f"The settings are {', '.join(known)}."
        )

    def text(name: str) -> str | None:
        return str(values[name]).strip().rstrip("/") or None if values.get(name) else None

    return Settings(
        data=_absolute(values.get("data") or _default_folder("data")),
        cache=_absolute(values.get("cache") or _default_folder("cache")),
        hub=text("hub"),
        google=text("google"),
        root=text("root"),
        quota=text("quota"),
        follow=_seconds(values.get("follow", Settings.follow)),
        ahead=_bytes("ahead", values["ahead"], 0) if "ahead" in values else Settings.ahead,
        kaggle=text("kaggle"),
        streams=_streams(values.get("streams", Settings.streams)),
        output=_bytes("output", values["output"], 0.1) if "output" in values else Settings.output,
        ca=_absolute(values["ca"]) if values.get("ca") else None,
        install=_yes_or_no("install", values.get("install", Settings.install)),
        environments=_gigabytes("environments", values["environments"])
        if "environments" in values
        else Settings.environments,
        caches=_caches(values.get("caches")),
    )


def parse_size(text: str, option: str) -> int:
    """Parse a size such as 15GB (powers of 1000), 2GiB (powers of 1024) or 500 (bytes) into bytes.

    `option` is the command-line option that the size was given with. Raises `InputError`, which names it, for any other
    format and for zero.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kMGT]?)(i?)B?", text.strip().replace("K", "k"))
    if found is None or float(found[1]) == 0 or (found[3] and not found[2]):
        raise InputError(f"{option} does not accept {text!r}.", "Give a size, for example 100MB or 15GB.")
    unit: int = (1024 if found[3] else 1000) ** (" kMGT".index(found[2]) if found[2] else 0)
    return round(float(found[1]) * unit)


def _absolute(given: object) -> Path:
    return Path(str(given)).expanduser().absolute()


def _default_folder(name: str) -> Path:
    """The user's folder for "data" or "cache" on this system."""
    import platformdirs

    return platformdirs.user_data_path(_APPLICATION) if name == "data" else platformdirs.user_cache_path(_APPLICATION)


def _seconds(given: object) -> float:
    try:
        seconds = float(str(given))
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise InputError(f"The setting follow is {given!r}.", "Give it as seconds, from 0.1 to 3600.")
    return seconds


def _bytes(name: str, given: object, least: float) -> int:
    try:
        megabytes = float(str(given))
    except ValueError:
        megabytes = -1.0
    if not least <= megabytes <= 1e6:
        smallest = f"at least {least}" if least else "or 0 for never"
        raise InputError(f"The setting {name} is {given!r}.", f"Give it in MB, {smallest}.")
    return round(megabytes * 10**6)


def _gigabytes(name: str, given: object) -> int:
    try:
        gigabytes = float(str(given))
    except ValueError:
        gigabytes = -1.0
    if not 0 <= gigabytes <= 1e5:
        raise InputError(f"The setting {name} is {given!r}.", "Give it in GB, or 0 to keep none.")
    return round(gigabytes * 10**9)


def _yes_or_no(name: str, given: object) -> bool:
    text = str(given).lower()
    if text not in (*_YES, *_NO):
        raise InputError(f"The setting {name} is {given!r}.", "Give yes or no.")
    return text in _YES


def _caches(given: object) -> int | None:
    if given is None:
        return None
    try:
        gigabytes = 0.0 if given == "private" else float(str(given))
    except ValueError:
        gigabytes = -1.0
    if not (given == "private" or 0 < gigabytes < 10**6):
        raise InputError(f"The setting caches is {given!r}.", 'Give it as a number of GB, or "private".')
    return round(gigabytes * 10**9)


def _streams(given: object) -> int:
    text = str(given)
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 32):
        raise InputError(f"The setting streams is {given!r}.", "Give it as a number from 1 to 32.")
    return int(text)


def _read(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not TOML: {error}.", "Correct or delete it.") from error
