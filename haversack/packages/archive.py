"""The packages of an environment as one file on the drive, so that the next machine needs no index.

An environment that `haversack.environment(packages=…)` describes is made to be used again: by other notebooks, on other
machines. Its wheels are stored once, as `haversack/environments/KEY.zip` on the drive of a named hub:

    packages.lock     the lock of the page's own packages
    wheels/NAME.whl   the wheels that it names, as the indexes have them

KEY is a hash of what the page asks for and of the platform, Python version and accelerator. An archive is used only if
the lock in it was made for them and every wheel has a hash that the lock names; anything else in it is never looked at.
Who can write to the drive can change both, as they can change the notebooks there.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haversack.errors import HaversackError, InputError
from haversack.packages.accelerator import accelerator, pytorch_index
from haversack.packages.lock import Lock, here
from haversack.packages.requirements import Requirements
from haversack.packages.table import normalized

FOLDER = "haversack/environments"
"""The folder of the archives on the drive."""
_LOCK, _WHEEL = "packages.lock", re.compile(r"wheels/[A-Za-z0-9][\w.!+-]*\.whl")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Archived:
    """An environment's lock, and the local folder of its wheels."""

    lock: Lock
    wheels: Path


class Archives:
    """The archives on a drive.

    Args:
        files: the drive, as an fsspec file system.
        notify: called with a sentence for the user.
    """

    def __init__(self, files: Any, notify: Callable[[str], None]) -> None:
        self._files = files
        self._notify = notify

    def fetch(self, key: str, folder: Path) -> Archived | None:
        """Fetch the archive `key` into the existing `folder`, check it, and return it.

        None if there is none. None, with a notice, if it cannot be fetched or used.
        """
        path = f"{FOLDER}/{key}.zip"
        try:
            if not self._files.exists(path):
                return None
            self._files.get_file(path, str(folder / "archive.zip"))
            return Archived(_unpack(folder / "archive.zip", folder), folder / "wheels")
        except (HaversackError, OSError, EOFError, zipfile.BadZipFile) as error:
            self._notify(f"{path} on the drive cannot be used, so the indexes are asked: {_reason(error)}")
            return None

    def store(self, key: str, lock: Lock, python: Path) -> None:
        """Store the wheels of `lock` on the drive, unless they are there; `python` has pip.

        An error is a notice and is not raised: the environment itself is complete.
        """
        path = f"{FOLDER}/{key}.zip"
        try:
            if self._files.exists(path):
                return
            with tempfile.TemporaryDirectory(prefix="haversack-") as scratch:
                archive = _packed(lock, python, Path(scratch))
                self._files.makedirs(FOLDER, exist_ok=True)
                self._files.put_file(str(archive), path)
        except (HaversackError, OSError) as error:
            self._notify(f"The environment's packages were not stored on the drive: {_reason(error)}")


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, HaversackError) else f"{error or 'it is cut off'}."


def key_of(page: Requirements, python: str, as_of: str) -> str:
    """Return the key of a page's environment for this machine: 16 hexadecimal digits.

    `python` is the version of Python, of which major and minor count; `as_of` is the day after which no release is
    used, "" for none.
    """
    minor = ".".join(python.split(".")[:2])
    texts = sorted(one.text for one in page.requirements)
    parts = (*texts, "", *page.options, "", minor, here(), accelerator(), as_of)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _packed(lock: Lock, python: Path, scratch: Path) -> Path:
    """Download the wheels of `lock` into `scratch`, and return the path of the new archive there.

    Raises `InputError` if one cannot be had as a wheel.
    """
    if direct := [name for name, version in lock.packages.items() if "/" in version]:
        # The lock keeps the address, which uv would fetch on the next machine too, and never takes the wheel instead.
        raise InputError(f"{', '.join(direct)} comes from an address and not from an index.", "Name a version instead.")
    (scratch / _LOCK).write_text(lock.text)
    wheels = scratch / "wheels"
    options = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "-q", "-r", _LOCK, "-d", "wheels"]
    # pip has no --torch-backend.
    if lock.torch and (index := pytorch_index(lock.packages)):
        options += ["--extra-index-url", index]
    command = [str(python), "-I", "-B", "-m", "pip", "download", *options]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd=scratch)
    if done.returncode:
        reason = next((line for line in reversed(done.stderr.splitlines()) if line.startswith("ERROR")), "pip failed")
        raise InputError(f"{reason.removeprefix('ERROR: ').rstrip('.')}.", "Use packages that have wheels.")
    archive = scratch / "archive.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        packed.write(scratch / _LOCK, _LOCK)
        for wheel in sorted(wheels.iterdir()):
            packed.write(wheel, f"wheels/{wheel.name}")
    return archive


def _unpack(archive: Path, target: Path) -> Lock:
    """Unpack an archive's wheels into `target/wheels`, comparing each with the lock, and return the lock.

    Raises `InputError` for an archive that lacks a wheel, holds another one, is for another machine or is not one that
    `_packed` writes, and `zipfile.BadZipFile`.
    """
    (target / "wheels").mkdir()
    remedy = "Delete it on the drive, and it is stored again."
    with zipfile.ZipFile(archive) as packed:
        names = [name for name in packed.namelist() if _WHEEL.fullmatch(name)]
        if _LOCK not in packed.namelist():
            raise InputError("It has no lock.", remedy)
        # A compressed member can be of any size, and zipfile raises as many kinds of errors as it knows compressions.
        if foreign := next((name for name in (_LOCK, *names) if not _is_stored(packed.getinfo(name))), None):
            raise InputError(f"Its {Path(foreign).name} is compressed or encrypted, which haversack's are not.", remedy)
        lock = Lock.decode(packed.read(_LOCK).decode(errors="replace"))
        if not lock.fits:
            raise InputError(f"Its lock is for {lock.platform} and {lock.accelerator}.", remedy)
        allowed = set(_HASH.findall(lock.pins))
        for name in names:
            with packed.open(name) as source, open(target / name, "wb") as copy:
                shutil.copyfileobj(source, copy)
            with open(target / name, "rb") as copy:
                digest = hashlib.file_digest(copy, "sha256").hexdigest()
            if digest not in allowed:
                raise InputError(f"{Path(name).name} is not the wheel that its lock names.", remedy)
    if missing := lock.packages.keys() - {normalized(Path(name).name.partition("-")[0]) for name in names}:
        raise InputError(f"It has no wheel of {', '.join(sorted(missing))}, which its lock names.", remedy)
    return lock


def _is_stored(member: zipfile.ZipInfo) -> bool:
    """Whether the member is written as `_packed` writes it: neither compressed nor encrypted (bit 0)."""
    is_plain = member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1
    return is_plain and member.compress_size == member.file_size
