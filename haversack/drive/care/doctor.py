"""Why a drive is slow or full, and the command that mends it. It reads, and changes nothing.

The whole drive is read in one search, a thousand files to a call, and only counts are kept of it: how many files each
folder holds, which names stand twice, how deep folders nest. What mending would cost is said before anybody mends: one
call for each file that moves, at the pace that Drive is known to take for hours.

A crowded folder is no trouble to haversack, which looks names up; it is to whatever lists it, Colab's own mount first.
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
from haversack.drive.remote.api import PARENTS_PER_QUERY, SHORTCUT, DriveApi, File, Quota
from haversack.errors import ConnectionFailed, NotAFolder, NotFound, SignInError
from haversack.http import Http, wait

CROWDED = 5000
"""Files in a folder from which on programs that list it are known to fail or to wait for minutes."""
CROWDED_ROOT = 1000
_DEEP = 50
_SUSTAINED = 10.0  # calls per second that Drive takes for hours
_FULL = 0.9
_MUCH_TRASH = 0.05
_GOOGLE = "application/vnd.google-apps."
_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """Something that is wrong or worth knowing; `mend` is the command that mends it, with what that would cost."""

    what: str
    serious: bool = False
    mend: str = ""
    calls: int = 0
    minutes: float = 0.0

    def __str__(self) -> str:
        lines = [("! " if self.serious else "· ") + self.what]
        if self.mend:
            cost = f"   (about {self.calls:,} calls, {minutes_said(self.minutes)})" if self.calls else ""
            lines.append(f"      {self.mend}{cost}")
        return "\n".join(lines)


@dataclass
class Checkup:
    """What the doctor found. Sizes in bytes, `round_trip` in milliseconds, `limit` None where there is none."""

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
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.drive} at {self.url}, signed in by {self.source}"]
        if self.reachable:
            limit = f" of {progress.size(self.limit)}" if self.limit is not None else ""
            lines[0] += f" as {self.user}" if self.user else ""
            space = f"{progress.size(self.used)}{limit} used, {progress.size(self.in_trash)} of it in the trash"
            where = self.folder or "My Drive"
            lines += [
                f"  round trip   {self.round_trip:.0f} ms",
                f"  space        {space}",
                f"  {where:<12} {_many(self.files, 'file')} in {_many(self.folders, 'folder')}, {self.depth} deep",
                f"  read with    {_many(self.calls, 'call')} in {self.seconds:.1f} s",
            ]
        lines += ["", *(str(finding) for finding in self.findings or [Finding("Nothing is wrong.")])]
        return "\n".join(lines)


def examine(folder: str = "", hub: str | None = None) -> Checkup:
    """Look at a drive, or at what lies below one folder of it, and at what this machine keeps of it.

    A drive that does not answer is a finding too. Raises `NotFound` and `NotAFolder` for the folder, and
    `InputError` and `SignInError` as `credentials.drive`.
    """
    server = credentials.drive(hub)
    found = Checkup(server.name, server.url, server.source, folder=folder)
    _look_around(found)
    try:
        wait(_Examination(server, found).run(folder))
    except (ConnectionFailed, SignInError) as error:
        found.findings.insert(0, Finding(str(error), serious=True))
    return found


def _look_around(found: Checkup) -> None:
    """What waits or was left on this machine."""
    found.waiting = sum(1 for _ in (settings.load().data / "drives").glob("*/*/*.json"))
    if found.waiting:
        said = f"{_many(found.waiting, 'written file')} of this machine wait to be on the drive."
        found.findings.append(Finding(said, mend="haversack drive status"))
    for record in registry.records():
        if record.kind == "fuse" and not record.is_served():
            found.stale_mounts.append(record.mountpoint)
            said = f"The process of the mount at {record.mountpoint} is dead."
            found.findings.append(Finding(said, True, f"haversack unmount {shlex.quote(record.mountpoint)}"))


@dataclass
class _FolderUsage:
    name: str
    parent: str


class _Examination:
    """One look at a drive; only counts stay in memory."""

    def __init__(self, server: Server, found: Checkup) -> None:
        self.found = found
        self.http = Http(server, attempts=5)
        self.api = DriveApi(server, self.http)
        self.server = server
        self.root = ""
        self.folders: dict[str, _FolderUsage] = {}
        self.inside: Counter[str] = Counter()
        self.shortcuts: Counter[str] = Counter()
        self.documents: Counter[str] = Counter()
        self.names: set[int] = set()
        self.twice: list[tuple[str, str]] = []

    async def run(self, folder: str) -> None:
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
        self.found.seconds = time.monotonic() - started
        self._conclude(root, top)

    async def _contact(self) -> File:
        """Ask who is signed in and how long an answer takes, once a connection stands."""
        quota = await self.api.about()
        times = []
        for _ in range(3):
            started = time.monotonic()
            root = await self.api.get(self.server.root)
            times.append(time.monotonic() - started)
        found = self.found
        found.reachable, found.user, found.round_trip = True, quota.user, 1000 * statistics.median(times)
        found.used, found.limit, found.in_trash = quota.used, quota.limit, quota.in_trash
        found.calls = 4
        found.findings += _of_space(quota)
        return root

    async def _find(self, root: File, folder: str) -> File:
        at = root
        for name in filter(None, folder.split("/")):
            there = await self.api.lookup(at.id, name)
            self.found.calls += 1
            if not there:
                raise NotFound(f"There is no {folder} on the drive.", "Check the name.", status=404)
            at = there[0]
        if not at.is_folder:
            raise NotAFolder(f"{folder} on the drive is a file.", "Name a folder.")
        return at

    async def _files(self, root: File, top: File) -> AsyncIterator[list[File]]:
        """Everything below `top`, page by page: in one search for the whole drive, by walking down for a part."""
        if top.id == root.id and self.server.root == "root":
            async for page in self.api.search("trashed = false"):
                self.found.calls += 1
                yield page.files
            return
        level = [top.id]
        while level:
            below: list[str] = []
            for start in range(0, len(level), PARENTS_PER_QUERY):
                async for page in self.api.list_of(level[start : start + PARENTS_PER_QUERY]):
                    self.found.calls += 1
                    below += [file.id for file in page.files if file.is_folder]
                    yield page.files
            level = below

    def _count(self, file: File) -> None:
        if file.is_folder:
            self.folders[file.id] = _FolderUsage(file.name, file.parent)
        self.inside[file.parent] += 1
        self.shortcuts[file.parent] += file.mime_type == SHORTCUT
        self.documents[file.parent] += file.mime_type.startswith(_GOOGLE) and not file.is_folder
        self.documents[file.parent] -= file.mime_type == SHORTCUT
        key = hash((file.parent, file.name))
        if key in self.names:
            self.twice.append((file.parent, file.name))
        self.names.add(key)

    def _conclude(self, root: File, top: File) -> None:
        """Only what hangs together with the top counts: a search also finds what others shared."""
        found = self.found
        paths = {top.id: found.folder}
        for folder_id in self.folders:
            self._path(folder_id, paths)
        within = {folder_id: path for folder_id, path in paths.items() if path is not None}
        found.folders = len(within) - 1
        found.files = sum(self.inside[folder_id] for folder_id in within) - found.folders
        found.shortcuts = sum(self.shortcuts[folder_id] for folder_id in within)
        found.documents = sum(self.documents[folder_id] for folder_id in within)
        found.depth = max((path.count("/") + bool(path) for path in within.values()), default=0)
        twice = [f"{within[parent]}/{name}".lstrip("/") for parent, name in self.twice if parent in within]
        found.duplicates = len(twice)
        crowds = []
        for folder_id, path in within.items():
            least = CROWDED_ROOT if folder_id == root.id else CROWDED
            if self.inside[folder_id] >= least:
                crowds.append((path, self.inside[folder_id]))
        # My Drive first: it is what a mount lists before anything else.
        crowds.sort(key=lambda one: (one[0] != "", -one[1]))
        found.crowded = {path or "My Drive": count for path, count in crowds}
        found.findings += [_of_crowd(path, count) for path, count in crowds]
        found.findings += _of_names(found, twice, max(within.values(), key=lambda path: path.count("/"), default=""))

    def _path(self, folder_id: str, paths: dict[str, Any]) -> None:
        """Fill in where a folder lies below the top; None for one that lies elsewhere."""
        way = []
        at = folder_id
        while at not in paths and at in self.folders and at not in way:
            way.append(at)
            at = self.folders[at].parent
        path = paths.get(at)
        for step in reversed(way):
            path = None if path is None else f"{path}/{self.folders[step].name}".lstrip("/")
            paths[step] = path


def _of_space(quota: Quota) -> list[Finding]:
    found = []
    if quota.limit is not None and quota.used > _FULL * quota.limit:
        said = f"The drive is nearly full: {progress.size(max(quota.limit - quota.used, 0))} are free."
        found.append(Finding(said, serious=True))
    much = _MUCH_TRASH * (quota.limit if quota.limit is not None else quota.used)
    if quota.in_trash and quota.in_trash >= much:
        said = f"The trash holds {progress.size(quota.in_trash)}, which count as used."
        found.append(Finding(said, bool(found), "haversack drive trash --empty", calls=1, minutes=0.1))
    return found


def _of_crowd(path: str, count: int) -> Finding:
    subfolders = math.ceil(count / 1000)
    calls = count + 2 * subfolders + math.ceil(count / 100)
    said = f"{path or 'My Drive'} holds {count:,} files and folders. Whatever lists it waits, or gives up."
    # An empty name stands for My Drive itself.
    mend = f"haversack drive spread {shlex.quote(path)}"
    return Finding(said, True, mend, calls, calls / _SUSTAINED / 60)


def _of_names(found: Checkup, twice: list[str], deepest: str) -> list[Finding]:
    findings = []
    if twice:
        names = ", ".join(twice[:_SHOWN]) + (", …" if len(twice) > _SHOWN else "")
        said = (
            f"{_many(len(twice), 'name')} stand twice in one folder ({names}): a mount shows the second with a number."
        )
        findings.append(Finding(said))
    if found.documents:
        findings.append(Finding(f"{_many(found.documents, 'Google document')}: they have no bytes, only exports."))
    if found.shortcuts:
        findings.append(Finding(f"{_many(found.shortcuts, 'shortcut')} lead to files elsewhere."))
    if found.depth > _DEEP:
        said = f"Folders nest {found.depth} deep ({deepest[:80]}…); Drive allows 100."
        findings.append(Finding(said, serious=found.depth > 90))
    return findings


def minutes_said(minutes: float) -> str:
    if minutes < 1.5:
        return "a minute"
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"


def _many(count: int, thing: str) -> str:
    return f"{count:,} {thing}" + ("s" if count != 1 else "")
