"""The folder of this machine that a run's checkpoints lie in: one folder each, complete or absent.

A checkpoint is written aside, the files first and the manifest last; all is on the disk before the folder gets its
name, by a rename that fails where that name is taken. What goes is renamed out of sight first, so that no half of it is
ever seen. Folders whose names are not ours are left alone.
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
from haversack.training.checkpoints.manifest import FILE, CheckpointManifest
from haversack.training.checkpoints.tensors import Written

Fill = Callable[[Path], Mapping[str, Written]]
"""Writes a checkpoint's files into the folder it is given, and returns what they must be."""

_LINK = re.compile(r"\d{8,}")
_ASIDE, _GONE, _FETCHED = ".aside-", ".gone-", "fetched-"


class Refused(Exception):
    """The link to be made is there already, or later ones are: never a user's, who is told `RunLost` or `RunTaken`."""


@dataclass(frozen=True)
class Link:
    """One link as it was found: `manifest` is None when it cannot be read, and `fault` says why."""

    name: str
    manifest: CheckpointManifest | None
    fault: str = ""

    @property
    def number(self) -> int:
        """Its place in the chain."""
        return int(self.name.partition(".")[0])

    def may_be(self, other: Link) -> bool:
        """Whether nothing says that the two are different links."""
        return self.manifest is None or other.manifest is None or self.manifest.id == other.manifest.id


def sound(links: Iterable[Link]) -> list[Link]:
    """The checkpoints among links whose manifests can be read, oldest first, the first copy of each."""
    by_id: dict[str, tuple[CheckpointManifest, Link]] = {}
    for link in links:
        if link.manifest is not None and link.manifest.kind == "checkpoint":
            by_id.setdefault(link.manifest.id, (link.manifest, link))
    return [link for _, link in sorted(by_id.values(), key=lambda pair: pair[0].age)]


def kept(links: Iterable[Link], keep: int) -> list[Link]:
    """Of the checkpoints among `links` the newest `keep`, the best and the milestones, oldest first."""
    good = sound(links)
    best = [link for link in good if link.manifest and link.manifest.best][-1:]
    return [
        link for link in good if link in good[-keep:] or link in best or (link.manifest and link.manifest.milestone)
    ]


def fallen_out(links: list[Link], keep: int) -> list[Link]:
    """What is older than the newest `keep` and is not kept; claims and what cannot be read go with their neighbours."""
    good, staying = sound(links), kept(links, keep)
    if len(good) <= keep:
        return []
    return [link for link in links if link not in staying and link.number < good[-keep].number]


