"""The Python of a notebook's environment: haversack's own if the notebook allows it, else one that uv finds or fetches.

haversack's part in the kernel needs one of the versions that haversack itself runs on.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from haversack.errors import ConnectionFailed, InputError, InstallFailed
from haversack.packages.uv import Uv

OLDEST, NEWEST = (3, 11), (3, 13)
"""The versions of Python that haversack runs on; `pyproject.toml` has the same."""
_MOST_PATCHES = 40  # releases of a version that are looked at
_LOOK = "import sys, platform, json; print(json.dumps([sys.executable, platform.python_version()]))"


@dataclass(frozen=True)
class Python:
    """An interpreter: its absolute `path`, and its `version`, such as "3.11.7"."""

    path: Path
    version: str

    @property
    def minor(self) -> str:
        """The version without its last number, such as "3.11"."""
        return ".".join(self.version.split(".")[:2])


def own() -> Python:
    """Return the interpreter that haversack runs on; in a virtual environment, the one that it was made from."""
    return Python(Path(getattr(sys, "_base_executable", "") or sys.executable).resolve(), platform.python_version())


def check(wanted: str) -> None:
    """Raise `InputError` if `wanted`, as `find` takes it, is no version, or if haversack runs on none of them."""
    specifier = _specifier(wanted)
    versions = (f"3.{minor}.{patch}" for minor in range(OLDEST[1], NEWEST[1] + 1) for patch in range(_MOST_PATCHES))
    if specifier and not any(allows(specifier, version) for version in versions):
        raise InputError(
            f"The notebook asks for Python {wanted}, and haversack runs notebooks on 3.{OLDEST[1]} to 3.{NEWEST[1]}.",
            f"Change its requires-python, or name a version: --python 3.{NEWEST[1]}",
        )


def find(wanted: str, uv: Uv, folder: Path) -> Python:
    """Return an interpreter that `wanted` allows: a version such as "3.12", or a PEP 440 specifier; "" for any.

    haversack's own is preferred. uv looks for others on this machine, and fetches one if there is none. `folder` is an
    existing folder to run uv in. Raises what `check` raises, and `InstallFailed` if there is no such Python.
    """
    specifier = _specifier(wanted)
    if not specifier or allows(specifier, own().version):
        return own()
    check(wanted)
    bounded = f"{specifier},>=3.{OLDEST[1]},<3.{NEWEST[1] + 1}"
    return _look_at(Path(_found(bounded, wanted, uv, folder)))


def _specifier(wanted: str) -> str:
    """`wanted` as a PEP 440 specifier: "3.12" means any release of it."""
    if re.fullmatch(r"3\.\d+", wanted):
        return f"=={wanted}.*"
    return f"=={wanted}" if wanted[:1].isdigit() else wanted


def allows(specifier: str, version: str) -> bool:
    """Whether the PEP 440 `specifier`, such as ">=3.12,<4", allows the `version`. Raises `InputError` if it is none."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        return version in SpecifierSet(specifier)
    except InvalidSpecifier:
        raise InputError(f"{specifier!r} is no version of Python.", "Write for example 3.12, or >=3.11.") from None


def _found(bounded: str, wanted: str, uv: Uv, folder: Path) -> str:
    try:
        return uv.run("python", "find", "--system", bounded, cwd=folder).strip()
    except InstallFailed:
        uv.show(f"fetching Python {wanted}")
    try:
        uv.run("python", "install", "--no-bin", bounded, cwd=folder)
        return uv.run("python", "find", "--system", bounded, cwd=folder).strip()
    except (InstallFailed, ConnectionFailed):
        raise InstallFailed(
            f"There is no Python {wanted} on this machine, and none could be fetched.",
            "Install it, or name another with --python VERSION.",
        ) from None


def _look_at(path: Path) -> Python:
    """Return the interpreter at `path`. Raises `InstallFailed` if it does not start."""
    done = subprocess.run([str(path), "-I", "-c", _LOOK], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise InstallFailed(f"{path} does not start.", "Name another Python with --python VERSION.")
    executable, version = json.loads(done.stdout)
    return Python(Path(os.path.realpath(executable)), version)
