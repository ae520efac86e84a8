"""The inputs of a job: data sets, competitions, folders and files that its cells see below `/kaggle/input`.

Runs in the process of `haversack run` and in the one that serves the mount. An input is given as

    kaggle:owner/name          a data set, also with /versions/3 or @3, /folder, or as the link to its page
    kaggle:c/competition       a competition's data, also without `kaggle:`
    drive:/My Drive/x          a folder or a zip archive on the drive, or another fsspec URL
    path                       a folder, a zip archive or any other single file of this machine
    NAME=…                     any of these under another name

It is opened before the job starts, and its version and content are recorded with the job. A later session opens the
same version, or fails and says which input is gone or changed.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
import time
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import urlsplit

from haversack import credentials
from haversack.credentials import Server
from haversack.datasets.kaggle import KaggleApi
from haversack.datasets.source import dataset, normalize_source
from haversack.errors import HaversackError, InputError, NotFound
from haversack.http import Http, wait
from haversack.notebook.kaggle.attachment import AttachedInput

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
_RENAMED = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)=(?P<source>.+)", re.ASCII)
_COMPETITION = re.compile(r"(?:kaggle:)?(?:c|competitions)/(?P<name>[A-Za-z0-9][\w.-]*)", re.ASCII)
_OLD_VERSION = re.compile(r"(?P<set>kaggle:[\w-]+/[\w.-]+)/versions/(?P<number>[1-9][0-9]*)", re.ASCII)
_LOOKUP_SECONDS = 10.0
_ACCEPTED = "Give --input kaggle:owner/name, kaggle:c/competition, drive:/folder, or the path of a folder or file."


class InputFiles(Protocol):
    """The files of an input. Methods that read raise what `Dataset` raises.

    Attributes:
        is_archive: whether they are members of an archive, which is read in place; else each is a file of this disk
            once it is opened.
    """

    is_archive: bool

    @property
    def content(self) -> str: ...

    def sizes(self) -> Iterable[tuple[str, int]]:
        """Return the name, with slashes, and the size in bytes of each file."""
        ...

    def open(self, name: str) -> BinaryIO: ...

    def read(self, name: str) -> bytes: ...

    def prefetch(self, names: Sequence[str]) -> None:
        """Fetch these files in the background, in this order, instead of those of an earlier call."""
        ...

    def extract(self, folder: Path) -> None:
        """Write all files below the folder `folder`, created if it is missing."""
        ...

    def close(self) -> None: ...


class DatasetFiles:
    """`InputFiles` of the data set `source`, opened on `hub` as `haversack.dataset` does, which has the errors."""

    def __init__(self, source: str, hub: str | None) -> None:
        self._opened = dataset(source, hub)
        self.source = self._opened.source
        self.name = self._opened.name
        self.is_archive = self._opened.is_archive

    @property
    def content(self) -> str:
        return self._opened.content

    def sizes(self) -> Iterable[tuple[str, int]]:
        return self._opened.sizes()

    def open(self, name: str) -> BinaryIO:
        return self._opened.open(name)

    def read(self, name: str) -> bytes:
        return self._opened.read(name)

    def prefetch(self, names: Sequence[str]) -> None:
        self._opened.want(names)

    def extract(self, folder: Path) -> None:
        self._opened.extract(folder)

    def close(self) -> None:
        self._opened.close()


class SingleFile:
    """`InputFiles` of one local file that is no archive. Raises `OSError` if it cannot be read."""

    is_archive = False

    def __init__(self, path: Path) -> None:
        self.source = str(path)
        self.name = path.stem
        self._path = path
        self._status = path.stat()

    @cached_property
    def content(self) -> str:
        known = f"{self._path} {self._status.st_size} {self._status.st_mtime_ns}"
        return hashlib.sha256(known.encode()).hexdigest()[:16]

    def sizes(self) -> Iterable[tuple[str, int]]:
        return [(self._path.name, self._status.st_size)]

    def open(self, name: str) -> BinaryIO:
        return open(self._path, "rb")

    def read(self, name: str) -> bytes:
        return self._path.read_bytes()

    def prefetch(self, names: Sequence[str]) -> None:
        """Do nothing: the file is local."""

    def extract(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._path, folder / self._path.name)

    def close(self) -> None:
        """Do nothing: no file stays open."""


def attach(given: Sequence[str], hub: str | None) -> list[AttachedInput]:
    """Open each input once, as the job's hub option `hub` serves it, and return the records.

    Raises `InputError` for an input of no known form and for two of one name, and what `haversack.dataset` raises:
    `NotFound`, `Forbidden`, `SignInError`, `ConnectionFailed`, `ArchiveInvalid` and others.
    """
    attached: dict[str, AttachedInput] = {}
    for text in given:
        one = _attached(text, hub)
        if (other := attached.get(one.name)) is not None:
            raise InputError(
                f"Two inputs are named {one.name}: {other.source} and {one.source}.",
                f"Name one of them anew: --input NAME={one.source}",
            )
        attached[one.name] = one
    return list(attached.values())


def _attached(text: str, hub: str | None) -> AttachedInput:
    name, source = parse(text)
    files = open_files(source, hub)
    try:
        name = name or files.name
        if not _NAME.fullmatch(name):
            raise InputError(f"{name!r} is no name for an input.", f"Give it one: --input NAME={source}")
        # The canonical source has the version; of other addresses it leaves out what opens them.
        pinned = files.source if source.startswith("kaggle:") else source
        return AttachedInput(name, pinned, files.content, float(int(time.time())))
    finally:
        files.close()


def parse(text: str) -> tuple[str, str]:
    """Return the name that an `--input` option gives, or "", and its source in the form of `haversack.dataset`.

    Raises `InputError` for a name without an owner, and for a path that does not exist.
    """
    name = ""
    if (renamed := _RENAMED.fullmatch(text)) and not Path(text).exists():
        name, text = renamed["name"], renamed["source"]
    path = Path(text).expanduser()
    if path.exists():
        return name, str(path.absolute())
    if competition := _COMPETITION.fullmatch(text):
        return name, f"kaggle:c/{competition['name']}"
    if old := _OLD_VERSION.fullmatch(text):
        return name, f"{old['set']}@{old['number']}"
    source = normalize_source(text)
    if "@" in urlsplit(source).netloc:
        raise InputError("An input's address is kept with the job, so it may have no password.", "Leave that out.")
    if source.startswith("kaggle:") or "://" in source:
        return name, source
    known = re.fullmatch(r"[\w-]+/[\w.-]+", text)
    next_step = f"For Kaggle's data set write --input kaggle:{text}" if known else _ACCEPTED
    raise InputError(f"There is no file or folder {text}.", next_step)


def open_files(source: str, hub: str | None) -> DatasetFiles | SingleFile:
    """Open the files of an input by its source. Raises what `haversack.dataset` raises, and `OSError`."""
    path = Path(source)
    if path.is_file() and not _is_zip(path):
        return SingleFile(path)
    return DatasetFiles(source, hub)


def reopen(one: AttachedInput, hub: str | None) -> DatasetFiles | SingleFile:
    """Open the files of a recorded input again.

    Raises `NotFound` if it is gone, `InputError` if its files have changed since it was attached, and what else
    `haversack.dataset` raises.
    """
    try:
        files = open_files(one.source, hub)
    except (NotFound, InputError) as error:
        raise NotFound(
            f"The input {one.name} of this job is gone: {error.what}", f"Bring back {one.source}.", status=404
        ) from error
    if files.content != one.content:
        files.close()
        raise InputError(
            f"The input {one.name} ({one.source}) has changed since the job began.",
            "Bring back its files, or run the notebook as a new job.",
        )
    return files


def sources_named(name: str, hub: str | None) -> list[str]:
    """Return the sources of the competition and the data sets called `name` that the server of Kaggle's calls knows.

    [] if no server is named and no Kaggle sign-in is found, and if the server does not answer soon: this is only asked
    to give advice.
    """
    try:
        if not (credentials.names_hub() or (hub and hub != "google") or credentials.own_kaggle()):
            return []
        return wait(asyncio.wait_for(_sources_named(name, credentials.kaggle(hub)), _LOOKUP_SECONDS))
    except (HaversackError, OSError):
        return []


async def _sources_named(name: str, server: Server) -> list[str]:
    http = Http(server, attempts=1)
    try:
        return await KaggleApi(http).sources_named(name)
    finally:
        await http.close()


def _is_zip(path: Path) -> bool:
    """Whether the local file is a zip archive by its name or its first bytes; a damaged one still counts as one."""
    with open(path, "rb") as file:
        return path.suffix == ".zip" or file.read(4) == b"PK\3\4"