class LocalStore:
    """Checkpoints in `folder`, which is made when the first is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tip: Link | None = None

    def links(self) -> list[Link]:
        """The chain's links that are still there, oldest first."""
        return [self._link(name) for name in self._names()]

    def fetched(self) -> list[Link]:
        """Copies of what lies in another store."""
        if not self.folder.is_dir():
            return []
        return [self._link(path.name) for path in self.folder.iterdir() if path.name.startswith(_FETCHED)]

    def take(self, claim: CheckpointManifest, seen: list[Link]) -> CheckpointManifest:
        """Make a claim the link after those that were `seen`. Raises `Refused` when there are others by now."""
        self._tip = seen[-1] if seen else None
        made = self.commit(claim)
        for folder in (self.folder.parent, self.folder.parent.parent):
            disk.sync_folder(folder)  # they may be new
        self._clear_away()
        return made

    def commit(self, link: CheckpointManifest, fill: Fill | None = None) -> CheckpointManifest:
        """Make `link`, with the files that `fill` writes, the successor of the last one that this object made.

        Raises `Refused` when another session made it, `OSError` as the disk does; nothing is left of it then.
        """
        number = self._tip.number + 1 if self._tip else 1
        aside = self.folder / f"{_ASIDE}{link.session.id}-{secrets.token_hex(4)}"
        try:
            failpoint("before-write")
            self._check_tip()
            aside.mkdir(parents=True)
            link = replace(link, number=number, previous=_name(number - 1), next=_name(number + 1))
            link = self._fill(aside, link, fill)
            failpoint("before-rename")
            self._rename(aside, number)
        except FileNotFoundError as error:
            self._check_tip()
            if self._names()[-1:] >= [_name(number)]:
                raise Refused from error  # its new owner cleared our folder away
            raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        failpoint("after-rename")
        self._tip = Link(_name(number), link)
        return link

    def adopt(self, link: CheckpointManifest, fill: Fill) -> Link:
        """Keep a copy of a checkpoint of another store, outside the chain."""
        target = self.folder / f"{_FETCHED}{link.id}"
        aside = self.folder / f"{_ASIDE}{link.session.id}-{secrets.token_hex(4)}"
        try:
            aside.mkdir(parents=True)
            self._fill(aside, link, fill)
            shutil.rmtree(target, ignore_errors=True)
            aside.rename(target)
            disk.sync_folder(self.folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return self._link(target.name)

    def read(self, link: Link) -> dict:
        """The arrays of a checkpoint. Raises `IntegrityError` when it is not whole, in whatever way."""
        assert link.manifest is not None
        try:
            return tensors.read(self.folder / link.name / manifest.STATE, link.manifest.files[manifest.STATE])
        except OSError as error:
            raise IntegrityError(
                f"{link.name} cannot be read: {error.strerror}.", "Take another checkpoint."
            ) from error

    def remove(self, link: Link) -> None:
        """Delete for good; the newest link of the chain stays, since it tells who owns the run."""
        names = self._names()
        if names[-1:] == [link.name]:
            raise Refused
        gone = self.folder / f"{_GONE}{link.name}-{secrets.token_hex(4)}"
        with suppress(FileNotFoundError):
            (self.folder / link.name).rename(gone)
        failpoint("during-removal")
        shutil.rmtree(gone, ignore_errors=True)

    def _names(self) -> list[str]:
        if not self.folder.is_dir():
            return []
        return sorted((path.name for path in self.folder.iterdir() if _LINK.fullmatch(path.name)), key=int)

    def _link(self, name: str) -> Link:
        try:
            content = (self.folder / name / FILE).read_bytes()
            return Link(name, manifest.decode(content, name))
        except OSError as error:
            return Link(name, None, f"its manifest cannot be read: {error.strerror}")
        except IntegrityError as error:
            return Link(name, None, error.what)

    def _fill(self, aside: Path, link: CheckpointManifest, fill: Fill | None) -> CheckpointManifest:
        if fill is not None:
            link = replace(link, files=dict(fill(aside)))
        failpoint("before-manifest")
        with open(aside / FILE, "xb") as file:
            file.write(link.encode())
            file.flush()
            os.fsync(file.fileno())
        disk.sync_folder(aside)
        failpoint("after-manifest")
        return link

    def _rename(self, aside: Path, number: int) -> None:
        try:
            aside.rename(self.folder / _name(number))
        except OSError as error:
            if (self.folder / _name(number)).exists():
                raise Refused from error
            raise
        disk.sync_folder(self.folder)
        try:
            self._check_tip()
            if self._names()[-1] != _name(number):
                # A link of this place was made and cleared away while we slept: later ones show it.
                raise Refused
        except Refused:
            shutil.rmtree(self.folder / _name(number), ignore_errors=True)
            raise

    def _check_tip(self) -> None:
        """The newest link is cleared away by its successors alone: where ours is not, the chain is another's."""
        if self._tip is None:
            return
        there = self._link(self._tip.name)
        if not (self.folder / there.name).exists() or not there.may_be(self._tip):
            raise Refused

    def _clear_away(self) -> None:
        """Remove what was being written or removed when a session died; a living one that lost the run fails for it."""
        for path in self.folder.iterdir():
            if path.name.startswith((_ASIDE, _GONE)):
                shutil.rmtree(path, ignore_errors=True)


def _name(number: int) -> str:
    return f"{number:08d}"
