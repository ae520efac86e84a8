"""Move the files of a crowded folder into subfolders, so that every program can list it, and back.

The plan is written first, on this machine and on the drive (`manifest`), and then carried out: subfolders are created
under ids that were generated before, and files are moved a hundred per batch. A move changes a file's parent and
nothing else: id, bytes and times stay. Progress is visible in the folder itself, so a spread that was killed resumes
when it is started again, on any machine.

Before a file moves it is compared with the plan (id, name, size, MD5, version), and between batches the drive's changes
feed is read: a file that others changed is skipped and reported. Files that are shared or owned by another user are
skipped, because a move changes who can reach them.

Existing subfolders and their files are not touched. Nothing is deleted except, after an undo, the manifest; empty
subfolders that a spread created go to the trash.
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
from haversack.drive import ALIAS, MARK, ROOT, tree
from haversack.drive.care.manifest import Rule, SpreadEntry, SpreadManifest
from haversack.drive.remote import calls
from haversack.drive.remote.api import DriveApi
from haversack.drive.remote.calls import Call, File
from haversack.drive.remote.upload import ResumableUpload
from haversack.errors import AlreadyExists, Forbidden, HaversackError, InputError, NotFound
from haversack.http import wait

# haversack finds its own files in My Drive by this prefix, so they are not moved.
_OWN_PREFIX = ".haversack-"
NAME = f"{_OWN_PREFIX}spread.json.gz"
"""The manifest's name in the folder that is spread."""

T = TypeVar("T")
_MANIFEST_MARK = "spread"
_BATCH = 400  # files moved between two reads of the changes feed
_CALLS_PER_SECOND = 10.0  # what Google's Drive is known to sustain for hours (rclone's rate)
_MAX_SKIPPED_SHOWN = 10


@dataclass(frozen=True)
class Skipped:
    """The name of a file that was not moved, and why, in words."""

    name: str
    why: str


@dataclass
class SpreadReport:
    """The result of a spread or an undo; with `dry_run` what it would do.

    | field | meaning |
    |---|---|
    | `folder` | the folder's path below My Drive |
    | `undo` | whether files move back |
    | `dry_run` | whether it was only planned |
    | `rule` | how a name determines its subfolder, in words; "" if the folder needs no spread |
    | `files` | number of files to move |
    | `subfolders` | number of subfolders that the files move into, or back from |
    | `moved` | number of files that were moved; 0 with `dry_run` |
    | `calls`, `minutes` | an upper estimate, made at the start, of the API calls and the time |
    | `left` | files that stay where they are, and why |
    """

    folder: str
    undo: bool
    dry_run: bool
    rule: str
    files: int = 0
    subfolders: int = 0
    moved: int = 0
    calls: int = 0
    minutes: float = 0.0
    left: list[Skipped] = field(default_factory=list)

    def __str__(self) -> str:
        back = "back from" if self.undo else "into"
        if not self.files and not self.moved:
            lines = [f"{self.folder}: nothing to move."]
        elif self.dry_run:
            lines = [
                f"{self.folder}: {self.files:,} files would move {back} {self.subfolders:,} subfolders,"
                f" with about {self.calls:,} calls, in at most {_duration(self.minutes)}."
            ]
        else:
            lines = [f"{self.folder}: {self.moved:,} files moved {back} {self.subfolders:,} subfolders."]
        if self.files and not self.undo:
            lines.append(f"A name's subfolder: {self.rule}.")
        lines += [f"Skipped: {skipped.name} ({skipped.why})" for skipped in self.left[:_MAX_SKIPPED_SHOWN]]
        if len(self.left) > _MAX_SKIPPED_SHOWN:
            lines.append(f"… and {len(self.left) - _MAX_SKIPPED_SHOWN:,} more skipped.")
        return "\n".join(lines)


