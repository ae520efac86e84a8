"""`haversack.environment(…)`, when a cell executes it.

In a job the packages are there already: the parent has read the call before the first cell (`packages.declared`).
Elsewhere, in Jupyter, on Colab or in a job with `--no-install`, the call installs what is missing, as a cell with
`%pip install` would. Everywhere it sets the variables and executes the commands.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence

from haversack.errors import InputError, InstallFailed

# The commands that this process has executed.
_executed: set[str] = set()


def environment(
    *,
    packages: Sequence[str] = (),
    apt: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    run: Sequence[str] = (),
) -> None:
    """Describe the environment of this notebook, or of all notebooks that run this page.

    `haversack run` reads the call before the first cell, so the arguments must be literals. It locks and installs the
    packages once and, with a named hub, stores them on its drive, where the next machine finds them.

    Args:
        packages: requirements, as pip takes them.
        apt: Debian packages, which are installed as `!apt-get install` would.
        env: environment variables to set, name → value.
        run: shell commands for what no package does, executed once in each session.

    Raises `InstallFailed` if a package cannot be installed, and `InputError` if a command of `run` fails. Debian
    packages that cannot be installed are only printed.
    """
    os.environ.update(env or {})
    if missing := [one for one in packages if not _is_installed(one)]:
        _install(missing)
    if apt:
        _install_debian(apt)
    for command in run:
        if command not in _executed:
            _execute(command)
            _executed.add(command)


def _is_installed(requirement: str) -> bool:
    """Whether a package that satisfies `requirement` is installed; False for one that is given by an address."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        wanted = Requirement(requirement)
        installed = importlib.metadata.version(wanted.name)
    except (InvalidRequirement, importlib.metadata.PackageNotFoundError):
        return False
    return not wanted.url and wanted.specifier.contains(installed, prereleases=True)


def _install(packages: Sequence[str]) -> None:
    """Install packages into this Python's environment by its pip; in a job's own environment uv serves pip."""
    done = subprocess.run([sys.executable, "-m", "pip", "install", "-q", *packages], check=False)
    if done.returncode:
        raise InstallFailed(
            f"{', '.join(packages)} could not be installed.",
            "See above what pip says, and correct haversack.environment.",
        )
    importlib.invalidate_caches()


def _install_debian(names: Sequence[str]) -> None:
    """Install Debian packages; if that is not possible here, say so: the notebook may do without."""
    installed = shutil.which("apt-get") is not None and (
        subprocess.run(["apt-get", "install", "-y", "-qq", *names], check=False).returncode == 0
    )
    if not installed:
        print(f"haversack: not installed here: {', '.join(names)} (Debian packages)", file=sys.stderr)


def _execute(command: str) -> None:
    done = subprocess.run(command, shell=True, check=False)
    if done.returncode:
        raise InputError(
            f"The command {command!r} of haversack.environment ended with status {done.returncode}.",
            "See above what it says, and correct it.",
        )
