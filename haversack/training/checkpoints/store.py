"""The store on this machine's disk: a folder with one folder for each link, complete or absent.

A link is written to a temporary folder, its files first and its manifest last. Everything is synced before the folder
is renamed to the link's number, and the rename fails if that number is taken. To delete a link, its folder is renamed
to a hidden name first, so no reader sees half of it. Folders with other names are left alone.

The module also has what both stores share: links as they were found, and which of them retention keeps.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from haversack import disk
from haversack.errors import IntegrityError
from haversack.training.checkpoints import manifest, tensors
from haversack.training.checkpoints.failpoints import failpoint
from haversack.training.checkpoints.manifest import ARRAYS_FILE, MANIFEST_FILE, CheckpointManifest
from haversack.training.checkpoints.snapshot import Arrays
from haversack.training.checkpoints.tensors import FileChecksum

WriteFiles = Callable[[Path], Mapping[str, FileChecksum]]
"""Writes a checkpoint's files into the given folder and returns their checksums by file name."""

_LINK_NAME = re.compile(r"\d{8,}")
_TEMPORARY, _DELETED, _FETCHED = ".aside-", ".gone-", "fetched-"
"""How the names of other folders begin: a link being written, a link being deleted, a copy from another store."""


class ChainConflict(Exception):
    """Another session extended the chain, or the caller tried to delete the chain's newest link.

    Internal: `Checkpoints` raises `RunTaken` or `RunLost` in its place.
    """


@dataclass(frozen=True)
class Link:
    """A link of a run's chain (checkpoint, claim or release) as it was found in a store.

    Attributes:
        name: the name of its folder on the disk, or of its manifest's file in a remote store.
        manifest: its manifest; None if that cannot be read.
        fault: why the manifest cannot be read; "" if it was read.
    """

    name: str
    manifest: CheckpointManifest | None
    fault: str = ""

    @property
    def number(self) -> int:
        """Its place in the chain, from 1, by its name. Raises `ValueError` for a fetched copy, which has none."""
        return int(self.name.partition(".")[0])

    def may_be(self, other: Link) -> bool:
        """Whether both may be the same link: False only if both manifests are readable and their ids differ."""
        return self.manifest is None or other.manifest is None or self.manifest.id == other.manifest.id


def readable_checkpoints(links: Iterable[Link]) -> list[Link]:
    """Return the checkpoints among `links` whose manifest is readable, oldest first; of several copies the first."""
    by_id: dict[str, tuple[CheckpointManifest, Link]] = {}
    for link in links:
        if link.manifest is not None and link.manifest.kind == "checkpoint":
            by_id.setdefault(link.manifest.id, (link.manifest, link))
    return [link for _, link in sorted(by_id.values(), key=lambda pair: pair[0].order)]


def retained(links: Iterable[Link], keep: int) -> list[Link]:
    """Return the checkpoints that retention keeps, oldest first.

    They are the newest `keep`, the newest that was saved as best, the newest that has not diverged, and the milestones.
    """
    checkpoints = readable_checkpoints(links)
    kept_apart = [
        *[link for link in checkpoints if link.manifest and link.manifest.best][-1:],
        *[link for link in checkpoints if link.manifest and not link.manifest.diverged][-1:],
    ]
    return [
        link
        for link in checkpoints
        if link in checkpoints[-keep:] or link in kept_apart or (link.manifest and link.manifest.milestone)
    ]


def expired(links: list[Link], keep: int) -> list[Link]:
    """Return the links of a chain that retention deletes.

    They are the links before the oldest of the newest `keep` checkpoints, claims, releases and unreadable links
    included, except those that are retained. With at most `keep` checkpoints there are none.
    """
    checkpoints, staying = readable_checkpoints(links), retained(links, keep)
    if len(checkpoints) <= keep:
        return []
    return [link for link in links if link not in staying and link.number < checkpoints[-keep].number]