def spread(
    path: str, *, hub: str | None = None, by: str = "hash", size: int = 1000, dry_run: bool = False
) -> SpreadReport:
    """Move the files of a folder into subfolders; resumes a spread that was interrupted.

    A folder that was spread before keeps its rule; then `by` and `size` are ignored.

    Args:
        path: the folder, below My Drive; "" is My Drive itself.
        hub: the drive: a hub's URL, "google", "embedded", or None for the default of `credentials.drive`.
        by: "hash" or "name", how a name determines its subfolder; see `manifest.Rule`.
        size: about how many files each subfolder gets. A folder with at most this many files is left alone.
        dry_run: only read, and return the plan.

    Raises `NotFound` or `NotAFolder` for `path`; `InputError` for an invalid argument, a subfolder whose name is taken
    or that was moved away, a damaged manifest, or while another process of this machine spreads the folder;
    `Forbidden` if the folder is shared or owned by another user; `SignInError`; and `ConnectionFailed` or another
    `RemoteError`, after which the same call resumes the spread.
    """
    if by not in ("hash", "name"):
        raise InputError(f"{by!r} is not a way to spread files.", "Use hash or name.")
    if size < 1:
        raise InputError("A subfolder needs at least one file.", "Give a larger --size.")
    drive, folder = _connect(path, hub)
    with _lock(folder):
        return wait(_FolderSpread(drive.api, folder, _shown_path(path), dry_run).spread(by, size))


def undo(path: str, *, hub: str | None = None, dry_run: bool = False) -> SpreadReport:
    """Move the files of a spread folder back, then trash its empty subfolders and delete the manifest.

    A file that was added to a subfolder later stays there, with its subfolder. `path`, `hub` and `dry_run` are those of
    `spread`. Raises `NotFound` if there is no folder at `path` or it was not spread; `NotAFolder`; `InputError` for an
    invalid `hub`, a damaged manifest, or while another process of this machine spreads the folder; `Forbidden` if the
    folder is shared or owned by another user; `SignInError`; and `ConnectionFailed` or another `RemoteError`, after
    which the same call resumes it.
    """
    drive, folder = _connect(path, hub)
    with _lock(folder):
        return wait(_FolderSpread(drive.api, folder, _shown_path(path), dry_run).undo())


@dataclass
class _CrowdedFolder:
    """What a listing of the folder found.

    Attributes:
        token: Page token of the changes feed up to which `files` are current.
        files: Id → file that may move; updated from the changes feed.
        subfolders: Id → name of each subfolder.
        manifest: The manifest's file in the folder, or None.
        skipped: Id → file that must not move, and why.
        pages: The number of calls that the listing took.
    """

    token: str
    files: dict[str, File] = field(default_factory=dict)
    subfolders: dict[str, str] = field(default_factory=dict)
    manifest: File | None = None
    skipped: dict[str, Skipped] = field(default_factory=dict)
    pages: int = 0


