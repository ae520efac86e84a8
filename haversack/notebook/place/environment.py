"""A session's own Python environment: what a job writes to it, also into a package's file, stays the job's.

With packages from a lock (`environment.store`) it is a private view of the store's tree, which no job may write to:

    overlay   where `/content` is made by mounting: mounted for the kernel, in milliseconds; `overlay/upper` in the
              job's folder has what the job changed
    copy      elsewhere: the files are copied, sharing their blocks where the file system can (reflink)

Never hard links: a job that writes into a file would write through one. Without packages from a lock
(`--no-install`), it is an empty virtual environment whose `.pth` file adds the packages that haversack itself runs
with, pip included.

The user's pip configuration applies in both, and all jobs share one download cache.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from pathlib import Path

from haversack import disk
from haversack.environment import uv
from haversack.errors import DiskFull, JobError
from haversack.notebook.place.content import ContentFolder

FOLDERS = ("env", "overlay")
"""The folders of a job that have its session's environment."""
# The parent folder of the package `haversack`: site-packages, or a checkout that is not installed.
_IMPORTED_FROM = Path(__file__).parents[3]


@dataclass(frozen=True)
class Environment:
    """The virtual environment of a session.

    Attributes:
        folder: where the kernel sees it.
        own: where this process can write files of it: `folder`, or the upper folder of an overlay on it.
        packages: its site-packages, relative to both.
        copied: how many seconds it took to copy; 0 if it was not copied.
    """

    folder: Path
    own: Path
    packages: Path
    copied: float = 0.0

    @property
    def bin(self) -> Path:
        """The folder of its commands."""
        return self.folder / "bin"

    @property
    def python(self) -> Path:
        """The path of its Python."""
        return self.bin / "python"

    def variables(self, cache: Path) -> dict[str, str]:
        """Return the environment variables that make pip and uv use this environment and the download cache `cache`."""
        values = {
            "VIRTUAL_ENV": str(self.folder),
            "PIP_CACHE_DIR": str(cache / "pip"),
            "UV_CACHE_DIR": str(cache / "uv"),
            # Not hard links: a cell may write into a file that it installed, and the cache is everybody's.
            "UV_LINK_MODE": "copy",
            "HAVERSACK_UV": uv.program(),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_USER": "0",
        }
        configuration = _pip_configuration()
        return {**values, "PIP_CONFIG_FILE": str(configuration)} if configuration else values


def provide(job: Path, tree: Path | None, content: ContentFolder) -> tuple[Environment, ContentFolder]:
    """Make a session's environment in the folder `job`, and return it with the `/content` to start its kernel with.

    `tree` is the environment in the store to make a private view of; None for an environment with the packages that
    haversack runs with. `FOLDERS` in `job` must not exist. Raises `DiskFull`, `JobError` or `OSError` if it cannot be
    written.
    """
    folder = job / "env"
    if tree is None:
        return create(folder), content
    environment, content = _view(folder, job / "overlay", tree, content)
    kernel_path(environment)
    return environment, content


def create(folder: Path) -> Environment:
    """Create an environment in `folder`, which must not exist, with the packages that haversack runs with.

    It has the commands `pip` and `pip3`. Raises `OSError` if it cannot be written.
    """
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    environment = Environment(folder, folder, _packages(folder))
    kernel_path(environment)
    for name in ("pip", "pip3"):
        _write_program(environment.bin / name, f'exec "{environment.python}" -m pip "$@"')
    return environment


def kernel_path(environment: Environment) -> None:
    """Let the environment's Python import haversack, last on its path."""
    packages = environment.own / environment.packages
    packages.mkdir(parents=True, exist_ok=True)
    lines = [f"import site; site.addsitedir({str(path)!r})" for path in _parent_packages()]
    lines.append(str(_IMPORTED_FROM))
    (packages / "haversack.pth").write_text("\n".join(lines) + "\n")


def write_kaggle(folder: Path, environment: Environment) -> None:
    """Write the command `kaggle`, which runs the module `kaggle_command`, to `folder`, created if missing.

    It runs by the environment's Python. The caller puts `folder` before `environment.bin` on the PATH.
    """
    folder.mkdir(exist_ok=True)
    _write_program(folder / "kaggle", f'exec "{environment.python}" -m haversack.notebook.place.kaggle_command "$@"')


def _view(folder: Path, own: Path, tree: Path, content: ContentFolder) -> tuple[Environment, ContentFolder]:
    """Make a private view of `tree` at `folder`: an overlay with its files in `own`, or a copy."""
    packages = _packages(tree)
    for made in (folder, own / "upper", own / "work"):
        made.mkdir(parents=True)
    if (mounting := content.with_overlay(tree, own, folder)) is not None:
        return Environment(folder, own / "upper", packages), mounting
    folder.rmdir()
    disk.delete_tree(own)
    started = time.monotonic()
    _copy(tree, folder)
    return Environment(folder, folder, packages, time.monotonic() - started), content


def _copy(tree: Path, folder: Path) -> None:
    """Copy `tree` to `folder`, which must not exist, sharing blocks where the file system can.

    Raises `DiskFull` or `JobError`; the half of a copy is deleted.
    """
    share = ["-c"] if sys.platform == "darwin" else ["--reflink=auto"]
    done = subprocess.run(["cp", "-a", *share, str(tree), str(folder)], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    shutil.rmtree(folder, ignore_errors=True)
    if "No space left" in done.stderr:
        raise DiskFull("The disk is full, so the environment was not copied.", "Free space: haversack jobs rm --done")
    raise JobError(f"The environment was not copied: {done.stderr.strip().splitlines()[-1]}.", "Run the job again.")


def _packages(environment: Path) -> Path:
    """The site-packages of a virtual environment, relative to it."""
    return next(environment.glob("lib/python*/site-packages")).relative_to(environment)


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
