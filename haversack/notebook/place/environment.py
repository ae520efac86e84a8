"""A job's own Python environment: `pip install` in a cell changes the job, and nothing else.

It is a virtual environment without pip of its own, made in a fraction of a second. One `.pth` file lets it see the
packages that haversack itself runs with, pip among them; what a cell installs comes before those, and pip leaves what
lies outside its environment alone. The user's pip configuration is read; downloads are shared between jobs.
"""

from __future__ import annotations

import os
import site
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

# The folder that this haversack is imported from, which may be a checkout that is not installed.
_IMPORTED_FROM = Path(__file__).parents[3]


@dataclass(frozen=True)
class Environment:
    """Where the job's programs are: `bin` comes first on its PATH."""

    folder: Path

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def python(self) -> Path:
        return self.bin / "python"

    def variables(self, cache: Path) -> dict[str, str]:
        """What has to be set so that pip and uv work on this environment, with downloads kept in `cache`."""
        values = {
            "VIRTUAL_ENV": str(self.folder),
            "PIP_CACHE_DIR": str(cache / "pip"),
            "UV_CACHE_DIR": str(cache / "uv"),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_USER": "0",
        }
        configuration = _pip_configuration()
        return {**values, "PIP_CONFIG_FILE": str(configuration)} if configuration else values


def create(folder: Path) -> Environment:
    """A new environment in `folder`, which must not exist."""
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    environment = Environment(folder)
    packages = next(folder.glob("lib/python*/site-packages"))
    lines = [f"import site; site.addsitedir({str(path)!r})" for path in _parent_packages()]
    lines.append(str(_IMPORTED_FROM))
    (packages / "haversack.pth").write_text("\n".join(lines) + "\n")
    for name in ("pip", "pip3"):
        _write_program(environment.bin / name, f'exec "{environment.python}" -m pip "$@"')
    return environment


def write_kaggle(folder: Path, environment: Environment) -> None:
    """Write the `kaggle` command (`kaggle_command`) into `folder`, which precedes `bin` on the PATH."""
    folder.mkdir(exist_ok=True)
    _write_program(folder / "kaggle", f'exec "{environment.python}" -m haversack.notebook.place.kaggle_command "$@"')


def _parent_packages() -> list[Path]:
    folders = [Path(path) for path in site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        folders.append(Path(site.getusersitepackages()))
    return [folder for folder in folders if folder.is_dir()]


def _pip_configuration() -> Path | None:
    """The user's own pip configuration, which a job would not find with its own HOME."""
    if named := os.environ.get("PIP_CONFIG_FILE"):
        return Path(named)
    configuration = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    places = [configuration / "pip" / "pip.conf", Path.home() / ".pip" / "pip.conf", Path(sys.prefix) / "pip.conf"]
    return next((place for place in places if place.is_file()), None)


def _write_program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
