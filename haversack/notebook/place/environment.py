"""A job's own Python environment: `pip install` in a cell changes this environment and nothing else.

It is a virtual environment (https://docs.python.org/3/library/venv.html) without packages, so it is created in a
fraction of a second. A `.pth` file adds the packages that haversack itself runs with, pip included. Packages that a
cell installs take precedence over those, and pip neither changes nor uninstalls packages outside the environment. The
user's pip configuration applies, and all jobs share one download cache.
"""

from __future__ import annotations

import os
import site
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

# The parent folder of the package `haversack`: site-packages, or a checkout that is not installed.
_IMPORTED_FROM = Path(__file__).parents[3]


@dataclass(frozen=True)
class Environment:
    """The virtual environment in `folder`; `bin` is its folder of commands, `python` the path of its Python."""

    folder: Path

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def python(self) -> Path:
        return self.bin / "python"

    def variables(self, cache: Path) -> dict[str, str]:
        """Return the environment variables that make pip and uv use this environment and the download cache `cache`."""
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
    """Create an environment in `folder`, which must not exist, with the commands `pip` and `pip3`, and return it.

    Raises `OSError` if it cannot be written.
    """
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
    """Write the command `kaggle`, which runs the module `kaggle_command`, to `folder`, created if missing.

    It runs by the environment's Python. The caller puts `folder` before `environment.bin` on the PATH.
    """
    folder.mkdir(exist_ok=True)
    _write_program(folder / "kaggle", f'exec "{environment.python}" -m haversack.notebook.place.kaggle_command "$@"')


def _parent_packages() -> list[Path]:
    """Return the site-packages folders of the Python that runs haversack."""
    folders = [Path(path) for path in site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        folders.append(Path(site.getusersitepackages()))
    return [folder for folder in folders if folder.is_dir()]


def _pip_configuration() -> Path | None:
    """Return the user's pip configuration file, which pip would not find with the job's HOME; None without one."""
    if named := os.environ.get("PIP_CONFIG_FILE"):
        return Path(named)
    configuration = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    places = [configuration / "pip" / "pip.conf", Path.home() / ".pip" / "pip.conf", Path(sys.prefix) / "pip.conf"]
    return next((place for place in places if place.is_file()), None)


def _write_program(path: Path, line: str) -> None:
    """Write an executable shell script of one line."""
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
