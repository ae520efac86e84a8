"""Diagnose why a drive is slow or full, and name the command that fixes it. Nothing is changed.

The machine that it is used from is examined by `haversack.machine`.

The whole drive is read with one search, a thousand files per call. Only counts are kept: files per folder, duplicate
names, nesting depth. A finding comes with the cost of its fix: one call for each file that moves, at the rate that
Drive is known to sustain for hours.

A crowded folder does not slow down haversack, which looks names up. It slows down programs that list it, such as
Colab's own mount.
"""

from __future__ import annotations

import math
import shlex
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from typing import Any

from haversack import credentials, progress, settings
from haversack.credentials import Server
from haversack.drive.fuse import registry
from haversack.drive.remote.api import DriveApi
from haversack.drive.remote.calls import PARENTS_PER_QUERY, SHORTCUT, File, Quota
from haversack.errors import ConnectionFailed, NotAFolder, NotFound, SignInError
from haversack.http import Http, wait

CROWDED = 5000
"""A folder with this many entries counts as crowded: programs that list it fail or wait for minutes."""
CROWDED_ROOT = 1000
"""The same for My Drive itself, which a mount lists before anything else."""
_DEEP = 50
_CALLS_PER_SECOND = 10.0  # what Drive sustains for hours
_FULL = 0.9  # of the limit
_MUCH_TRASH = 0.05  # of the limit, or of what is used if there is none
_GOOGLE_TYPES = "application/vnd.google-apps."
_MAX_NAMES_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """One thing that the doctor found out.

    Attributes:
        what: The finding, in one sentence.
        serious: Whether it is a problem, not only a fact worth knowing.
        mend: The command line that fixes it; "" if there is none.
        calls: About how many API calls that command makes; 0 if unknown.
        minutes: About how long it takes.
    """

    what: str
    serious: bool = False
    mend: str = ""
    calls: int = 0
    minutes: float = 0.0

    def __str__(self) -> str:
        lines = [("! " if self.serious else "· ") + self.what]
        if self.mend:
            cost = f"   (about {self.calls:,} calls, {_duration(self.minutes)})" if self.calls else ""
            lines.append(f"      {self.mend}{cost}")
        return "\n".join(lines)


@dataclass
class Checkup:
    """What the doctor found on a drive and on this machine.

    | field | meaning |
    |---|---|
    | `drive`, `url`, `source` | the drive's name and address, and where its sign-in was found |
    | `user` | who is signed in, "" if unknown |
    | `reachable` | whether the drive answered; if not, only `waiting`, `stale_mounts` and `findings` are set below |
    | `round_trip` | milliseconds, the median of three calls |
    | `used`, `limit`, `in_trash` | bytes; `limit` is None if there is none |
    | `folder` | the examined folder below My Drive, "" for all of it |
    | `files`, `folders`, `shortcuts`, `documents` | how many are below it; `files` includes shortcuts and documents |
    | `duplicates` | how many of them have the name of another file in the same folder, the first one not counted |
    | `depth` | levels of nested folders |
    | `crowded` | path → number of entries, of each folder with so many that programs fail to list it |
    | `waiting` | written files of this machine that are not on their drive yet |
    | `stale_mounts` | mountpoints whose serving process is dead |
    | `calls`, `seconds` | API calls that the examination made, and how long it took |
    | `findings` | problems and facts in words, with the commands that fix them |
    """

    drive: str
    url: str
    source: str
    user: str = ""
    reachable: bool = False
    round_trip: float = 0.0
    used: int = 0
    limit: int | None = None
    in_trash: int = 0
    folder: str = ""
    files: int = 0
    folders: int = 0
    shortcuts: int = 0
    documents: int = 0
    duplicates: int = 0
    depth: int = 0
    crowded: dict[str, int] = field(default_factory=dict)
    waiting: int = 0
    stale_mounts: list[str] = field(default_factory=list)
    calls: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def json(self) -> dict[str, Any]:
        """Return all fields as a dictionary of JSON values; each finding is a dictionary too."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.drive} at {self.url}, signed in by {self.source}"]
        if self.reachable:
            limit = f" of {progress.size(self.limit)}" if self.limit is not None else ""
            lines[0] += f" as {self.user}" if self.user else ""
            space = f"{progress.size(self.used)}{limit} used, {progress.size(self.in_trash)} of it in the trash"
            where = self.folder or "My Drive"
            content = f"{_counted(self.files, 'file')} in {_counted(self.folders, 'folder')}, {self.depth} deep"
            lines += [
                f"  round trip   {self.round_trip:.0f} ms",
                f"  space        {space}",
                f"  {where:<12} {content}",
                f"  read with    {_counted(self.calls, 'call')} in {self.seconds:.1f} s",
            ]
        lines += ["", *(str(finding) for finding in self.findings or [Finding("Nothing is wrong.")])]
        return "\n".join(lines)


def examine(folder: str = "", hub: str | None = None) -> Checkup:
    """Examine a drive, or one folder with all below it, and this machine's pending files and mounts.

    Args:
        folder: A path below My Drive; "" for all of it.
        hub: The drive: a hub's URL, "google", "embedded", or None for the default of `credentials.drive`.

    A drive that does not answer or refuses the sign-in is a finding, not an error. Raises `NotFound` or `NotAFolder`
    for `folder`, `SignInError` if no sign-in is found, `InputError` for an invalid `hub`, `ConnectionFailed` if the
    embedded hub does not start, and `RemoteError` if the drive answers with an error.
    """
    server = credentials.drive(hub)
    checkup = Checkup(server.name, server.url, server.source, folder=folder)
    _check_this_machine(checkup)
    try:
        wait(_Examination(server, checkup).run(folder))
    except (ConnectionFailed, SignInError) as error:
        checkup.findings.insert(0, Finding(str(error), serious=True))
    return checkup


def _check_this_machine(checkup: Checkup) -> None:
    """Add findings about this machine's pending files and dead mounts, of all drives."""
    checkup.waiting = sum(1 for _ in (settings.load().data / "drives").glob("*/*/*.json"))
    if checkup.waiting:
        text = f"{_counted(checkup.waiting, 'written file')} on this machine not uploaded yet."
        checkup.findings.append(Finding(text, mend="haversack drive status"))
    for record in registry.records():
        if record.kind == "fuse" and not record.is_served():
            checkup.stale_mounts.append(record.mountpoint)
            text = f"The process of the mount at {record.mountpoint} is dead."
            checkup.findings.append(Finding(text, True, f"haversack unmount {shlex.quote(record.mountpoint)}"))