class _FolderSpread:
    """One spread or undo of one folder. `local_manifest` is the path of this machine's copy of the manifest."""

    def __init__(self, api: DriveApi, folder: File, path: str, dry_run: bool) -> None:
        self.api = api
        self.folder = folder
        self.path = path
        self.dry_run = dry_run
        self.local_manifest = _local_manifest(folder.id)

    async def spread(self, by: str, size: int) -> SpreadReport:
        found = await self._list()
        before = await self._load_manifest(found)
        skipped = list(found.skipped.values())
        if before is None and len(found.files) <= size:
            return SpreadReport(self.path, False, self.dry_run, "", left=skipped)
        plan = await self._plan(found, before, by, size)
        todo = [entry for entry in plan.files.values() if entry.id in found.files]
        report = SpreadReport(
            self.path, False, self.dry_run, str(plan.rule), len(todo), len(plan.subfolders), left=skipped
        )
        self._estimate(report, found.pages, len(todo) + len(plan.subfolders))
        if self.dry_run or not todo:
            return report
        if plan != before or found.manifest is None:
            await self._save_manifest(plan, found.manifest is not None)
        await self._create_subfolders(plan, found)
        with progress.bar("Spreading", len(todo), unit="files") as advance:
            await self._move(found, [(entry, plan.target(entry)) for entry in todo], report, advance)
        return report

    async def undo(self) -> SpreadReport:
        found = await self._list()
        plan = await self._load_manifest(found)
        if plan is None:
            raise NotFound(f"{self.path} has no spread to undo.", "Name the folder that was spread.", status=404)
        report = SpreadReport(self.path, True, self.dry_run, str(plan.rule), subfolders=len(plan.subfolders))
        present = await self._in_subfolders(plan)
        todo = [file for file in present if file.id in plan.files]
        seen = {file.id for file in todo} | set(found.files) | set(found.skipped)
        report.files = len(todo)
        report.left = [
            Skipped(one.name, "no longer in its subfolder") for one in plan.files.values() if one.id not in seen
        ]
        report.left += [Skipped(file.name, "added after the spread") for file in present if file.id not in plan.files]
        self._estimate(report, found.pages + 2 * len(plan.subfolders), len(todo) + len(plan.subfolders))
        if self.dry_run:
            return report
        with progress.bar("Moving back", len(todo), unit="files") as advance:
            for some in _batches(todo, _BATCH):
                await self._move_batch([(file, self.folder.id) for file in some], report, advance)
        await self._clean_up(plan)
        return report

    # Reading

    async def _list(self) -> _CrowdedFolder:
        """List the folder. Raises `Forbidden` if it is shared or owned by another user."""
        folder = await self.api.send(calls.get(self.folder.id, sharing=True))
        if not folder.owned or folder.shared:
            what = "is shared" if folder.owned else "is owned by another user"
            raise Forbidden(
                f"{self.path} {what}.", "Spread only your own folders: a move changes who can reach a file."
            )
        found = _CrowdedFolder(await self.api.changes_token())
        async for page in self.api.list_folders([self.folder.id], sharing=True):
            found.pages += 1
            for file in page.files:
                self._classify(found, file)
        return found

    def _classify(self, found: _CrowdedFolder, file: File) -> None:
        if file.is_folder:
            found.subfolders[file.id] = file.name
        elif not file.owned or file.shared:
            found.skipped[file.id] = Skipped(file.name, "shared" if file.owned else "owned by another user")
        elif file.name == NAME:
            found.manifest = file
        elif not file.name.startswith(_OWN_PREFIX):
            found.files[file.id] = file

    async def _load_manifest(self, found: _CrowdedFolder) -> SpreadManifest | None:
        """Return the manifest of an earlier spread: the drive's copy, else this machine's; None if there is none.

        Raises `InputError` if the drive's copy is damaged, not made by haversack, or of another folder.
        """
        if found.manifest is not None:
            marks = await self.api.app_properties(found.manifest.id)
            if marks.get(MARK) != _MANIFEST_MARK:
                raise InputError(f"{NAME} in {self.path} was not made by haversack.", "Rename it.")
            async with self.api.download(found.manifest.id, 0, max(1, found.manifest.size)) as response:
                content = await response.read()
            manifest = SpreadManifest.decoded(content)
            if manifest.folder != self.folder.id:
                raise InputError(f"{NAME} in {self.path} is that of another folder.", "Move it back to its own folder.")
            return manifest
        if not self.local_manifest.exists():
            return None
        manifest = SpreadManifest.decoded(self.local_manifest.read_bytes())
        # If no subfolder exists, the spread had not started, or another machine has undone it.
        return manifest if set(manifest.subfolders.values()) & set(found.subfolders) else None

    async def _in_subfolders(self, plan: SpreadManifest) -> list[File]:
        """Return the files in a spread's subfolders.

        Each folder gets a query of its own: a query for several may omit files, and a file missing here would not be
        moved back.
        """
        found: list[File] = []
        queries: list[tuple[str, str | None]] = [(folder_id, None) for folder_id in plan.subfolders.values()]
        while queries:
            pages = await self.api.batch([calls.listing([folder_id], token) for folder_id, token in queries])
            following: list[tuple[str, str | None]] = []
            for (folder_id, _), page in zip(queries, pages, strict=True):
                if isinstance(page, NotFound):
                    continue  # the subfolder was deleted for good
                if isinstance(page, HaversackError):
                    raise page
                found += page.files
                if page.token is not None:
                    following.append((folder_id, page.token))
            queries = following
        return found

    async def _apply_changes(self, found: _CrowdedFolder) -> None:
        """Update `found.files` with the changes since `found.token`; a deleted file is marked as trashed."""
        async for page in self.api.changes(found.token):
            for change in page.changes:
                if change.file_id in found.files:
                    known = found.files[change.file_id]
                    found.files[change.file_id] = change.file or replace(known, trashed=True)
            found.token = page.token

    # Planning

    async def _plan(self, found: _CrowdedFolder, before: SpreadManifest | None, by: str, size: int) -> SpreadManifest:
        """Return the manifest to carry out: the one before with the files that were added since, or a new one.

        Raises `InputError` if the folder has a subfolder of a name that the plan needs.
        """
        files = {file.id: SpreadEntry.of(file) for file in found.files.values()}
        if before is not None:
            # Files that were moved keep their entries; files that are still in the folder get new ones.
            files = {**before.files, **files}
            rule, subfolders, file_id = before.rule, dict(before.subfolders), before.file_id
        else:
            rule, subfolders = Rule.of(by, [file.name for file in found.files.values()], size), {}
            file_id = "" if self.dry_run else await self.api.new_id()
        wanted = sorted({rule.subfolder(entry.name) for entry in files.values()} - set(subfolders))
        taken = set(wanted) & set(found.subfolders.values())
        if taken:
            raise InputError(f"There is a folder {sorted(taken)[0]!r} in {self.path} already.", "Rename it first.")
        ids = [""] * len(wanted) if self.dry_run else await self.api.new_ids(len(wanted))
        subfolders |= dict(zip(wanted, ids, strict=True))
        return SpreadManifest(self.folder.id, file_id, rule, subfolders, files)

    def _estimate(self, report: SpreadReport, read: int, written: int) -> None:
        """Fill in calls and minutes, at the rate that Drive sustains, or a lower one to which it has slowed us."""
        report.calls = written + read + math.ceil(written / _BATCH) + 2
        report.minutes = report.calls / min(_CALLS_PER_SECOND, self.api.http.rate_limiter.rate) / 60

    # Writing

    async def _save_manifest(self, plan: SpreadManifest, exists: bool) -> None:
        """Store the manifest on this machine, then on the drive; on each it is complete or absent."""
        content = plan.encoded()
        disk.write(self.local_manifest, content)
        upload = ResumableUpload(
            source=self.local_manifest,
            size=len(content),
            md5=hashlib.md5(content, usedforsecurity=False).hexdigest(),
            file_id=plan.file_id,
            exists=exists,
            parent=self.folder.id,
            name=NAME,
            modified=time.time(),
            marks={MARK: _MANIFEST_MARK},
        )
        await self.api.upload(upload)

    async def _create_subfolders(self, plan: SpreadManifest, found: _CrowdedFolder) -> None:
        """Create the plan's missing subfolders. Raises `InputError` if one was trashed, deleted or moved away."""
        missing = {name: folder_id for name, folder_id in plan.subfolders.items() if folder_id not in found.subfolders}
        made = [calls.create_folder(folder_id, self.folder.id, name) for name, folder_id in missing.items()]
        existing = []
        for (name, folder_id), answer in zip(missing.items(), await self.api.batch(made), strict=True):
            if isinstance(answer, AlreadyExists):
                existing.append((name, folder_id))
            elif isinstance(answer, HaversackError):
                raise answer
        # These ids are in use: the folder was created just before a kill, or was moved away or trashed since.
        checks = await self.api.batch([calls.get(folder_id) for _, folder_id in existing])
        for (name, _), folder in zip(existing, checks, strict=True):
            if isinstance(folder, HaversackError) or folder.trashed or folder.parent != self.folder.id:
                raise InputError(f"The subfolder {name} is not in {self.path} any more.", "Move it back, or undo.")

    async def _move(
        self,
        found: _CrowdedFolder,
        todo: list[tuple[SpreadEntry, str]],
        report: SpreadReport,
        advance: progress.Advance,
    ) -> None:
        """Move each file to its subfolder, given by id; skip those that were changed since the listing."""
        for some in _batches(todo, _BATCH):
            await self._apply_changes(found)
            ready = []
            for entry, target in some:
                file = found.files[entry.id]
                why = _why_skipped(entry, file, self.folder.id)
                if why is None:
                    ready.append((file, target))
                elif file.parent != target:
                    report.left.append(Skipped(entry.name, why))
            await self._move_batch(ready, report, advance)

    async def _move_batch(
        self, moves: Sequence[tuple[File, str]], report: SpreadReport, advance: progress.Advance
    ) -> None:
        """Move files, each to the folder of the given id. Skip one that is gone or forbidden; raise any other error."""
        updates: list[Call[File]] = [calls.update(file, parent=target) for file, target in moves]
        failure: HaversackError | None = None
        for (file, target), answer in zip(moves, await self.api.batch(updates), strict=True):
            if isinstance(answer, File) and answer.parent == target:
                report.moved += 1
                advance(1)
            elif isinstance(answer, File):
                report.left.append(Skipped(file.name, "the drive did not move it"))
            elif isinstance(answer, NotFound | Forbidden):
                report.left.append(Skipped(file.name, answer.what))
            else:
                failure = answer
        if failure is not None:
            raise failure

    async def _clean_up(self, plan: SpreadManifest) -> None:
        """After an undo, trash the empty subfolders; delete the manifest unless a file is still to be moved back."""
        present = await self._in_subfolders(plan)
        filled = {file.parent for file in present}
        empty = [folder_id for folder_id in plan.subfolders.values() if folder_id not in filled]
        for answer in await self.api.batch([calls.trash(folder_id) for folder_id in empty]):
            if isinstance(answer, HaversackError):
                raise answer
        if not any(file.id in plan.files for file in present):
            await self.api.delete(plan.file_id)
            self.local_manifest.unlink(missing_ok=True)


