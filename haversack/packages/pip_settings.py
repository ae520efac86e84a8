"""pip's configuration, as uv understands it. uv reads neither pip's files nor `PIP_*`.

    settings = uv_settings()                                    # what pip would use in this process
    command = [uv, "pip", "install", *settings.arguments, "pandas"]
    subprocess.run(command, env={**os.environ, **settings.variables})

Values travel as environment variables where uv has one, because an index's address may hold a password, which a command
line would show to every user of the machine. What the user told uv itself, by `UV_*` or in a `uv.toml`, takes
precedence, option by option: those variables are simply not in `variables`. Only the standard library is used, so that
a kernel can import this module.

pip's files, the later one wins (https://pip.pypa.io/en/stable/topics/configuration/): `pip/pip.conf` in each of
`XDG_CONFIG_DIRS` (`/etc/xdg`), `/etc/pip.conf`; `~/.pip/pip.conf` and `pip/pip.conf` in `XDG_CONFIG_HOME`
(`~/.config`), unless `PIP_CONFIG_FILE` names a file; `pip.conf` in `sys.prefix`; `PIP_CONFIG_FILE`. If that is
`/dev/null`, no file is read. Of their sections, `[global]` counts and then `[install]`; then the variables `PIP_*`.

| pip | uv |
|---|---|
| `index-url` | `UV_DEFAULT_INDEX` |
| `extra-index-url` | `UV_INDEX`, and `UV_INDEX_STRATEGY=unsafe-best-match`: pip takes the best version of all indexes |
| `find-links` | `UV_FIND_LINKS` |
| `no-index` | `--no-index` |
| `constraint` | `UV_CONSTRAINT` |
| `cert`, `client-cert` | `SSL_CERT_FILE`, `SSL_CLIENT_CERT` |
| `proxy` | `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` |
| `trusted-host` | `UV_INSECURE_HOST` |
| `timeout`, `retries` | `UV_HTTP_TIMEOUT`, `UV_HTTP_RETRIES` |
| `pre` | `UV_PRERELEASE=allow` |
| `only-binary`, `no-binary` | `--only-binary`, `--no-binary` |

Everything else in pip's configuration is about pip alone, or about where packages go, which is not the user's choice in
a job.
"""

from __future__ import annotations

import configparser
import os
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from haversack.errors import InputError

_YES = ("y", "yes", "t", "true", "on", "1")
# What the user may have told uv itself: pip's option → uv's variables, and keys of a uv.toml.
_UV_VARIABLES = {
    "index-url": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "extra-index-url": ("UV_INDEX", "UV_EXTRA_INDEX_URL"),
    "find-links": ("UV_FIND_LINKS",),
    "constraint": ("UV_CONSTRAINT",),
    "cert": ("SSL_CERT_FILE",),
    "client-cert": ("SSL_CLIENT_CERT",),
    "trusted-host": ("UV_INSECURE_HOST",),
    "timeout": ("UV_HTTP_TIMEOUT",),
    "retries": ("UV_HTTP_RETRIES",),
    "pre": ("UV_PRERELEASE",),
}
_UV_KEYS = {
    "index-url": ("index", "index-url"),
    "extra-index-url": ("index", "extra-index-url"),
    "find-links": ("find-links",),
    "no-index": ("no-index",),
    "trusted-host": ("allow-insecure-host",),
    "proxy": ("http-proxy", "https-proxy"),
    "pre": ("prerelease",),
    "only-binary": ("only-binary", "no-build"),
    "no-binary": ("no-binary",),
}


@dataclass(frozen=True)
class UvSettings:
    """What pip is configured to do, for uv.

    Attributes:
        variables: environment variables for uv's process, over the inherited ones. Their values may hold secrets.
        arguments: options for `uv pip install`, `compile` and `sync`, which have no variable.
    """

    variables: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()


def uv_settings(environment: Mapping[str, str] = os.environ, prefix: str = sys.prefix) -> UvSettings:
    """Return pip's configuration for uv.

    `environment` has HOME, `PIP_*`, `XDG_*` and the variables that uv will inherit; `prefix` is the environment whose
    pip is meant, like `sys.prefix`. A file that cannot be opened is ignored, as pip ignores it. Raises `InputError` for
    one that is no configuration, with which pip does not start.
    """
    own = _told_to_uv(environment)
    values = {name: value for name, value in pip_options(environment, prefix).items() if name not in own}
    variables = {**_index_variables(values), **_other_variables(values)}
    arguments = ["--no-index"] if values.get("no-index", "").lower() in _YES else []
    for name in ("only-binary", "no-binary"):
        arguments += [f"--{name}={one}" for one in values.get(name, "").replace(",", " ").split()]
    if "UV_INDEX_STRATEGY" in environment:
        variables.pop("UV_INDEX_STRATEGY", None)
    return UvSettings(variables, tuple(arguments))


def pip_options(environment: Mapping[str, str] = os.environ, prefix: str = sys.prefix) -> dict[str, str]:
    """Return the long names of pip's options, without dashes → their configured values, which are never empty.

    Raises `InputError` for a file that is no configuration.
    """
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}}
    for file in _configuration_files(environment, prefix):
        for section, options in _sections(file).items():
            found.setdefault(section, {}).update(options)
    variables = {_name(name[4:]): value for name, value in environment.items() if name.startswith("PIP_")}
    return {
        name: value for part in (found["global"], found["install"], variables) for name, value in part.items() if value
    }


