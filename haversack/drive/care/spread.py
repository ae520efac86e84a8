"""A crowded folder's files into subfolders, so that every program can list it again; and back.

What will be done is written down first, on this machine and on the drive (`manifest`), and only then done: subfolders
made under ids that were generated beforehand, files moved a hundred to a batch. A file keeps its id, bytes and times; a
move changes where it lies and nothing else. What was done shows in the folder itself, so a spread that was killed goes
on by being started again, also on another machine.

Each file is compared with what was written down (id, name, size, md5, version) before it moves, and between batches the
drive's list of changes tells what others touched meanwhile: that is left alone and said. Files that are shared, or
somebody else's, stay, because moving them changes who can reach them.

Subfolders of the folder, and what is in them, are not touched. Nothing is deleted but, after an undo, the manifest, and
empty subfolders that a spread had made go to the trash.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from haversack import disk, progress, settings
from haversack.drive import ALIAS, ROOT, tree
from haversack.drive.care.manifest import Rule, SpreadEntry, SpreadManifest
from haversack.drive.remote import calls
from haversack.drive.remote.api import Call, DriveApi, File, ResumableUpload
from haversack.errors import AlreadyExists, Forbidden, HaversackError, InputError, NotFound
from haversack.http import wait

_OURS = ".haversack-"  # what haversack keeps for itself in My Drive is found by its name, so it stays
NAME = f"{_OURS}spread.json.gz"
"""The manifest's name in the folder that is spread."""

T = TypeVar("T")
_MARK = {tree.MARK: "spread"}
_AT_ONCE = 400  # files between two looks at what others changed
_SUSTAINED = 10.0  # calls per second that Google's Drive is known to take for hours (rclone's own pace)
_SHOWN = 10


@dataclass(frozen=True)
class Left:
    """A file that was not moved, and why."""

    name: str
    why: str


@dataclass
class SpreadReport:
    """What a spread or an undo did, or with `dry_run` would do. `minutes` is an estimate, at most so many."""

    folder: str
    undo: bool
    dry_run: bool
    rule: str
    files: int = 0
    subfolders: int = 0
    moved: int = 0
    calls: int = 0
    minutes: float = 0.0
    left: list[Left] = field(default_factory=list)

    def __str__(self) -> str:
        back = "back from" if self.undo else "into"
        if not self.files and not self.moved:
            lines = [f"{self.folder}: nothing to move."]
        elif self.dry_run:
            lines = [
                f"{self.folder}: {self.files:,} files would move {back} {self.subfolders:,} subfolders,"
                f" with about {self.calls:,} calls, in at most {_minutes(self.minutes)}."
            ]
        else:
            lines = [f"{self.folder}: {self.moved:,} files moved {back} {self.subfolders:,} subfolders."]
        if self.files and not self.undo:
            lines.append(f"The subfolder of a name: {self.rule}.")
        lines += [f"Left: {left.name} ({left.why})" for left in self.left[:_SHOWN]]
        if len(self.left) > _SHOWN:
            lines.append(f"… and {len(self.left) - _SHOWN:,} more left.")
        return "\n".join(lines)


def spread(
    path: str, *, hub: str | None = None, by: str = "hash", size: int = 1000, dry_run: bool = False
) -> SpreadReport:
    """Move the files of a folder into subfolders of about `size` files, or go on with that.

    Args:
        path: the folder, below My Drive; "" is My Drive itself.
        by: "hash" or "name": how a name leads to its subfolder; see `manifest.Rule`. A folder that was spread before
            keeps its rule.
        dry_run: only read, and say what would be done.

    Raises `NotFound`, `NotAFolder`, `InputError` where a subfolder's name is taken, `Forbidden` for a folder that is
    shared or somebody else's, and what `http.Http.request` raises; then start it again, and it goes on.
    """
    if by not in ("hash", "name"):
        raise InputError(f"{by!r} is no way to spread files.", "Say hash or name.")
    if size < 1:
        raise InputError("A subfolder holds at least one file.", "Give a larger --size.")
    drive, folder = _opened(path, hub)
    with _alone(folder):
        return wait(_Work(drive.api, folder, _shown_path(path), dry_run).spread(by, size))


