"""Published data sets: `kaggle/<owner>/<slug>/<version>/…` are plain files; a version never changes.

A version is downloaded as its bundle, one zip archive. If a single zip was published, the bundle is that file, and the
data set's files are its members. Otherwise the published files are stored, and a bundle without compression is created
at the first download; archives among several files are unpacked into folders of their names, as Kaggle does. A version
is built in a temporary folder and published by one rename. The list of versions and their descriptions are in the
database; folders that are put there by hand are not data sets.
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
# The earliest time that zip allows. A constant: equal files make equal archives.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Version:
    """One version of a data set.

    Attributes:
        owner: the user name in the data set's URL, in lower case.
        slug: the data set's name in its URL, in lower case.
        number: the version; the first is 1.
        notes: what changed in this version, in the owner's words.
        created: when it was published, in nanoseconds since 1970.
        archive: the file name of the single zip that was published; None if plain files were published.
        private: whether clients must sign in to see the data set.
        details: descriptions of the data set under Kaggle's names: `title`, `subtitle`, `description`, `licenseName`.
    """

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
        """`owner/slug`, the data set's name."""
        return f"{self.owner}/{self.slug}"


@dataclass(frozen=True)
class BundleMember:
    """A file of a version: its name, with folders (`train/1.png`), and its uncompressed size in bytes."""

    name: str
    size: int


@dataclass(frozen=True)
class Blob:
    """An uploaded file that becomes part of a version.

    Attributes:
        name: the file's name as its owner gave it; only the last component is used.
        path: where its content is on disk; it is linked or copied, and not deleted.
        folder: the names of the nested folders in the version that contain it, outermost first.
    """

    name: str
    path: Path
    folder: tuple[str, ...] = ()


