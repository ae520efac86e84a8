"""A session's own Python environment: what a job writes to it, also into a package's file, stays the job's.

With packages from a lock (`packages.store`) it is a private view of the store's tree, which no job may write to:

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
import shlex
import shutil
import site
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from haversack import disk
from haversack.errors import DiskFull, JobError
from haversack.notebook.clients import interpreter
from haversack.notebook.place import kernel_path
from haversack.notebook.place.content import ContentFolder
from haversack.packages import pip_hook, uv
from haversack.packages.pip_settings import uv_settings

FOLDERS = ("env", "overlay", "kernel-path")
"""The folders of a job that have its session's environment."""


@dataclass(frozen=True)
class Environment:
    """The virtual environment of a session.

    Attributes:
        folder: where the kernel sees it.
        own: where this process can write files of it: `folder`, or the upper folder of an overlay on it.
        packages: its site-packages, relative to both.
        is_own: whether it holds what its notebook needs and nothing that haversack runs with, except at the end of its
            path (`kernel_path`); otherwise it also sees the packages that haversack runs with.
        copied: how many seconds it took to copy; 0 if it was not copied.
    """

    folder: Path
    own: Path
    packages: Path
    is_own: bool = False
    copied: float = 0.0

    @property
    def bin(self) -> Path:
        """The folder of its commands."""
        return self.folder / "bin"

    @property
    def python(self) -> Path:
        """The path of its Python."""
        return self.bin / "python"

    def variables(self, cache: Path, *, trusted: bool = True) -> dict[str, str]:
        """Return the environment variables that make pip and uv use this environment and the download cache `cache`.

        Without `trusted` nothing leads to the user's own cache and pip configuration.
        """
        values = {
            "VIRTUAL_ENV": str(self.folder),
            "PIP_CACHE_DIR": str(cache / "pip"),
            "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(cache / "uv")) if trusted else str(cache / "uv"),
            # Not hard links: a cell may write into a file that it installed, and the cache is everybody's.
            "UV_LINK_MODE": "copy",
            "HAVERSACK_UV": uv.program(),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_USER": "0",
        }
        configuration = _pip_configuration() if trusted else None
        return {**values, "PIP_CONFIG_FILE": str(configuration)} if configuration else values

    def search_path(self, commands: Path, inherited: str) -> str:
        """Return the PATH of the job: the folder `commands`, this environment's commands, then the path `inherited`.

        An environment that is the notebook's own never finds the commands that are installed beside haversack, the
        others find them before those of `inherited`.
        """
        beside = Path(sys.executable).parent
        rest = inherited.split(os.pathsep)
        if not self.is_own:
            rest.insert(0, str(beside))
        elif sys.prefix != sys.base_prefix:  # a virtual environment's folder has nothing of the system's
            rest = [folder for folder in rest if Path(folder) != beside]
        return os.pathsep.join([str(commands), str(self.bin), *rest])


def provide(
    job: Path, tree: Path | None, content: ContentFolder, cache: Path, notify: Callable[[str], None]
) -> tuple[Environment, ContentFolder]:
    """Make a session's environment in the folder `job`, and return it with the `/content` to start its kernel with.

    `tree` is the environment in the store to make a private view of; None for an environment with the packages that
    haversack runs with. `FOLDERS` in `job` must not exist. `cache` is haversack's cache folder; `notify` gets a
    sentence for the user. Raises `DiskFull`, `JobError` or `OSError` if it cannot be written.
    """
    if tree is None:
        return create(job / "env"), content
    environment, content = _view(job / "env", job / "overlay", tree, content)
    end_of_path, settings = job / "kernel-path", uv_settings()
    if notice := kernel_path.make(end_of_path, tree, cache, settings):
        notify(notice)
    kernel_path.add(end_of_path, environment.own / environment.packages)
    return environment, content


def create(folder: Path) -> Environment:
    """Create an environment in `folder`, which must not exist, with the packages that haversack runs with.

    It has the commands `pip` and `pip3`. Raises `OSError` if it cannot be written.
    """
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    environment = Environment(folder, folder, _packages(folder))
    lines = [f"import site; site.addsitedir({str(path)!r})" for path in parent_packages()]
    (folder / environment.packages / kernel_path.PTH).write_text(
        "\n".join([*lines, str(interpreter.IMPORTED_FROM)]) + "\n"
    )
    for name in ("pip", "pip3"):
        _write_program(environment.bin / name, f'exec "{environment.python}" -m pip "$@"')
    return environment


def write_commands(folder: Path, environment: Environment, *, trusted: bool = True) -> None:
    """Write the job's commands to `folder`, created if missing; the caller puts it first on the PATH.

    `kaggle` runs the module `kaggle_command` in haversack's own Python. In an environment that is the notebook's own,
    so does `haversack`, whose folder of commands is not on the PATH there; and uv serves `uv` and pip. Without packages
    of its own it must not: uv does not see what a `.pth` file adds, and would install it again. Without `trusted` there
    is no command that acts for the user.
    """
    folder.mkdir(exist_ok=True)
    if trusted:
        _write_program(folder / "kaggle", _our_program("haversack.notebook.place.kaggle_command"))
    if environment.is_own:
        if trusted:
            _write_program(folder / "haversack", _our_program("haversack"))
        write_pip_by_uv(folder, environment)


def write_pip_by_uv(folder: Path, environment: Environment) -> None:
    """Serve pip by uv in `environment`, and write the command `uv` for it to the existing `folder`."""
    _write_program(folder / "uv", f'exec "{environment.python}" -P -m haversack.packages.uv_command "$@"')
    pip_hook.write(environment.own / environment.packages)


def _our_program(module: str) -> str:
    return f'exec {shlex.join(interpreter.command(module))} "$@"'


def _view(folder: Path, own: Path, tree: Path, content: ContentFolder) -> tuple[Environment, ContentFolder]:
    """Make a private view of `tree` at `folder`: an overlay with its files in `own`, or a copy."""
    packages = _packages(tree)
    for made in (folder, own / "upper", own / "work"):
        made.mkdir(parents=True)
    if (mounting := content.with_overlay(tree, own, folder)) is not None:
        return Environment(folder, own / "upper", packages, is_own=True), mounting
    folder.rmdir()
    disk.delete_tree(own)
    started = time.monotonic()
    _copy(tree, folder)
    return Environment(folder, folder, packages, is_own=True, copied=time.monotonic() - started), content


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


def parent_packages() -> list[Path]:
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
