"""Published data sets: `kaggle/<owner>/<slug>/<version>/…` are plain files, and a version never changes.

What a version is downloaded as, its bundle, is one zip archive. Where one zip was published it is that very file, and
the set's files are its members; where several files were, a stored zip of them is made once. Archives among several
files become folders of their name, as Kaggle unpacks them. A version is built aside and appears by one rename.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from haversack.hub import content, names
from haversack.hub.records import Records
from haversack.hub.refusal import Refusal

_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
# A zip's entries have no time before 1980; one fixed time makes the same files the same archive.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Version:
    """One version of a data set. `archive` is the name of the zip it was published as, None for plain files."""

    owner: str
    slug: str
    number: int
    notes: str
    created: int
    archive: str | None
    private: bool
    details: dict[str, Any]

    @property
    def ref(self) -> str:
        return f"{self.owner}/{self.slug}"


@dataclass(frozen=True)
class BundleMember:
    name: str
    size: int


@dataclass(frozen=True)
class Blob:
    """An uploaded file: the name its owner gave it, where its bytes lie, and the folders that it belongs into."""

    name: str
    path: Path
    folder: tuple[str, ...] = ()


class Shelf:
    """The data sets below `folder`; `hub` is the folder for what is made of them."""

    def __init__(self, folder: Path, hub: Path, records: Records) -> None:
        self.folder = folder
        self.records = records
        self._made = hub / "made"
        self._building = hub / "building"
        self._making: defaultdict[Path, Lock] = defaultdict(Lock)
        # The last list of files that was asked for: its pages are asked for one after the other.
        self._listed: dict[tuple[str, str, int], list[BundleMember]] = {}
        shutil.rmtree(self._building, ignore_errors=True)
        for made in (folder, self._made, self._building):
            made.mkdir(parents=True, exist_ok=True)

    def find(self, owner: str, slug: str, number: int | None = None) -> Version:
        """A version, the newest unless `number` names one. Raises `Refusal` (404)."""
        row = self.records.row(
            "SELECT versions.*, private, details FROM versions JOIN sets USING (owner, slug)"
            " WHERE owner = ? AND slug = ? AND (? IS NULL OR number = ?) ORDER BY number DESC LIMIT 1",
            owner.lower(), slug.lower(), number, number,
        )  # fmt: skip
        if row is None:
            which = "" if number is None else f" at version {number}"
            raise Refusal(404, "notFound", f"There is no data set {owner[:100]}/{slug[:100]}{which}.")
        return _version(row)

    def newest(self) -> list[Version]:
        """Every data set at its newest version, the newest first."""
        return [
            _version(row)
            for row in self.records.rows(
                "SELECT versions.*, private, details FROM versions JOIN sets USING (owner, slug)"
                " WHERE number = (SELECT max(number) FROM versions AS v"
                "  WHERE v.owner = versions.owner AND v.slug = versions.slug)"
                " ORDER BY created DESC"
            )
        ]

    def create(self, owner: str, slug: str, details: dict[str, Any], private: bool, blobs: Sequence[Blob]) -> Version:
        """A new data set, its version 1. Raises `Refusal` (409) where there is one of that name."""
        owner, slug = _slug(owner, "ownerSlug"), _slug(slug, "slug")
        if self.records.row("SELECT 1 FROM sets WHERE owner = ? AND slug = ?", owner, slug) is not None:
            raise Refusal(409, "alreadyExists", f"There is a data set {owner}/{slug} already.")
        with self._built(blobs) as (building, archive):
            with self.records.transaction():
                if self.records.row("SELECT 1 FROM sets WHERE owner = ? AND slug = ?", owner, slug) is not None:
                    raise Refusal(409, "alreadyExists", f"There is a data set {owner}/{slug} already.")
                self.records.write(
                    "INSERT INTO sets (owner, slug, details, private) VALUES (?, ?, ?, ?)",
                    owner, slug, json.dumps(details), private,
                )  # fmt: skip
                self._publish(owner, slug, 1, "Initial release", archive, building)
        return self.find(owner, slug)

    def add_version(self, owner: str, slug: str, notes: str, details: dict[str, Any], blobs: Sequence[Blob]) -> Version:
        """The next version of a data set that is there."""
        self.find(owner, slug)
        with self._built(blobs) as (building, archive):
            with self.records.transaction():
                before = self.find(owner, slug)
                self.records.write(
                    "UPDATE sets SET details = ? WHERE owner = ? AND slug = ?",
                    json.dumps({**before.details, **details}), before.owner, before.slug,
                )  # fmt: skip
                self._publish(before.owner, before.slug, before.number + 1, notes, archive, building)
        return self.find(owner, slug)

    def members(self, version: Version) -> list[BundleMember]:
        """The files of a version, sorted by name."""
        key = (version.owner, version.slug, version.number)
        known = self._listed.get(key)
        if known is not None:
            return known
        if version.archive is not None:
            with zipfile.ZipFile(self._present(version) / version.archive) as archive:
                found = [
                    BundleMember(entry.filename, entry.file_size) for entry in archive.infolist() if not entry.is_dir()
                ]
        else:
            folder = self._present(version)
            found = [BundleMember(name, path.stat().st_size) for name, path in _files(folder)]
        found.sort(key=lambda member: member.name)
        self._listed = {key: found}
        return found

    def total(self, version: Version) -> int:
        """The size of what a version holds on disk, in bytes."""
        return sum(path.stat().st_size for _, path in _files(self._present(version)))

    def bundle(self, version: Version) -> Path:
        """The zip archive of a whole version."""
        folder = self._present(version)
        if version.archive is not None:
            return folder / version.archive
        path = self._made / version.owner / version.slug / f"{version.number}.zip"
        return self._make(path, lambda aside: _zip(folder, aside))

    def file(self, version: Version, name: str) -> Path:
        """One file of a version. Raises `Refusal` (404)."""
        if version.archive is not None:
            return self._member(version, name)
        folder = self._present(version)
        path = folder / name
        within = ".." not in Path(name).parts and "\0" not in name and path.resolve().is_relative_to(folder.resolve())
        if not within or not path.is_file():
            raise _no_file(version, name)
        return path

    def has_rules(self, version: Version) -> bool:
        """Whether there are rules that nobody accepted yet: a file RULES beside the versions of the data set."""
        return (self.folder / version.owner / version.slug / "RULES").exists()

    def md5(self, path: Path) -> str:
        """The hash of a file that never changes; computed once."""
        note = self._made / "md5" / hashlib.sha256(os.fsencode(path.relative_to(self._made.parent.parent))).hexdigest()
        state = path.stat()
        key = f"{state.st_size} {state.st_mtime_ns} {state.st_ino} "
        if note.exists() and (known := note.read_text()).startswith(key):
            return known.removeprefix(key)
        value = content.digests(path).md5
        note.parent.mkdir(exist_ok=True)
        with content.aside(note.parent) as aside:
            aside.write_text(key + value)
            aside.replace(note)
        return value

    def _member(self, version: Version, name: str) -> Path:
        """A member of the published archive, taken out once so that it can be served in ranges."""
        assert version.archive is not None
        with zipfile.ZipFile(self._present(version) / version.archive) as archive:
            try:
                entry = archive.getinfo(name)
            except KeyError:
                raise _no_file(version, name) from None
            plain = hashlib.sha256(name.encode()).hexdigest()
            path = self._made / version.owner / version.slug / f"{version.number}.members" / plain

            def take_out(aside: Path) -> None:
                with archive.open(entry) as source, open(aside, "xb") as target:
                    shutil.copyfileobj(source, target, content.BLOCK)
                os.utime(aside, ns=(version.created, version.created))

            try:
                return self._make(path, take_out)
            except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
                raise Refusal(422, "unreadable", f"{name} cannot be read from the archive ({error}).") from error

    def _make(self, path: Path, make: Callable[[Path], None]) -> Path:
        """What `make` writes, once; complete or absent."""
        with self._making[path]:
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                with content.aside(self._building) as aside:
                    make(aside)
                    aside.replace(path)
        return path

    def _present(self, version: Version) -> Path:
        folder = self.folder / version.owner / version.slug / str(version.number)
        if not folder.is_dir() or (version.archive is not None and not (folder / version.archive).is_file()):
            raise Refusal(404, "notFound", f"The files of {version.ref} at version {version.number} were removed.")
        return folder

    @contextmanager
    def _built(self, blobs: Sequence[Blob]) -> Iterator[tuple[Path, str | None]]:
        """A folder with the files of a version to come, and the name of its archive if it is one."""
        if not blobs:
            raise Refusal(400, "invalid", "A data set has at least one file.")
        building = self._building / secrets.token_hex(12)
        building.mkdir()
        try:
            for blob in blobs:
                target = _free_place(building, blob)
                unpacked = len(blobs) > 1 and _is_zip(blob)
                if not unpacked or not _unpack(blob.path, target.with_suffix("")):
                    _link(blob.path, target)
            single = next(building.iterdir())
            yield building, single.name if len(blobs) == 1 and not blobs[0].folder and _is_zip(blobs[0]) else None
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def _publish(self, owner: str, slug: str, number: int, notes: str, archive: str | None, building: Path) -> None:
        self.records.write(
            "INSERT INTO versions (owner, slug, number, notes, created, archive) VALUES (?, ?, ?, ?, ?, ?)",
            owner, slug, number, notes, time.time_ns(), archive,
        )  # fmt: skip
        target = self.folder / owner / slug / str(number)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            # Left by a hub that was killed just here, or put there by hand; its record would have come first.
            os.rename(target, self._building / secrets.token_hex(12))
        os.rename(building, target)


def _version(row: Any) -> Version:
    return Version(
        row["owner"], row["slug"], row["number"], row["notes"], row["created"], row["archive"],
        bool(row["private"]), json.loads(row["details"]),
    )  # fmt: skip


def _slug(text: str, where: str) -> str:
    if not _SLUG.fullmatch(text):
        raise Refusal(400, "invalid", f"{where} {text[:100]!r} is not made of letters, digits, - and _.")
    return text.lower()


def _free_place(building: Path, blob: Blob) -> Path:
    """Where a file goes in the folder of its version, in folders of its own if need be."""
    folder = building
    for name in blob.folder:
        below = folder / os.fsdecode(names.on_disk(_plain_name(name)))
        if os.path.lexists(below) and not below.is_dir():
            raise Refusal(400, "invalid", f"{name[:100]} is both a file and a directory.")
        below.mkdir(exist_ok=True)
        folder = below
    disk = names.free(_plain_name(blob.name), lambda disk: os.path.lexists(folder / os.fsdecode(disk)))
    return folder / os.fsdecode(disk)


def _plain_name(name: str) -> str:
    """The last part of an uploaded file's name; no path leaves the version's folder."""
    return names.checked(re.split(r"[/\\]", name.rstrip("/\\"))[-1] or "file")


def _is_zip(blob: Blob) -> bool:
    return blob.name.lower().endswith(".zip") and zipfile.is_zipfile(blob.path)


def _unpack(path: Path, target: Path) -> bool:
    """Unpack an archive; False, and nothing written, for one that is damaged or has names that leave its folder."""
    if os.path.lexists(target):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                parts = Path(entry.filename).parts
                if entry.filename.startswith(("/", "\\")) or ".." in parts or "\\" in entry.filename:
                    return False
            target.mkdir()
            archive.extractall(target)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError):
        shutil.rmtree(target, ignore_errors=True)
        return False
    return True


def _link(source: Path, target: Path) -> None:
    """The same bytes under another name, without copying them where the disk can do that."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every plain file below a folder with its name relative to it."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(folder).as_posix(), path


def _zip(folder: Path, target: Path) -> None:
    """A stored zip: what is published is mostly compressed already, and stored members can be read in ranges."""
    with zipfile.ZipFile(target, "x", zipfile.ZIP_STORED) as archive:
        for name, path in _files(folder):
            entry = zipfile.ZipInfo(name, _ZIP_TIME)
            entry.external_attr = 0o644 << 16
            entry.file_size = path.stat().st_size
            with open(path, "rb") as source, archive.open(entry, "w") as member:
                shutil.copyfileobj(source, member, content.BLOCK)


def _no_file(version: Version, name: str) -> Refusal:
    return Refusal(404, "notFound", f"{version.ref} at version {version.number} has no file {name[:200]}.")