class DatasetStore:
    """The published data sets. Thread-safe.

    The versions' files are in `folder`. Derived files are in `made` below the folder `hub`, each created once and kept:
    bundles, members extracted from a published zip, cached MD5s. `_locks` has a lock for each derived file. Names of
    owners and data sets are compared in lower case.
    """

    def __init__(self, folder: Path, hub: Path, records: Records) -> None:
        self.folder = folder
        self.records = records
        self._derived = hub / "made"
        self._building = hub / "building"
        self._locks: defaultdict[Path, Lock] = defaultdict(Lock)
        # Only the latest list is cached: clients request its pages in sequence.
        self._cached_members: dict[tuple[str, str, int], list[BundleMember]] = {}
        shutil.rmtree(self._building, ignore_errors=True)
        for made in (folder, self._derived, self._building):
            made.mkdir(parents=True, exist_ok=True)

    def find(self, owner: str, slug: str, number: int | None = None) -> Version:
        """Return a version, by default the newest. Raises `Refusal` (404) if it does not exist."""
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
        """Return the newest version of every data set, private ones included, the most recently published first."""
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
        """Publish `blobs` as version 1 of a new data set, and return the version.

        Args:
            owner: the user name in the data set's URL.
            slug: the data set's name in its URL.
            details: title, description and so on, as in `Version`.
            private: whether clients must sign in to see the data set.
            blobs: all files of the version.

        Raises `Refusal`: 409 if the data set exists, 400 for an invalid owner, slug or file name, or without files.
        """
        owner, slug = _slug(owner, "ownerSlug"), _slug(slug, "slug")
        if self.records.row("SELECT 1 FROM sets WHERE owner = ? AND slug = ?", owner, slug) is not None:
            raise Refusal(409, "alreadyExists", f"The data set {owner}/{slug} already exists.")
        with self._build(blobs) as (building, archive):
            with self.records.transaction():
                if self.records.row("SELECT 1 FROM sets WHERE owner = ? AND slug = ?", owner, slug) is not None:
                    raise Refusal(409, "alreadyExists", f"The data set {owner}/{slug} already exists.")
                self.records.write(
                    "INSERT INTO sets (owner, slug, details, private) VALUES (?, ?, ?, ?)",
                    owner, slug, json.dumps(details), private,
                )  # fmt: skip
                self._publish(owner, slug, 1, "Initial release", archive, building)
        return self.find(owner, slug)

    def add_version(self, owner: str, slug: str, notes: str, details: dict[str, Any], blobs: Sequence[Blob]) -> Version:
        """Publish `blobs` as the next version of an existing data set, and return it.

        Args:
            owner: the user name in the data set's URL.
            slug: the data set's name in its URL.
            notes: what changed in this version, in the owner's words.
            details: title, description and so on, as in `Version`; keys that are missing keep their stored values.
            blobs: all files of the version.

        Raises `Refusal`: 404 if the data set does not exist, 400 without files or for an invalid file name.
        """
        self.find(owner, slug)
        with self._build(blobs) as (building, archive):
            with self.records.transaction():
                before = self.find(owner, slug)
                self.records.write(
                    "UPDATE sets SET details = ? WHERE owner = ? AND slug = ?",
                    json.dumps({**before.details, **details}), before.owner, before.slug,
                )  # fmt: skip
                self._publish(before.owner, before.slug, before.number + 1, notes, archive, building)
        return self.find(owner, slug)

    def members(self, version: Version) -> list[BundleMember]:
        """Return the files of a version, sorted by name. The list of the version asked for last is cached.

        Raises `Refusal` (404) if the files were deleted by hand and are not in the cached list.
        """
        key = (version.owner, version.slug, version.number)
        known = self._cached_members.get(key)
        if known is not None:
            return known
        if version.archive is not None:
            with zipfile.ZipFile(self._existing_folder(version) / version.archive) as archive:
                found = [
                    BundleMember(entry.filename, entry.file_size) for entry in archive.infolist() if not entry.is_dir()
                ]
        else:
            folder = self._existing_folder(version)
            found = [BundleMember(name, path.stat().st_size) for name, path in _plain_files(folder)]
        found.sort(key=lambda member: member.name)
        self._cached_members = {key: found}
        return found

    def total_size(self, version: Version) -> int:
        """Return the total size of a version's published files in bytes (a published zip counts as it is, compressed).

        Raises `Refusal` (404) if they were deleted by hand.
        """
        return sum(path.stat().st_size for _, path in _plain_files(self._existing_folder(version)))

    def bundle(self, version: Version) -> Path:
        """Return the path of a version's bundle, one zip archive; create it if needed.

        Raises `Refusal` (404) if the version's files were deleted by hand.
        """
        folder = self._existing_folder(version)
        if version.archive is not None:
            return folder / version.archive
        path = self._derived / version.owner / version.slug / f"{version.number}.zip"
        return self._derive_once(path, lambda temporary: _write_zip(folder, temporary))

    def file(self, version: Version, name: str) -> Path:
        """Return the path of a version's file `name`; a member of the published zip is extracted first.

        Raises `Refusal`: 404 if there is no such file or the version was deleted by hand, 422 if the member is damaged,
        encrypted or compressed in an unknown way.
        """
        if version.archive is not None:
            return self._extract_member(version, name)
        folder = self._existing_folder(version)
        path = folder / name
        within = ".." not in Path(name).parts and "\0" not in name and path.resolve().is_relative_to(folder.resolve())
        if not within or not path.is_file():
            raise _no_file(version, name)
        return path

    def has_rules(self, version: Version) -> bool:
        """Whether users must accept rules before they download, as in Kaggle's competitions.

        This is so if a file `RULES` is beside the versions' folders. The hub has no way to accept them, so downloads of
        such a competition are always refused.
        """
        return (self.folder / version.owner / version.slug / "RULES").exists()

    def md5(self, path: Path) -> str:
        """Return the MD5 in hexadecimal of a version's or a derived file at `path`.

        It is cached on disk until the file's size, mtime or inode changes. Raises `OSError` if the file cannot be read.
        """
        cache_file = (
            self._derived
            / "md5"
            / hashlib.sha256(os.fsencode(path.relative_to(self._derived.parent.parent))).hexdigest()
        )
        state = path.stat()
        key = f"{state.st_size} {state.st_mtime_ns} {state.st_ino} "
        if cache_file.exists() and (known := cache_file.read_text()).startswith(key):
            return known.removeprefix(key)
        value = content.digests(path).md5
        cache_file.parent.mkdir(exist_ok=True)
        with content.temporary_path(cache_file.parent) as temporary:
            temporary.write_text(key + value)
            temporary.replace(cache_file)
        return value

    def _extract_member(self, version: Version, name: str) -> Path:
        """Extract a member of the published archive once, so that ranges of it can be served."""
        assert version.archive is not None
        with zipfile.ZipFile(self._existing_folder(version) / version.archive) as archive:
            try:
                entry = archive.getinfo(name)
            except KeyError:
                raise _no_file(version, name) from None
            plain = hashlib.sha256(name.encode()).hexdigest()
            path = self._derived / version.owner / version.slug / f"{version.number}.members" / plain

            def extract(temporary: Path) -> None:
                with archive.open(entry) as source, open(temporary, "xb") as target:
                    shutil.copyfileobj(source, target, content.BLOCK)
                os.utime(temporary, ns=(version.created, version.created))

            try:
                return self._derive_once(path, extract)
            except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
                raise Refusal(422, "unreadable", f"{name} cannot be read from the archive ({error}).") from error

    def _derive_once(self, path: Path, make: Callable[[Path], None]) -> Path:
        """Return `path`; if it does not exist, let `make` write a temporary file and rename it there."""
        with self._locks[path]:
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                with content.temporary_path(self._building) as temporary:
                    make(temporary)
                    temporary.replace(path)
        return path

    def _existing_folder(self, version: Version) -> Path:
        """Return the folder of a version. Raises `Refusal` (404) if it was deleted by hand."""
        folder = self.folder / version.owner / version.slug / str(version.number)
        if not folder.is_dir() or (version.archive is not None and not (folder / version.archive).is_file()):
            raise Refusal(
                404,
                "notFound",
                f"The files of {version.ref} at version {version.number} were deleted from the hub's folder.",
            )
        return folder

    @contextmanager
    def _build(self, blobs: Sequence[Blob]) -> Iterator[tuple[Path, str | None]]:
        """Yield a temporary folder with the files of a version, and the name of its archive if it consists of one zip.

        The folder is deleted on exit unless it was renamed away.
        """
        if not blobs:
            raise Refusal(400, "invalid", "A data set needs at least one file.")
        building = self._building / secrets.token_hex(12)
        building.mkdir()
        try:
            for blob in blobs:
                target = _target_path(building, blob)
                unpacked = len(blobs) > 1 and _is_zip(blob)
                if not unpacked or not _unpack(blob.path, target.with_suffix("")):
                    _link_or_copy(blob.path, target)
            single = next(building.iterdir())
            yield building, single.name if len(blobs) == 1 and not blobs[0].folder and _is_zip(blobs[0]) else None
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def _publish(self, owner: str, slug: str, number: int, notes: str, archive: str | None, building: Path) -> None:
        """Insert the version's row and rename its folder to its place; the caller holds the transaction."""
        self.records.write(
            "INSERT INTO versions (owner, slug, number, notes, created, archive) VALUES (?, ?, ?, ?, ?, ?)",
            owner, slug, number, notes, time.time_ns(), archive,
        )  # fmt: skip
        target = self.folder / owner / slug / str(number)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            # No row refers to it: left by a crash between this rename and the commit, put there by hand, or a version
            # of a database that was lost. It may be somebody's only copy, so it stays beside the versions.
            os.rename(target, target.with_name(f"{number}.before-{secrets.token_hex(4)}"))
        os.rename(building, target)