@dataclass
class _Folder:
    name: str
    parent: str


class _Examination:
    """Reads a drive once and fills in `checkup`. It keeps folders and counts in memory, not files."""

    def __init__(self, server: Server, checkup: Checkup) -> None:
        self.checkup = checkup
        self.http = Http(server, attempts=5)
        self.api = DriveApi(server, self.http)
        self.server = server
        # All of these are of every folder that was read; `_conclude` keeps what is below the examined one.
        self.folders: dict[str, _Folder] = {}
        self.entries: Counter[str] = Counter()
        self.shortcuts: Counter[str] = Counter()
        self.documents: Counter[str] = Counter()
        self.names: set[int] = set()
        self.duplicates: list[tuple[str, str]] = []

    async def run(self, folder: str) -> None:
        """Read everything below `folder` and fill in the checkup; closes `http`, so it can be called once.

        Raises `NotFound` or `NotAFolder` for `folder`, `ConnectionFailed`, `SignInError`, and `RemoteError`.
        """
        started = time.monotonic()
        try:
            root = await self._contact()
            top = await self._find(root, folder)
            with progress.bar("Reading the drive", None, unit="files") as advance:
                async for files in self._files(root, top):
                    for file in files:
                        self._count(file)
                    advance(len(files))
        finally:
            await self.http.close()
        self.checkup.seconds = time.monotonic() - started
        self._conclude(root, top)

    async def _contact(self) -> File:
        """Return My Drive; fill in who is signed in, the quota, and the round trip over an open connection."""
        quota = await self.api.quota()
        times = []
        for _ in range(3):
            started = time.monotonic()
            root = await self.api.get(self.server.root)
            times.append(time.monotonic() - started)
        checkup = self.checkup
        checkup.reachable, checkup.user, checkup.round_trip = True, quota.user, 1000 * statistics.median(times)
        checkup.used, checkup.limit, checkup.in_trash = quota.used, quota.limit, quota.in_trash
        checkup.calls = 4
        checkup.findings += _space_findings(quota)
        return root

    async def _find(self, root: File, folder: str) -> File:
        """Return the folder at a path below `root`. Raises `NotFound` or `NotAFolder`."""
        at = root
        for name in filter(None, folder.split("/")):
            found = await self.api.lookup(at.id, name)
            self.checkup.calls += 1
            if not found:
                raise NotFound(f"There is no {folder} on the drive.", "Check the name.", status=404)
            at = found[0]
        if not at.is_folder:
            raise NotAFolder(f"{folder} on the drive is a file.", "Name a folder.")
        return at

    async def _files(self, root: File, top: File) -> AsyncIterator[list[File]]:
        """Yield pages of all files below `top`: from one search for all of My Drive, else level by level.

        The search also finds files that others shared, which are not below My Drive.
        """
        if top.id == root.id and self.server.root == "root":
            async for page in self.api.search("trashed = false"):
                self.checkup.calls += 1
                yield page.files
            return
        level = [top.id]
        while level:
            below: list[str] = []
            for start in range(0, len(level), PARENTS_PER_QUERY):
                async for page in self.api.list_folders(level[start : start + PARENTS_PER_QUERY]):
                    self.checkup.calls += 1
                    below += [file.id for file in page.files if file.is_folder]
                    yield page.files
            level = below

    def _count(self, file: File) -> None:
        if file.is_folder:
            self.folders[file.id] = _Folder(file.name, file.parent)
        self.entries[file.parent] += 1
        self.shortcuts[file.parent] += file.mime_type == SHORTCUT
        self.documents[file.parent] += file.mime_type.startswith(_GOOGLE_TYPES) and not file.is_folder
        self.documents[file.parent] -= file.mime_type == SHORTCUT
        key = hash((file.parent, file.name))
        if key in self.names:
            self.duplicates.append((file.parent, file.name))
        self.names.add(key)

    def _conclude(self, root: File, top: File) -> None:
        """Fill in the counts and findings of the folders at and below `top`; others were shared and do not count."""
        checkup = self.checkup
        paths: dict[str, str | None] = {top.id: checkup.folder}
        for folder_id in self.folders:
            self._resolve(folder_id, paths)
        within = {folder_id: path for folder_id, path in paths.items() if path is not None}
        checkup.folders = len(within) - 1
        checkup.files = sum(self.entries[folder_id] for folder_id in within) - checkup.folders
        checkup.shortcuts = sum(self.shortcuts[folder_id] for folder_id in within)
        checkup.documents = sum(self.documents[folder_id] for folder_id in within)
        checkup.depth = max((path.count("/") + bool(path) for path in within.values()), default=0)
        twice = [f"{within[parent]}/{name}".lstrip("/") for parent, name in self.duplicates if parent in within]
        checkup.duplicates = len(twice)
        crowds = []
        for folder_id, path in within.items():
            least = CROWDED_ROOT if folder_id == root.id else CROWDED
            if self.entries[folder_id] >= least:
                crowds.append((path, self.entries[folder_id]))
        # My Drive first: a mount lists it before anything else.
        crowds.sort(key=lambda one: (one[0] != "", -one[1]))
        checkup.crowded = {path or "My Drive": count for path, count in crowds}
        checkup.findings += [_crowd_finding(path, count) for path, count in crowds]
        deepest = max(within.values(), key=lambda path: path.count("/"), default="")
        checkup.findings += _name_findings(checkup, twice, deepest)

    def _resolve(self, folder_id: str, paths: dict[str, str | None]) -> None:
        """Add to `paths` the path of a folder and of those above it; None for a folder that is not below the top."""
        chain = []
        at = folder_id
        while at not in paths and at in self.folders and at not in chain:
            chain.append(at)
            at = self.folders[at].parent
        path = paths.get(at)
        for step in reversed(chain):
            path = None if path is None else f"{path}/{self.folders[step].name}".lstrip("/")
            paths[step] = path