def _why_skipped(entry: SpreadEntry, file: File, source: str) -> str | None:
    """Return why a file of the plan must not move out of the folder `source`; None if it may."""
    if file.trashed:
        return "deleted during the spread"
    if file.parent != source:
        return "moved during the spread"
    if not entry.matches(file):
        return "changed during the spread"
    return None


def _connect(path: str, hub: str | None) -> tuple[tree.Drive, File]:
    """Return the drive and the folder at `path`, with or without `My Drive/`. Raises `NotFound` or `NotAFolder`."""
    drive = tree.connect(hub)
    names = tree.split(path)
    return drive, drive.folder(names[1:] if names[:1] in ((ROOT,), (ALIAS,)) else names)


def _shown_path(path: str) -> str:
    return path.strip("/") or ROOT


def _local_manifest(folder_id: str) -> Path:
    """The path of this machine's copy of a folder's manifest. The id is hashed: a server's id may be no file name."""
    return settings.load().data / "spread" / f"{hashlib.sha256(folder_id.encode()).hexdigest()[:32]}.json.gz"


@contextmanager
def _lock(folder: File) -> Iterator[None]:
    """Lock the folder against other spreads on this machine. Raises `InputError` if another process has the lock."""
    path = _local_manifest(folder.id)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"{folder.name} is being spread by another process.", "Wait until that has ended.") from None
    try:
        yield
    finally:
        lock.release()


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _duration(minutes: float) -> str:
    return "a minute" if minutes <= 1 else f"{minutes:,.0f} minutes" if minutes < 120 else f"{minutes / 60:,.1f} hours"