def _version(row: Any) -> Version:
    return Version(
        row["owner"], row["slug"], row["number"], row["notes"], row["created"], row["archive"],
        bool(row["private"]), json.loads(row["details"]),
    )  # fmt: skip


def _slug(text: str, where: str) -> str:
    if not _SLUG.fullmatch(text):
        raise Refusal(400, "invalid", f"{where} {text[:100]!r} does not consist of letters, digits, - and _.")
    return text.lower()


def _target_path(building: Path, blob: Blob) -> Path:
    """Return the path of a file in its version's folder, and create the folders above it."""
    folder = building
    for name in blob.folder:
        below = folder / os.fsdecode(names.to_disk(_plain_name(name)))
        if os.path.lexists(below) and not below.is_dir():
            raise Refusal(400, "invalid", f"{name[:100]} is both a file and a directory.")
        below.mkdir(exist_ok=True)
        folder = below
    disk = names.free_name(_plain_name(blob.name), lambda disk: os.path.lexists(folder / os.fsdecode(disk)))
    return folder / os.fsdecode(disk)


def _plain_name(name: str) -> str:
    """Return the last component of an uploaded file's name, so that no path leaves the version's folder."""
    return names.validate(re.split(r"[/\\]", name.rstrip("/\\"))[-1] or "file")


def _is_zip(blob: Blob) -> bool:
    return blob.name.lower().endswith(".zip") and zipfile.is_zipfile(blob.path)


def _unpack(path: Path, target: Path) -> bool:
    """Unpack an archive; False, with nothing written, if it is damaged or has member names that leave the folder."""
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


def _link_or_copy(source: Path, target: Path) -> None:
    """Hard-link `source` to `target`, or copy it where the file system cannot."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _plain_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield every regular file below a folder: its relative name and its path."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(folder).as_posix(), path


def _write_zip(folder: Path, target: Path) -> None:
    """Write a stored zip: published files are mostly compressed already, and stored members can be read in ranges."""
    with zipfile.ZipFile(target, "x", zipfile.ZIP_STORED) as archive:
        for name, path in _plain_files(folder):
            entry = zipfile.ZipInfo(name, _ZIP_TIME)
            entry.external_attr = 0o644 << 16
            entry.file_size = path.stat().st_size
            with open(path, "rb") as source, archive.open(entry, "w") as member:
                shutil.copyfileobj(source, member, content.BLOCK)


def _no_file(version: Version, name: str) -> Refusal:
    return Refusal(404, "notFound", f"{version.ref} at version {version.number} has no file {name[:200]}.")