class LocalStore:
    """The chain of a run in `folder`, which is created by the first commit.

    Readers need no lock, since a link is complete or absent. Only the owner of the run commits, from one thread at a
    time. `_tip` is the last link of the chain when this object claimed the run or committed last, None before that. A
    commit is refused if another session has committed a link after `_tip`. Beside the chain, `folder` may hold copies
    of checkpoints that were fetched from a remote store.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tip: Link | None = None

    def links(self) -> list[Link]:
        """Return the links of the chain that have not been deleted, oldest first; [] if there is no folder.

        An unreadable manifest is reported in the link's `fault`, not raised.
        """
        return [self._read_link(name) for name in self._names()]

    def fetched_copies(self) -> list[Link]:
        """Return the copies of checkpoints that `add_copy` added, in no order."""
        if not self.folder.is_dir():
            return []
        return [self._read_link(path.name) for path in self.folder.iterdir() if path.name.startswith(_FETCHED)]

    def commit_claim(self, claim: CheckpointManifest, seen: list[Link]) -> CheckpointManifest:
        """Commit `claim` as the successor of the last link in `seen`, then delete what dead sessions left unfinished.

        `seen` is a result of `links`, empty for a new run. Returns the claim with `number`, `previous` and `next` set.
        Raises `ChainConflict` if the chain has later links than `seen`, and `OSError`.
        """
        self._tip = seen[-1] if seen else None
        committed = self.commit(claim)
        for folder in (self.folder.parent, self.folder.parent.parent):
            disk.sync_folder(folder)  # the commit may have created them
        self._delete_leftovers()
        return committed

    def commit(self, link: CheckpointManifest, write_files: WriteFiles | None = None) -> CheckpointManifest:
        """Commit `link`, with the files that `write_files` writes, as the successor of this object's last link.

        Returns the link with `number`, `previous`, `next` and `files` set; it is durable. Raises `ChainConflict` if
        another session committed a successor, `OSError`, and the errors of `write_files`; all leave nothing of the link
        behind.
        """
        number = self._tip.number + 1 if self._tip else 1
        temporary = self._temporary_folder(link)
        try:
            failpoint("before-write")
            self._check_tip()
            temporary.mkdir(parents=True)
            link = replace(link, number=number, previous=_name(number - 1), next=_name(number + 1))
            link = self._write(temporary, link, write_files)
            failpoint("before-rename")
            self._rename(temporary, number)
        except FileNotFoundError as error:
            self._check_tip()
            if self._names()[-1:] >= [_name(number)]:
                raise ChainConflict from error  # the new owner deleted our temporary folder
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        failpoint("after-rename")
        self._tip = Link(_name(number), link)
        return link

    def add_copy(self, link: CheckpointManifest, write_files: WriteFiles) -> Link:
        """Store a copy of a remote store's checkpoint in `folder`, beside the chain, and return it.

        Its files, which `write_files` writes, are in a temporary folder until they are complete; an earlier copy is
        then deleted. Raises `OSError`, and the errors of `write_files`.
        """
        target = self.folder / f"{_FETCHED}{link.id}"
        temporary = self._temporary_folder(link)
        try:
            temporary.mkdir(parents=True)
            self._write(temporary, link, write_files)
            shutil.rmtree(target, ignore_errors=True)
            temporary.rename(target)
            disk.sync_folder(self.folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return self._read_link(target.name)

    def read(self, link: Link) -> Arrays:
        """Return the arrays of a checkpoint (of the chain or a fetched copy) whose manifest is readable.

        Raises `IntegrityError` if they are missing, cannot be read, or differ from the manifest's checksum.
        """
        assert link.manifest is not None
        try:
            return tensors.read(self.folder / link.name / ARRAYS_FILE, link.manifest.files[ARRAYS_FILE])
        except OSError as error:
            raise IntegrityError(
                f"{link.name} cannot be read: {error.strerror}.", "Restore another checkpoint."
            ) from error

    def delete(self, link: Link) -> None:
        """Delete a link or a fetched copy for good; one that is gone is ignored.

        Raises `ChainConflict` for the newest link of the chain, which must stay since it names the owner, and
        `OSError`.
        """
        if self._names()[-1:] == [link.name]:
            raise ChainConflict
        hidden = self.folder / f"{_DELETED}{link.name}-{secrets.token_hex(4)}"
        with suppress(FileNotFoundError):
            (self.folder / link.name).rename(hidden)
        failpoint("during-removal")
        shutil.rmtree(hidden, ignore_errors=True)

    def _temporary_folder(self, link: CheckpointManifest) -> Path:
        return self.folder / f"{_TEMPORARY}{link.session.id}-{secrets.token_hex(4)}"

    def _names(self) -> list[str]:
        """Return the names of the chain's links, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted((path.name for path in self.folder.iterdir() if _LINK_NAME.fullmatch(path.name)), key=int)

    def _read_link(self, name: str) -> Link:
        try:
            content = (self.folder / name / MANIFEST_FILE).read_bytes()
            return Link(name, manifest.decode(content, name))
        except OSError as error:
            return Link(name, None, f"its manifest cannot be read: {error.strerror}")
        except IntegrityError as error:
            return Link(name, None, error.what)

    def _write(self, folder: Path, link: CheckpointManifest, write_files: WriteFiles | None) -> CheckpointManifest:
        """Write the files and then the manifest into `folder` and sync it; return `link` with the files' checksums."""
        if write_files is not None:
            link = replace(link, files=dict(write_files(folder)))
        failpoint("before-manifest")
        with open(folder / MANIFEST_FILE, "xb") as file:
            file.write(link.encode())
            file.flush()
            os.fsync(file.fileno())
        disk.sync_folder(folder)
        failpoint("after-manifest")
        return link

    def _rename(self, temporary: Path, number: int) -> None:
        """Rename `temporary` to the link of `number` and check that it is the last link after ours.

        Raises `ChainConflict` if the number is taken, or if the check fails, and `OSError` if the folder cannot be
        synced; the link is then deleted again.
        """
        try:
            temporary.rename(self.folder / _name(number))
        except OSError as error:
            if (self.folder / _name(number)).exists():
                raise ChainConflict from error
            raise
        try:
            disk.sync_folder(self.folder)
            self._check_tip()
            if self._names()[-1] != _name(number):
                # While this session was suspended, another one committed this number and retention deleted it; the
                # later links show that.
                raise ChainConflict
        except (ChainConflict, OSError):
            shutil.rmtree(self.folder / _name(number), ignore_errors=True)
            raise

    def _check_tip(self) -> None:
        """Raise `ChainConflict` if our last link is gone or another's: only the successors of a link delete it."""
        if self._tip is None:
            return
        found = self._read_link(self._tip.name)
        if not (self.folder / found.name).exists() or not found.may_be(self._tip):
            raise ChainConflict

    def _delete_leftovers(self) -> None:
        """Delete the temporary folders of dead sessions, and folders whose deletion was interrupted.

        A former owner that is alive loses its temporary folder too; its commit then fails, as it must.
        """
        for path in self.folder.iterdir():
            if path.name.startswith((_TEMPORARY, _DELETED)):
                shutil.rmtree(path, ignore_errors=True)


def _name(number: int) -> str:
    return f"{number:08d}"