def _configuration_files(environment: Mapping[str, str], prefix: str) -> list[Path]:
    """The paths of pip's configuration files, in the order in which pip reads them; they need not exist."""
    named = environment.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return []
    home, user, machine = _folders(environment)
    files = [*(folder / "pip" / "pip.conf" for folder in machine), Path("/etc/pip.conf")]
    if not named or not Path(named).exists():
        files += [home / ".pip" / "pip.conf", user / "pip" / "pip.conf"]
    files.append(Path(prefix) / "pip.conf")
    return [*files, Path(named)] if named else files


def _folders(environment: Mapping[str, str]) -> tuple[Path, Path, list[Path]]:
    """The user's home, and the folders for configuration of the user and of the machine."""
    home = Path(environment.get("HOME") or Path.home())
    machine = (environment.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)
    return home, Path(environment.get("XDG_CONFIG_HOME") or home / ".config"), [Path(folder) for folder in machine]


def _sections(file: Path) -> dict[str, dict[str, str]]:
    """The sections of a configuration file, with the names of options as pip compares them; {} if it cannot be opened.

    Raises `InputError` if it is no configuration. The sentence does not have its lines, which may hold passwords.
    """
    parser = configparser.RawConfigParser()
    parser.optionxform = _name  # type: ignore[assignment,method-assign]
    try:
        parser.read(file, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise InputError(
            f"{file} is no configuration that pip can read{_where(error)}.",
            "Correct it, or name another file with PIP_CONFIG_FILE.",
        ) from None
    except OSError:
        return {}
    return {section: dict(parser.items(section)) for section in parser.sections()}


def _where(error: Exception) -> str:
    """The line of the first mistake; "" if it is unknown."""
    errors = getattr(error, "errors", None)
    line = errors[0][0] if errors else getattr(error, "lineno", None)
    return f": see line {line}" if line else ""


def _name(option: str) -> str:
    name = option.lower().replace("_", "-").removeprefix("--")
    return "timeout" if name == "default-timeout" else name  # PIP_DEFAULT_TIMEOUT is the variable of --timeout


def _index_variables(values: Mapping[str, str]) -> dict[str, str]:
    """Where packages come from: indexes, folders and pages of links, and the versions that are allowed."""
    found = {}
    if index := values.get("index-url"):
        found["UV_DEFAULT_INDEX"] = index
    if extra := values.get("extra-index-url"):
        found["UV_INDEX"] = " ".join(extra.split())
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    if links := values.get("find-links"):
        found["UV_FIND_LINKS"] = ",".join(map(_absolute, links.split()))
    if constraint := values.get("constraint"):
        found["UV_CONSTRAINT"] = " ".join(map(_absolute, constraint.split()))
    if values.get("pre", "").lower() in _YES:
        found["UV_PRERELEASE"] = "allow"
    return found


def _other_variables(values: Mapping[str, str]) -> dict[str, str]:
    """How the indexes are reached: certificates, proxies, hosts to trust, and patience."""
    found = {}
    if cert := values.get("cert"):
        found["SSL_CERT_FILE"] = _absolute(cert)
    if cert := values.get("client-cert"):
        found["SSL_CLIENT_CERT"] = _absolute(cert)
    if proxy := values.get("proxy"):
        proxy = proxy if "://" in proxy else f"http://{proxy}"
        found |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), proxy)
    if hosts := values.get("trusted-host"):
        found["UV_INSECURE_HOST"] = " ".join(hosts.split())
    timeout = values.get("timeout", "")
    if timeout.replace(".", "", 1).isdigit():
        found["UV_HTTP_TIMEOUT"] = str(max(1, round(float(timeout))))
    if values.get("retries", "").isdigit():
        found["UV_HTTP_RETRIES"] = values["retries"]
    return found


def _absolute(place: str) -> str:
    """`place`, a path or an address, with a path made absolute: uv may run in another folder."""
    return place if "://" in place or place.startswith("file:") else os.path.abspath(os.path.expanduser(place))


def _told_to_uv(environment: Mapping[str, str]) -> set[str]:
    """pip's options about which the user has told uv something else, by a variable or in a `uv.toml`."""
    told = {name for name, variables in _UV_VARIABLES.items() if any(environment.get(one) for one in variables)}
    keys = {key for file in uv_files(environment) for key in _uv_keys(file)}
    return told | {name for name, ours in _UV_KEYS.items() if keys.intersection(ours)}


def uv_files(environment: Mapping[str, str]) -> list[Path]:
    """Return the paths of uv's configuration files of the user and of the machine; they need not exist.

    See https://docs.astral.sh/uv/concepts/configuration-files.
    """
    if environment.get("UV_NO_CONFIG"):
        return []
    if named := environment.get("UV_CONFIG_FILE"):
        return [Path(named)]
    _, user, machine = _folders(environment)
    return [folder / "uv" / "uv.toml" for folder in (user, *machine, Path("/etc"))]


def _uv_keys(file: Path) -> set[str]:
    try:
        content = tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return set()  # uv itself reports a file that it cannot read
    pip = content.get("pip")
    return content.keys() | (pip.keys() if isinstance(pip, dict) else set())