def undo(path: str, *, hub: str | None = None, dry_run: bool = False) -> SpreadReport:
    """Move every file back to where it was before `spread`. Raises as `spread`, and `NotFound` without a manifest."""
    drive, folder = _opened(path, hub)
    with _alone(folder):
        return wait(_Work(drive.api, folder, _shown_path(path), dry_run).undo())


@dataclass
class _CrowdedFolder:
    """What lies in the folder, as of the changes `token`: files that may move, by id; subfolders' names by id."""

    token: str
    files: dict[str, File] = field(default_factory=dict)
    subfolders: dict[str, str] = field(default_factory=dict)
    manifest: File | None = None
    left: dict[str, Left] = field(default_factory=dict)
    pages: int = 0


class _Work:
    """One spread or undo of one folder."""

    def __init__(self, api: DriveApi, folder: File, path: str, dry_run: bool) -> None:
        self.api = api
        self.folder = folder
        self.path = path
        self.dry_run = dry_run
        self.kept = _local(folder.id)

    async def spread(self, by: str, size: int) -> SpreadReport:
        found = await self._look()
        before = await self._manifest(found)
        left = list(found.left.values())
        if before is None and len(found.files) <= size:
            return SpreadReport(self.path, False, self.dry_run, "", left=left)
        plan = await self._plan(found, before, by, size)
        todo = [entry for entry in plan.files.values() if entry.id in found.files]
        report = SpreadReport(
            self.path, False, self.dry_run, str(plan.rule), len(todo), len(plan.subfolders), left=left
        )
        self._estimate(report, found.pages, len(todo) + len(plan.subfolders))
        if self.dry_run or not todo:
            return report
        if plan != before or found.manifest is None:
            await self._write_down(plan, found.manifest is not None)
        await self._make_subfolders(plan, found)
        with progress.bar("Spreading", len(todo), unit="files") as advance:
            await self._move(found, [(entry, plan.target(entry)) for entry in todo], report, advance)
        return report

    async def undo(self) -> SpreadReport:
        found = await self._look()
        plan = await self._manifest(found)
        if plan is None:
            raise NotFound(f"{self.path} has no spread to undo.", "Name the folder that was spread.", status=404)
        report = SpreadReport(self.path, True, self.dry_run, str(plan.rule), subfolders=len(plan.subfolders))
        there = await self._in_subfolders(plan)
        todo = [file for file in there if file.id in plan.files]
        known = {file.id for file in todo} | set(found.files) | set(found.left)
        report.files = len(todo)
        report.left = [Left(one.name, "is not where it was put") for one in plan.files.values() if one.id not in known]
        report.left += [Left(file.name, "came later") for file in there if file.id not in plan.files]
        self._estimate(report, found.pages + 2 * len(plan.subfolders), len(todo) + len(plan.subfolders))
        if self.dry_run:
            return report
        with progress.bar("Moving back", len(todo), unit="files") as advance:
            for some in _pieces(todo, _AT_ONCE):
                await self._carry_out([(file, self.folder.id) for file in some], report, advance)
        await self._clear(plan)
        return report

    # Reading

    async def _look(self) -> _CrowdedFolder:
        """Everything in the folder. Raises `Forbidden` for a folder that is not the user's alone."""
        folder = await self.api.do(calls.get(self.folder.id, sharing=True))
        if not folder.owned or folder.shared:
            what = "is shared" if folder.owned else "is somebody else's"
            raise Forbidden(f"{self.path} {what}.", "Spread folders of your own only: moves change who can reach what.")
        found = _CrowdedFolder(await self.api.changes_token())
        async for page in self.api.list_of([self.folder.id], sharing=True):
            found.pages += 1
            for file in page.files:
                self._sort(found, file)
        return found

    def _sort(self, found: _CrowdedFolder, file: File) -> None:
        if file.is_folder:
            found.subfolders[file.id] = file.name
        elif not file.owned or file.shared:
            found.left[file.id] = Left(file.name, "is shared" if file.owned else "is somebody else's")
        elif file.name == NAME:
            found.manifest = file
        elif not file.name.startswith(_OURS):
            found.files[file.id] = file

    async def _manifest(self, found: _CrowdedFolder) -> SpreadManifest | None:
        """The manifest of an earlier spread: the drive's; this machine's where somebody removed that."""
        if found.manifest is not None:
            marks = await self.api.marks(found.manifest.id)
            if marks.get(tree.MARK) != "spread":
                raise InputError(f"{NAME} in {self.path} was not made by haversack.", "Rename it.")
            async with self.api.download(found.manifest.id, 0, max(1, found.manifest.size)) as response:
                content = await response.read()
            manifest = SpreadManifest.decoded(content)
            if manifest.folder != self.folder.id:
                raise InputError(f"{NAME} in {self.path} is that of another folder.", "Move it back to its own.")
            return manifest
        if not self.kept.exists():
            return None
        manifest = SpreadManifest.decoded(self.kept.read_bytes())
        # Without a subfolder, nothing was done yet, or it was undone on another machine.
        return manifest if set(manifest.subfolders.values()) & set(found.subfolders) else None

    async def _in_subfolders(self, plan: SpreadManifest) -> list[File]:
        """The files in a spread's subfolders. Each is asked for alone: what a query left out would not come back."""
        found: list[File] = []
        asked: list[tuple[str, str | None]] = [(own, None) for own in plan.subfolders.values()]
        while asked:
            pages = await self.api.batch([calls.listing([own], token) for own, token in asked])
            following: list[tuple[str, str | None]] = []
            for (own, _), page in zip(asked, pages, strict=True):
                if isinstance(page, NotFound):
                    continue  # deleted by hand, for good
                if isinstance(page, HaversackError):
                    raise page
                found += page.files
                if page.token is not None:
                    following.append((own, page.token))
            asked = following
        return found

    async def _follow(self, found: _CrowdedFolder) -> None:
        """Take over what others changed of the files since `found.token`."""
        async for page in self.api.changes(found.token):
            for change in page.changes:
                if change.file_id in found.files:
                    known = found.files[change.file_id]
                    found.files[change.file_id] = change.file or replace(known, trashed=True)
            found.token = page.token

    # Planning

    async def _plan(self, found: _CrowdedFolder, before: SpreadManifest | None, by: str, size: int) -> SpreadManifest:
        """What is to be done: an earlier plan with the files that came since, or a new one."""
        files = {file.id: SpreadEntry.of(file) for file in found.files.values()}
        if before is not None:
            # What moved already stays as it was written down; what is still here is written down anew.
            files = {**before.files, **files}
            rule, subfolders, own = before.rule, dict(before.subfolders), before.own
        else:
            rule, subfolders = Rule.of(by, [file.name for file in found.files.values()], size), {}
            own = "" if self.dry_run else await self.api.new_id()
        wanted = sorted({rule.place(entry.name) for entry in files.values()} - set(subfolders))
        taken = set(wanted) & set(found.subfolders.values())
        if taken:
            raise InputError(f"There is a folder {sorted(taken)[0]!r} in {self.path} already.", "Rename it first.")
        ids = [""] * len(wanted) if self.dry_run else await self.api.new_ids(len(wanted))
        subfolders |= dict(zip(wanted, ids, strict=True))
        return SpreadManifest(self.folder.id, own, rule, subfolders, files)

    def _estimate(self, report: SpreadReport, read: int, written: int) -> None:
        """Calls from here to the end, and how long they take at a pace that Drive is known to bear."""
        report.calls = written + read + math.ceil(written / _AT_ONCE) + 2
        report.minutes = report.calls / min(_SUSTAINED, self.api.http.tempo.rate) / 60

    # Doing

    async def _write_down(self, plan: SpreadManifest, exists: bool) -> None:
        """The manifest on this machine, then on the drive; complete or absent on both."""
        content = plan.encoded()
        disk.write(self.kept, content)
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        upload = ResumableUpload(
            self.kept, len(content), md5, plan.own, exists, self.folder.id, NAME, time.time(), dict(_MARK)
        )  # fmt: skip
        await self.api.upload(upload)

    async def _make_subfolders(self, plan: SpreadManifest, found: _CrowdedFolder) -> None:
        missing = {name: own for name, own in plan.subfolders.items() if own not in found.subfolders}
        made = [calls.create_folder(own, self.folder.id, name) for name, own in missing.items()]
        again = []
        for (name, own), answer in zip(missing.items(), await self.api.batch(made), strict=True):
            if isinstance(answer, AlreadyExists):
                again.append((name, own))
            elif isinstance(answer, HaversackError):
                raise answer
        # Under these ids there are, or were, folders: made just before a kill, or moved away by hand since.
        for (name, _), there in zip(again, await self.api.batch([calls.get(own) for _, own in again]), strict=True):
            if isinstance(there, HaversackError) or there.trashed or there.parent != self.folder.id:
                raise InputError(f"The subfolder {name} is not in {self.path} any more.", "Bring it back, or undo.")

    async def _move(
        self,
        found: _CrowdedFolder,
        todo: list[tuple[SpreadEntry, str]],
        report: SpreadReport,
        advance: progress.Advance,
    ) -> None:
        """Move files out of the folder, each to its own subfolder, as long as they are what was written down."""
        for some in _pieces(todo, _AT_ONCE):
            await self._follow(found)
            ready = []
            for entry, target in some:
                state = found.files[entry.id]
                why = _why_not(entry, state, self.folder.id)
                if why is None:
                    ready.append((state, target))
                elif state.parent != target:
                    report.left.append(Left(entry.name, why))
            await self._carry_out(ready, report, advance)

    async def _carry_out(
        self, moves: Sequence[tuple[File, str]], report: SpreadReport, advance: progress.Advance
    ) -> None:
        """Move files; one that is gone or forbidden is left and said, any other failure ends the work."""
        wanted: list[Call[File]] = [calls.update(file, parent=target) for file, target in moves]
        failure: HaversackError | None = None
        for (file, target), answer in zip(moves, await self.api.batch(wanted), strict=True):
            if isinstance(answer, File) and answer.parent == target:
                report.moved += 1
                advance(1)
            elif isinstance(answer, File):
                report.left.append(Left(file.name, "did not move"))
            elif isinstance(answer, NotFound | Forbidden):
                report.left.append(Left(file.name, answer.what))
            else:
                failure = answer
        if failure is not None:
            raise failure

    async def _clear(self, plan: SpreadManifest) -> None:
        """After an undo: empty subfolders into the trash, and the manifest away, unless it has to be gone on with."""
        there = await self._in_subfolders(plan)
        filled = {file.parent for file in there}
        empty = [own for own in plan.subfolders.values() if own not in filled]
        for answer in await self.api.batch([calls.trash(own) for own in empty]):
            if isinstance(answer, HaversackError):
                raise answer
        if not any(file.id in plan.files for file in there):
            await self.api.delete(plan.own)
            self.kept.unlink(missing_ok=True)


