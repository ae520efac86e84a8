"""What a user may set, from `settings.toml` in the configuration folder and from the environment, which wins.

    HAVERSACK_HUB      hub       the URL of a hub, or "embedded"; drive and Kaggle both use it
    HAVERSACK_DATA     data      a folder for what must outlive the process: the embedded hub, journals, jobs
    HAVERSACK_CACHE    cache     a folder for what can be fetched again: archives, blocks

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
    """Paths are absolute; nothing is created by reading them."""

    data: Path
    cache: Path
    hub: str | None = None


def load(environment: Mapping[str, str] = os.environ, file: Path | None = None) -> Settings:
    """The settings in force now.

    Raises `InputError` for a settings file that is not TOML or names what does not exist.
    """
    file = file or platformdirs.user_config_path(_APPLICATION) / "settings.toml"
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
    hub = values.get("hub")
    return Settings(
        data=Path(str(values["data"])).expanduser().absolute(),
        cache=Path(str(values["cache"])).expanduser().absolute(),
        hub=str(hub).rstrip("/") if hub else None,
    )


def _read(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not TOML: {error}.", "Mend or remove it.") from error
