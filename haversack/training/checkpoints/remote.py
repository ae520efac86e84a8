"""The store that outlives this machine: any file system that fsspec opens, a drive among them.

A run is one flat folder there: `ID.safetensors` for the arrays of a checkpoint, `00000012.json` for a link of its
chain. The arrays go first and their size is compared; the link comes last and makes it a checkpoint. A link is created
by a call that fails where it exists. On a drive, where two files may have one name, that is creation with the id that
the link before it named (`reserve` and `deliver` of its file system); elsewhere fsspec's mode "create".

What falls out is deleted for good where the file system can (`purge`): no user put it there. A half that a session
left behind is cleared away by the next. Names that are not of these two kinds are left alone.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec

from haversack.errors import ConnectionFailed, HaversackError, IntegrityError
from haversack.training.checkpoints import manifest
from haversack.training.checkpoints.failpoints import failpoint
from haversack.training.checkpoints.manifest import CheckpointManifest
from haversack.training.checkpoints.store import Link, Refused
from haversack.training.checkpoints.tensors import Written

_LINK = re.compile(r"(\d{8,})\.json")
_ARRAYS = re.compile(r"([0-9a-f]{16})\.safetensors")
_MARK = "checkpoint"


class RemoteStore:
    """The run `name` below `url`. Nothing is asked before it is needed.

    Every method raises `ConnectionFailed` when the store does not answer, and what a drive raises.
    """

    def __init__(self, url: str, name: str) -> None:
        self.url = f"{url.rstrip('/')}/{name}"
        self._tip: CheckpointManifest | None = None
        self._known: dict[str, CheckpointManifest] = {}

    def links(self) -> list[Link]:
        """The chain's links that are still there, oldest first."""
        return [self._link(name) for name in self._names()]

    def take(self, claim: CheckpointManifest, seen: list[Link]) -> CheckpointManifest:
        """Make a claim the link after those that were `seen`. Raises `Refused` when there are others by now."""
        self._tip = None
        if seen:
            # Of a link that cannot be read the place is known all the same.
            self._tip = seen[-1].manifest or replace(claim, number=seen[-1].number, next_id="")
        with self._answering():
            self._files.makedirs(self._root, exist_ok=True)
        made = self.commit(claim)
        self._clear_away()
        return made

    def commit(self, link: CheckpointManifest, arrays: Path | None = None) -> CheckpointManifest:
        """Make `link` the successor of the last one that this object made; `arrays` is the file it names.

        What an attempt that was cut off had done is found and used. Raises `Refused` when another session made it.
        """
        if arrays is not None:
            self._send(arrays, link)
        self._check_tip()
        failpoint("before-remote-manifest")
        made = self._linked(link)
        failpoint("after-remote-manifest")
        name = _name(made.number)
        try:
            self._check_tip()
            self._check_last(made)
        except Refused:
            self._delete(name)
            raise
        self._tip = self._known[name] = made
        return made

    def fetch(self, link: CheckpointManifest, folder: Path) -> Mapping[str, Written]:
        """Copy a checkpoint's arrays into a folder of this machine."""
        try:
            with self._answering():
                self._files.get_file(self._path(f"{link.id}.safetensors"), str(folder / manifest.STATE))
        except FileNotFoundError as error:
            raise IntegrityError(f"The arrays of step {link.step} are not in {self.url}.", "Take another.") from error
        return link.files

    def remove(self, link: Link) -> None:
        """Delete for good, the link first; the newest link stays, since it tells who owns the run."""
        if self._names()[-1:] == [link.name]:
            raise Refused
        self._delete(link.name)
        failpoint("during-remote-removal")
        if link.manifest is not None and link.manifest.kind == "checkpoint":
            self._delete(f"{link.manifest.id}.safetensors")

    @property
    def _files(self) -> Any:
        return fsspec.core.url_to_fs(self.url)[0]

    @property
    def _root(self) -> str:
        return str(fsspec.core.url_to_fs(self.url)[1])

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _everything(self) -> list[str]:
        with self._answering():
            self._files.invalidate_cache(self._root)
            try:
                return [path.rstrip("/").rpartition("/")[2] for path in self._files.ls(self._root, detail=False)]
            except FileNotFoundError:
                return []

    def _names(self) -> list[str]:
        return sorted((name for name in self._everything() if _LINK.fullmatch(name)), key=_number)

    def _link(self, name: str) -> Link:
        """Links never change, so each is fetched once."""
        if name not in self._known:
            try:
                with self._answering():
                    self._known[name] = manifest.decode(self._files.cat_file(self._path(name)), name)
            except FileNotFoundError:
                return Link(name, None, "its manifest is gone")
            except IntegrityError as error:
                return Link(name, None, error.what)
        return Link(name, self._known[name])

    def _check_tip(self) -> None:
        """The newest link is cleared away by its successors alone: where ours is not, the chain is another's."""
        if self._tip is None:
            return
        name = _name(self._tip.number)
        self._known.pop(name, None)
        if name not in self._names() or not self._link(name).may_be(Link(name, self._tip)):
            raise Refused

    def _check_last(self, made: CheckpointManifest) -> None:
        """Whether a link just made is the last, and nothing that can be read lies between it and the one before."""
        names = self._names()
        if names[-1:] != [_name(made.number)]:
            # A link of this place was made and cleared away while we slept: later ones show it.
            raise Refused
        before = self._tip.number if self._tip else 0
        passed = [name for name in names if before < _number(name) < made.number]
        # What was passed over because it was not there, or not whole, may have been another's that was being made.
        # Of two that make a link at once each looks only when its own is there, so at least one sees the other.
        if any((there := self._link(name).manifest) and there.session != made.session for name in passed):
            raise Refused

    def _linked(self, link: CheckpointManifest) -> CheckpointManifest:
        """Create the link after our last one, and after what cannot be read there."""
        number, file_id = (self._tip.number + 1, self._tip.next_id) if self._tip else (1, "")
        while True:
            made = replace(link, number=number, previous=_name(number - 1), next=_name(number + 1))
            made = replace(made, next_id=self._reserved())
            if self._create(made, file_id):
                return made
            with self._answering():
                self._files.invalidate_cache(self._root)
            there = self._link(_name(number)).manifest
            if there is not None and there.session != link.session:
                raise Refused
            if there is not None and there.id == link.id:
                return there
            number, file_id = number + 1, there.next_id if there is not None else ""

    def _send(self, arrays: Path, link: CheckpointManifest) -> None:
        """Bring the arrays there, unless an attempt that was cut off has done so."""
        path, size = self._path(f"{link.id}.safetensors"), arrays.stat().st_size
        with self._answering():
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
                f"{self.url} stored {stored} of {size} bytes.", "It is tried again with the next save."
            )

    def _create(self, link: CheckpointManifest, file_id: str) -> bool:
        """Create a link; says whether it was free. A drive takes a repeated call of ours for the first."""
        path = self._path(_name(link.number))
        try:
            with self._answering():
                if not hasattr(self._files, "deliver"):
                    self._files.pipe_file(path, link.encode(), mode="create")
                    return True
                with tempfile.TemporaryDirectory(prefix="haversack-") as folder:
                    source = Path(folder) / manifest.FILE
                    source.write_bytes(link.encode())
                    self._files.deliver(source, path, mark=_MARK, file_id=file_id or None)
        except FileExistsError:
            return False
        return True

    def _reserved(self) -> str:
        with self._answering():
            return str(self._files.reserve()) if hasattr(self._files, "reserve") else ""

    def _delete(self, name: str) -> None:
        self._known.pop(name, None)
        remove = getattr(self._files, "purge", None) or self._files.rm_file
        with suppress(FileNotFoundError), self._answering():
            remove(self._path(name))

    def _clear_away(self) -> None:
        """Remove arrays that no link names: a session died, or lost the run, before it made their link."""
        links = self.links()
        if any(link.manifest is None for link in links):
            return
        named = {link.manifest.id for link in links if link.manifest}
        for name in self._everything():
            found = _ARRAYS.fullmatch(name)
            if found and found[1] not in named:
                self._delete(name)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Each file system has errors of its own; what is not a plain answer means that it did not work."""
        try:
            yield
        except (HaversackError, FileExistsError, FileNotFoundError):
            raise
        except Exception as error:
            raise ConnectionFailed(
                f"{self.url} does not answer as it should: {error or type(error).__name__}.",
                "Look at the connection and the sign-in; it is tried again with the next save.",
            ) from error


def _name(number: int) -> str:
    return f"{number:08d}.json"


def _number(name: str) -> int:
    return int(name.removesuffix(".json"))