def _why_not(entry: SpreadEntry, state: File, source: str) -> str | None:
    """Why a file is not moved; None when it is."""
    if state.trashed:
        return "was removed meanwhile"
    if state.parent != source:
        return "was moved meanwhile"
    if not entry.is_like(state):
        return "was changed meanwhile"
    return None


def _opened(path: str, hub: str | None) -> tuple[tree.Drive, File]:
    drive = tree.connect(hub)
    names = tree.split(path)
    return drive, drive.folder(names[1:] if names[:1] in ((ROOT,), (ALIAS,)) else names)


def _shown_path(path: str) -> str:
    return path.strip("/") or ROOT


def _local(folder_id: str) -> Path:
    """Where this machine keeps a folder's manifest. An id from a server is no file name."""
    return settings.load().data / "spread" / f"{hashlib.sha256(folder_id.encode()).hexdigest()[:32]}.json.gz"


@contextmanager
def _alone(folder: File) -> Iterator[None]:
    """Nobody else on this machine spreads the folder meanwhile."""
    path = _local(folder.id)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"{folder.name} is being spread by another process.", "Wait for it.") from None
    try:
        yield
    finally:
        lock.release()


def _pieces(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while piece := list(islice(rest, size)):
        yield piece


def _minutes(minutes: float) -> str:
    return "a minute" if minutes <= 1 else f"{minutes:,.0f} minutes" if minutes < 120 else f"{minutes / 60:,.1f} hours"
