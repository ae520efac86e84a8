"""The store that outlives this machine: a folder of any file system that fsspec opens, such as a drive.

A run is one flat folder: `ID.safetensors` has the arrays of a checkpoint, `00000012.json` is a link of its chain, which
is a checkpoint, a claim or a release. The arrays are uploaded first and their size is compared; the link is created
last and commits the checkpoint. A link is created by a call that fails if it exists. On a drive, where two files may
have the same name, that is creation with the file id that the previous link reserved (`reserve` and `deliver` of the
drive's fsspec file system); elsewhere it is fsspec's mode "create".

Expired files are deleted for good and bypass the drive's trash (`purge`), since no user put them there. Files that a
dead session left unfinished are deleted by the next claim. Files with other names are left alone.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from haversack.errors import ConnectionFailed, HaversackError, IntegrityError
from haversack.training.checkpoints import manifest
from haversack.training.checkpoints.failpoints import failpoint
from haversack.training.checkpoints.manifest import ARRAYS_FILE, MANIFEST_FILE, CheckpointManifest
from haversack.training.checkpoints.store import ChainConflict, Link
from haversack.training.checkpoints.tensors import FileChecksum

_LINK_NAME = re.compile(r"(\d{8,})\.json")
_ARRAYS_NAME = re.compile(r"([0-9a-f]{16})\.safetensors")
_MARK = "checkpoint"
"""Mark of the files on a drive that `purge` may delete."""


class RemoteStore:
    """The chain of the run `name` in the folder `name` below `url`. The constructor sends no request.

    Only the owner of the run commits, from one thread at a time. `_tip` is the last link of the chain when this object
    claimed the run or committed last, None before that. `_manifests` caches manifests by the link's name.

    Every method raises `ConnectionFailed` if the store does not answer or its file system raises an error of its own,
    and `HaversackError`s of a drive (`SignInError`, `QuotaExceeded`, …).
    """

    def __init__(self, url: str, name: str) -> None:
        self.url = f"{url.rstrip('/')}/{name}"
        self._tip: CheckpointManifest | None = None
        self._manifests: dict[str, CheckpointManifest] = {}

    def links(self) -> list[Link]:
        """Return the links of the chain that have not been deleted, oldest first; [] if the run has no folder.

        Their manifests are read. An unreadable one is reported in the link's `fault`, not raised.
        """
        return [self._read_link(name) for name in self._link_names()]

    def commit_claim(self, claim: CheckpointManifest, seen: list[Link]) -> CheckpointManifest:
        """Commit `claim` as the successor of the last link in `seen`, then delete arrays that no link names.

        Creates the run's folder if there is none. `seen` is a result of `links`, empty for a new run. Returns the claim
        with `number`, `previous`, `next` and `next_id` set. Raises `ChainConflict` if the chain has later links than
        `seen`.
        """
        self._tip = None
        if seen:
            # The number of a link is known from its name even if its manifest is unreadable.
            self._tip = seen[-1].manifest or replace(claim, number=seen[-1].number, next_id="")
        with self._translated_errors():
            self._files.makedirs(self._root, exist_ok=True)
        committed = self.commit(claim)
        self._delete_leftovers()
        return committed

    def commit(self, link: CheckpointManifest, arrays: Path | None = None) -> CheckpointManifest:
        """Commit `link`, with the local file `arrays`, as the successor of the last link that this object committed.

        Returns the link with `number`, `previous`, `next` and `next_id` set. An interrupted attempt may be repeated:
        arrays that are complete are not uploaded again, and a link that exists is returned. Raises `ChainConflict` if
        another session committed a successor, `IntegrityError` if the stored arrays have the wrong size, and
        `FileNotFoundError` if `arrays` is gone.
        """
        if arrays is not None:
            self._upload(arrays, link)
        self._check_tip()
        failpoint("before-remote-manifest")
        committed = self._create_successor(link)
        failpoint("after-remote-manifest")
        name = _name(committed.number)
        try:
            self._check_tip()
            self._check_last(committed)
        except ChainConflict:
            self._delete_file(name)
            raise
        self._tip = self._manifests[name] = committed
        return committed

    def fetch(self, link: CheckpointManifest, folder: Path) -> Mapping[str, FileChecksum]:
        """Download a checkpoint's arrays into a local folder, as `ARRAYS_FILE`.

        Returns the checksums in the manifest; the arrays are not compared with them. Raises `IntegrityError` if the
        arrays are not in the store.
        """
        try:
            with self._translated_errors():
                self._files.get_file(self._path(f"{link.id}.safetensors"), str(folder / ARRAYS_FILE))
        except FileNotFoundError as error:
            raise IntegrityError(
                f"The arrays of step {link.step} are missing in {self.url}.", "Restore another checkpoint."
            ) from error
        return link.files

    def delete(self, link: Link) -> None:
        """Delete a link and then its arrays for good, bypassing a drive's trash; files that are gone are ignored.

        Raises `ChainConflict` for the newest link of the chain, which must stay since it names the owner.
        """
        if self._link_names()[-1:] == [link.name]:
            raise ChainConflict
        self._delete_file(link.name)
        failpoint("during-remote-removal")
        if link.manifest is not None and link.manifest.kind == "checkpoint":
            self._delete_file(f"{link.manifest.id}.safetensors")

    @property
    def _files(self) -> Any:
        """The fsspec file system, which fsspec caches."""
        return _open(self.url)[0]

    @property
    def _root(self) -> str:
        return _open(self.url)[1]

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _file_names(self) -> list[str]:
        """Return the names of all files of the run, listed anew; none if there is no folder."""
        with self._translated_errors():
            self._files.invalidate_cache(self._root)
            try:
                return [path.rstrip("/").rpartition("/")[2] for path in self._files.ls(self._root, detail=False)]
            except FileNotFoundError:
                return []

    def _link_names(self) -> list[str]:
        """Return the names of the chain's links, oldest first."""
        return sorted((name for name in self._file_names() if _LINK_NAME.fullmatch(name)), key=_number)

    def _read_link(self, name: str) -> Link:
        """Return a link; a manifest that was readable is cached, since links never change."""
        if name not in self._manifests:
            try:
                with self._translated_errors():
                    self._manifests[name] = manifest.decode(self._files.cat_file(self._path(name)), name)
            except FileNotFoundError:
                return Link(name, None, "its manifest does not exist")
            except IntegrityError as error:
                return Link(name, None, error.what)
        return Link(name, self._manifests[name])

    def _check_tip(self) -> None:
        """Raise `ChainConflict` if our last link is gone or another's: only the successors of a link delete it."""
        if self._tip is None:
            return
        name = _name(self._tip.number)
        self._manifests.pop(name, None)
        if name not in self._link_names() or not self._read_link(name).may_be(Link(name, self._tip)):
            raise ChainConflict

    def _check_last(self, committed: CheckpointManifest) -> None:
        """Raise `ChainConflict` unless the link just created is the last one, with no other session's before it.

        Only links between our previous one and this one are checked for other sessions.
        """
        names = self._link_names()
        if names[-1:] != [_name(committed.number)]:
            # While this session was suspended, another one committed this number and retention deleted it; the later
            # links show that.
            raise ChainConflict
        before = self._tip.number if self._tip else 0
        skipped = [name for name in names if before < _number(name) < committed.number]
        # A link that was skipped as missing or unreadable may have been in flight from another session. Of two sessions
        # that create links at once, each checks after its own link exists, so at least one of them sees the other.
        if any((found := self._read_link(name).manifest) and found.session != committed.session for name in skipped):
            raise ChainConflict

    def _create_successor(self, link: CheckpointManifest) -> CheckpointManifest:
        """Create `link` at the first free number after our last link and return it with its place in the chain.

        Unreadable links are skipped. If `link` exists from an interrupted attempt, it is returned. Raises
        `ChainConflict` for a readable link of another session.
        """
        number, file_id = (self._tip.number + 1, self._tip.next_id) if self._tip else (1, "")
        while True:
            placed = replace(link, number=number, previous=_name(number - 1), next=_name(number + 1))
            placed = replace(placed, next_id=self._reserve_id())
            if self._create(placed, file_id):
                return placed
            with self._translated_errors():
                self._files.invalidate_cache(self._root)
            found = self._read_link(_name(number)).manifest
            if found is not None and found.session != link.session:
                raise ChainConflict
            if found is not None and found.id == link.id:
                return found
            number, file_id = number + 1, found.next_id if found is not None else ""

    def _upload(self, arrays: Path, link: CheckpointManifest) -> None:
        """Upload the arrays, unless an interrupted attempt did so; the size tells. Raises `IntegrityError`."""
        path, size = self._path(f"{link.id}.safetensors"), arrays.stat().st_size
        with self._translated_errors():
            self._files.invalidate_cache(self._root)
            if self._files.exists(path) and self._files.info(path)["size"] == size:
                return
            failpoint("before-upload")
            if hasattr(self._files, "deliver"):
                self._files.deliver(arrays, path, mark=_MARK)
            else:
                self._files.put_file(str(arrays), path)
            stored = self._files.info(path)["size"]
        if stored != size:
            raise IntegrityError(
                f"{self.url} stored {stored} of {size} bytes.", "The next save uploads the checkpoint again."
            )

    def _create(self, link: CheckpointManifest, file_id: str) -> bool:
        """Create a link's file, on a drive with the id `file_id`; False if it exists.

        On a drive, repeating a call that created the file succeeds again.
        """
        path = self._path(_name(link.number))
        try:
            with self._translated_errors():
                if not hasattr(self._files, "deliver"):
                    self._files.pipe_file(path, link.encode(), mode="create")
                    return True
                with tempfile.TemporaryDirectory(prefix="haversack-") as folder:
                    source = Path(folder) / MANIFEST_FILE
                    source.write_bytes(link.encode())
                    self._files.deliver(source, path, mark=_MARK, file_id=file_id or None)
        except FileExistsError:
            return False
        return True

    def _reserve_id(self) -> str:
        """Return a file id for the successor's link, "" if the store has no file ids."""
        with self._translated_errors():
            return str(self._files.reserve()) if hasattr(self._files, "reserve") else ""

    def _delete_file(self, name: str) -> None:
        self._manifests.pop(name, None)
        delete = getattr(self._files, "purge", None) or self._files.rm_file
        with suppress(FileNotFoundError), self._translated_errors():
            delete(self._path(name))

    def _delete_leftovers(self) -> None:
        """Delete arrays that no link names: their session died or lost the run before it created the link.

        If a link is unreadable nothing is deleted, since it may name any of them.
        """
        links = self.links()
        if any(link.manifest is None for link in links):
            return
        named = {link.manifest.id for link in links if link.manifest}
        for name in self._file_names():
            arrays = _ARRAYS_NAME.fullmatch(name)
            if arrays and arrays[1] not in named:
                self._delete_file(name)

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Raise `ConnectionFailed` in place of the errors of a file system, each of which has errors of its own.

        `HaversackError`, `FileExistsError` and `FileNotFoundError` pass.
        """
        try:
            yield
        except (HaversackError, FileExistsError, FileNotFoundError):
            raise
        except Exception as error:
            raise ConnectionFailed(
                f"{self.url} does not work as expected: {error or type(error).__name__}.",
                "Check the connection and the sign-in; the next save retries.",
            ) from error


def _open(url: str) -> tuple[Any, str]:
    """Return fsspec's file system for `url`, and the path in it. Trainings without a store do not import fsspec."""
    import fsspec

    files, root = fsspec.core.url_to_fs(url)
    return files, str(root)


def _name(number: int) -> str:
    return f"{number:08d}.json"


def _number(name: str) -> int:
    return int(name.removesuffix(".json"))
