"""One file whose bytes on this machine are ahead of the drive's, and the record that outlives the process.

A record is a JSON file beside the bytes, complete or absent. It names the bytes and says how many there are: where a
machine lost its power before they were on the disk, that shows, and nothing half there is ever uploaded. It also holds
the URI of an upload under way, which is a secret, so it can be read by this user only.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
import threading
from dataclasses import dataclass, field
from pathlib import Path

from haversack import disk
from haversack.drive.remote.api import File
from haversack.drive.writeback.streaming import StreamingUpload

_log = logging.getLogger(__name__)

_KEPT = ("parent", "name", "modified", "size", "file_id", "exists", "begun", "session", "digest", "replaces", "removed")


@dataclass(eq=False)
class Draft:
    """A file that is being written, or was and is not on the drive yet.

    `file_id` is its id on the drive, once it has one; `exists` says that the drive holds it, `begun` that it may.
    `replaces` are ids that go to the trash once this is on the drive. `session` is an upload under way, of the bytes
    with MD5 `digest`. The bytes are in `data`; those of the last commit in `committed`, another file after a fresh
    start, and `stale` as soon as newer ones are committed. Of what was written since, `appended` bytes came last, one
    behind the other; they and all before them may be going up already, `ahead` of the commit. It is uploaded `after`
    others whose place it took. `lock` guards the bytes and is taken before the journal's own lock, which guards the
    rest.
    """

    key: str
    folder: Path
    parent: str
    name: str
    modified: float
    file_id: str | None = None
    exists: bool = False
    begun: bool = False
    session: str | None = field(default=None, repr=False)
    digest: str = ""
    replaces: list[str] = field(default_factory=list)
    size: int = 0
    data: Path = field(default_factory=Path)
    committed: Path | None = None
    stale: list[Path] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    descriptor: int = -1
    holders: int = 0
    generation: int = 0
    dirty: bool = False
    appended: int = 0
    ahead: StreamingUpload | None = None
    pending: bool = False
    removed: bool = False
    uploading: bool = False
    after: list[Draft] = field(default_factory=list, repr=False)
    due: float = 0.0
    failures: int = 0
    error: Exception | None = None
    uploaded: File | None = None
    moved: int = 0
    claimed: frozenset[str] = frozenset()

    @property
    def record(self) -> Path:
        return self.folder / f"{self.key}.json"

    @property
    def ids(self) -> list[str]:
        """The ids that the drive may hold of it."""
        return ([self.file_id] if self.begun and self.file_id else []) + self.replaces

    @property
    def is_held_up(self) -> bool:
        """Whether one whose place it took is on its way to the drive just now."""
        return any(other.uploading for other in self.after)

    def as_file(self) -> File:
        """How the draft looks among the drive's files."""
        file_id = self.file_id if self.exists and self.file_id else f"draft:{self.key}"
        return File(file_id, self.name, self.parent, "application/octet-stream", self.size, "", self.modified, 0)

    def end_ahead(self) -> None:
        """What went ahead of the commit is not what the file will be. Nothing goes ahead again before the commit."""
        self.appended = 0
        if self.ahead is not None:
            self.ahead.end()

    def new_data(self) -> tuple[Path, int]:
        """An empty file for its bytes, and its descriptor."""
        path = self.folder / f"{self.key}.{secrets.token_hex(3)}.data"
        return path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def drop_data(self) -> None:
        self.close()
        for data in (self.data, *self.stale):
            data.unlink(missing_ok=True)

    def save(self) -> None:
        """Write the record. Bytes that it no longer names go after it is there."""
        assert self.committed is not None
        values = {name: getattr(self, name) for name in _KEPT} | {"data": self.committed.name}
        if self.committed != self.data:
            values["size"] = self.committed.stat().st_size
        disk.write(self.record, json.dumps(values), durable=False, private=True)
        for data in [data for data in self.stale if data != self.committed]:
            data.unlink()
            self.stale.remove(data)

    def note(self) -> None:
        """As `save`, where the disk has room for it: what brings bytes off a full disk does not wait for its record.

        A process that dies then uploads the same again, perhaps beside what had arrived.
        """
        try:
            self.save()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            _log.debug("There is no room to note how far %s has come: %s", self.name, error)


def load(record: Path) -> Draft:
    """The draft that a record tells of. Raises `OSError`, `ValueError`, `TypeError` or `KeyError` for a broken one."""
    values = json.loads(record.read_text())
    data = record.parent / Path(values.pop("data")).name
    draft = Draft(record.stem, record.parent, **values, data=data, committed=data)
    size = data.stat().st_size if not draft.removed else 0
    if draft.size not in (0, size):
        raise ValueError(f"{size} bytes are there of {draft.size}")
    draft.size = size
    draft.pending = not draft.removed
    return draft
