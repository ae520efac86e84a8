"""What a user may set, from `settings.toml` in the configuration folder and from the environment, which wins.

    HAVERSACK_HUB      hub       the URL of a hub or "embedded", for drive and Kaggle; "google" for Google's drive
    HAVERSACK_DATA     data      a folder for what must outlive the process: the embedded hub, journals, jobs, sign-ins
    HAVERSACK_CACHE    cache     a folder for what can be fetched again: archives, blocks
    HAVERSACK_GOOGLE   google    what signs in to Google: "rclone", "rclone:REMOTE", "default", "colab", or a key's file
    HAVERSACK_ROOT     root      the id of the shared drive or folder that is meant instead of Google's My Drive
    HAVERSACK_QUOTA    quota     Google's quota of this project, like "12000/min"; see `pace`
    HAVERSACK_FOLLOW   follow    seconds between two questions what others changed on the drive (5)
    HAVERSACK_AHEAD    ahead     MB by which a file has grown when it begins to go up while it is written; 0: never (32)
    HAVERSACK_KAGGLE   kaggle    the address of a mirror of Kaggle, instead of https://api.kaggle.com
    HAVERSACK_STREAMS  streams   how many ranges of a file are fetched side by side at most (16)
    HAVERSACK_CA       ca        a PEM file of certificate authorities that are believed beside the system's

`HAVERSACK_TOKEN`, the hub's token, is read by `credentials` and never kept here.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import platformdirs

from haversack.errors import InputError

_APPLICATION = "haversack"


@dataclass(frozen=True)
class Settings:
    """Paths are absolute, `ahead` is in bytes; nothing is created by reading them."""

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
    ca: Path | None = None


def folder() -> Path:
    """The configuration folder: what the user writes for haversack to read."""
    return platformdirs.user_config_path(_APPLICATION)


def load(environment: Mapping[str, str] = os.environ, file: Path | None = None) -> Settings:
    """The settings in force now.

    Raises `InputError` for a settings file that is not TOML or names what does not exist.
    """
    file = file or folder() / "settings.toml"
    values: dict[str, object] = {
        "data": platformdirs.user_data_path(_APPLICATION),
        "cache": platformdirs.user_cache_path(_APPLICATION),
    }
    values.update(_read(file))
    known = [field.name for field in fields(Settings)]
    for name in known:
        if given := environment.get(f"HAVERSACK_{name.upper()}"):
            values[name] = given
    if unknown := sorted(set(values) - set(known)):
        raise InputError(f"{file} sets {unknown[0]!r}, which is no setting.", f"The settings are {', '.join(known)}.")

    def text(name: str) -> str | None:
        return str(values[name]).strip().rstrip("/") or None if values.get(name) else None

    def path(name: str) -> Path:
        return Path(str(values[name])).expanduser().absolute()

    return Settings(
        data=path("data"),
        cache=path("cache"),
        hub=text("hub"),
        google=text("google"),
        root=text("root"),
        quota=text("quota"),
        follow=_seconds(values.get("follow", Settings.follow)),
        ahead=_bytes(values["ahead"]) if "ahead" in values else Settings.ahead,
        kaggle=text("kaggle"),
        streams=_streams(values.get("streams", Settings.streams)),
        ca=path("ca") if values.get("ca") else None,
    )


def _seconds(given: object) -> float:
    try:
        seconds = float(str(given))
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise InputError(f"The setting follow is {given!r}.", "Give it as seconds, from 0.1 to 3600.")
    return seconds


def _bytes(given: object) -> int:
    try:
        megabytes = float(str(given))
    except ValueError:
        megabytes = -1.0
    if not 0 <= megabytes <= 1e6:
        raise InputError(f"The setting ahead is {given!r}.", "Give it in MB, or 0 for never.")
    return round(megabytes * 10**6)


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
        raise InputError(f"{file} is not TOML: {error}.", "Mend or remove it.") from error