def _space_findings(quota: Quota) -> list[Finding]:
    found = []
    if quota.limit is not None and quota.used > _FULL * quota.limit:
        text = f"The drive is nearly full: {progress.size(max(quota.limit - quota.used, 0))} are free."
        found.append(Finding(text, serious=True))
    much = _MUCH_TRASH * (quota.limit if quota.limit is not None else quota.used)
    if quota.in_trash and quota.in_trash >= much:
        text = f"The trash holds {progress.size(quota.in_trash)}, which count as used."
        found.append(Finding(text, bool(found), "haversack drive trash --empty", calls=1, minutes=0.1))
    return found


def _crowd_finding(path: str, count: int) -> Finding:
    subfolders = math.ceil(count / 1000)
    calls = count + 2 * subfolders + math.ceil(count / 100)
    text = f"{path or 'My Drive'} holds {count:,} files and folders: programs that list it are slow, or fail."
    # For `spread`, an empty path is My Drive itself.
    mend = f"haversack drive spread {shlex.quote(path)}"
    return Finding(text, True, mend, calls, calls / _CALLS_PER_SECOND / 60)


def _name_findings(checkup: Checkup, twice: list[str], deepest: str) -> list[Finding]:
    findings = []
    if twice:
        names = ", ".join(twice[:_MAX_NAMES_SHOWN]) + (", …" if len(twice) > _MAX_NAMES_SHOWN else "")
        text = f"{_counted(len(twice), 'duplicate name')} ({names}): a mount adds a number to the second file's name."
        findings.append(Finding(text))
    if checkup.documents:
        text = (
            f"{_counted(checkup.documents, 'Google document')}: these have no bytes to read and can only be exported."
        )
        findings.append(Finding(text))
    if checkup.shortcuts:
        findings.append(Finding(f"{_counted(checkup.shortcuts, 'shortcut')} to files elsewhere."))
    if checkup.depth > _DEEP:
        text = f"Folders nest {checkup.depth} deep ({deepest[:80]}…); Drive allows 100."
        findings.append(Finding(text, serious=checkup.depth > 90))
    return findings


def _duration(minutes: float) -> str:
    if minutes < 1.5:
        return "a minute"
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("s" if count != 1 else "")
