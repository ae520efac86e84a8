"""A written file that is not on the drive yet, and its record on disk, which survives the process.

A record is a JSON file next to the data file, written by atomic replace. It has the data file's name and size. If the
machine loses power before the data is on the disk, the sizes differ, and the draft is not uploaded. A record may hold
the URI of an upload session, which is a secret, so only this user can read it.
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
from haversack.drive.remote.calls import File
from haversack.drive.writeback.streaming import StreamingUpload

_log = logging.getLogger(__name__)

# The fields in a record, whose names are its JSON keys.
_RECORD_FIELDS = (
    "parent",
    "name",
    "modified",
    "size",
    "file_id",
    "exists",
    "begun",
    "session",
    "digest",
    "replaces",
    "removed",
    "job",
)


@dataclass(eq=False)
class Draft:
    """A file that is being written, or was written and is not on the drive yet.

    L is this draft's `lock`, J the journal's lock; a thread that needs both acquires L first. Only the classes named
    here assign a field. Whoever creates a draft needs no lock until the journal has it.

    | field         | meaning                                                        | assigned by       | lock |
    |---------------|----------------------------------------------------------------|-------------------|------|
    | `key`         | random hex; names the record and the data files                | creator           | none |
    | `folder`      | the journal folder that holds them                             | creator           | none |
    | `job`         | folder of the notebook job whose mount wrote it; "" for none   | creator           | none |
    | `parent`      | id of the folder on the drive that the file is to be in        | Journal           | J    |
    | `name`        | the name that the file is to have on the drive                 | Journal           | J    |
    | `modified`    | modification time, in seconds since 1970                       | Journal           | J    |
    | `file_id`     | the file's id on the drive; None until one is reserved         | Journal, Uploader | J    |
    | `exists`      | the drive has a file with this id                              | Journal, Uploader | J    |
    | `begun`       | the drive may have one, because an upload was started          | Journal, Uploader | J    |
    | `session`     | URI of the upload session of the bytes with the MD5 `digest`   | Journal, Uploader | J *  |
    | `digest`      | MD5 of the bytes to upload, in hex; "" while unknown           | Uploader          | J    |
    | `replaces`    | ids of the files to trash once this one is uploaded            | Journal, Uploader | J    |
    | `size`        | size of `data` in bytes                                        | Journal           | L    |
    | `data`        | the local file with the current bytes                          | Journal           | L    |
    | `committed`   | the local file with the bytes of the last commit; often `data` | Journal           | L+J  |
    | `stale`       | older data files, deleted once the record names a newer one    | Journal, `save`   | L, J |
    | `descriptor`  | `data`, opened for reading and writing; -1 while closed        | Journal           | L, J |
    | `references`  | reference count: open handles, and calls that use the draft    | Journal           | J    |
    | `generation`  | version of the bytes; an upload of an older one is superseded  | Journal           | J    |
    | `dirty`       | some bytes are not committed                                   | Journal           | J    |
    | `appended`    | bytes appended in sequence since the last commit               | Journal           | L    |
    | `streaming`   | the upload that was started before the commit                  | Uploader, Journal | L, J |
    | `pending`     | committed and not uploaded                                     | Journal, Uploader | J    |
    | `removed`     | deleted or replaced by the user, so not to be uploaded         | Journal           | J    |
    | `uploading`   | an upload is in flight                                         | Uploader          | J    |
    | `waits_for`   | replaced drafts, whose uploads in flight must end first        | Journal           | J    |
    | `due`         | when to upload, in seconds of the monotonic clock              | Uploader          | J    |
    | `failures`    | failed uploads since the last commit                           | Journal, Uploader | J    |
    | `error`       | why the last upload failed; None after one that succeeded      | Uploader          | J    |
    | `uploaded`    | the file on the drive as last known here; None if unknown      | Journal, Uploader | J *  |
    | `moved`       | bytes of the upload in flight that the drive has; for display  | Uploader          | none |
    | `claimed_ids` | the ids that `Journal.claimed_ids` lists because of this draft       | Journal           | J    |

    `data` is replaced under L. `descriptor` is opened and closed under J, while nobody else uses it. `streaming` is
    attached under L+J; it is detached under L, or under J while the draft is not dirty. The two starred fields have an
    exception: the draft's upload worker resets `session`, and a rename in `Drive` assigns `uploaded`, without a lock.
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
    job: str = ""
    size: int = 0
    data: Path = field(default_factory=Path)
    committed: Path | None = None
    stale: list[Path] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    descriptor: int = -1
    references: int = 0
    generation: int = 0
    dirty: bool = False
    appended: int = 0
    streaming: StreamingUpload | None = None
    pending: bool = False
    removed: bool = False
    uploading: bool = False
    waits_for: list[Draft] = field(default_factory=list, repr=False)
    due: float = 0.0
    failures: int = 0
    error: Exception | None = None
    uploaded: File | None = None
    moved: int = 0
    claimed_ids: frozenset[str] = frozenset()

    @property
    def record(self) -> Path:
        return self.folder / f"{self.key}.json"

    @property
    def remote_ids(self) -> list[str]:
        """The ids of the files that the drive may have of this draft and of those it replaces."""
        return ([self.file_id] if self.begun and self.file_id else []) + self.replaces

    @property
    def is_blocked(self) -> bool:
        """Whether a draft that this one replaced is still being uploaded."""
        return any(other.uploading for other in self.waits_for)

    def as_file(self) -> File:
        """Return the draft as file metadata, without MD5; its id is `draft:KEY` if the file is not on the drive."""
        file_id = self.file_id if self.exists and self.file_id else f"draft:{self.key}"
        return File(file_id, self.name, self.parent, "application/octet-stream", self.size, "", self.modified, 0)

    def cancel_streaming(self) -> None:
        """Cancel the streaming upload, if there is one: the bytes it sent are not a prefix of the file any more.

        It stays attached, so no other one is started before the commit.
        """
        self.appended = 0
        if self.streaming is not None:
            self.streaming.cancel()

    def create_data_file(self) -> tuple[Path, int]:
        """Create an empty data file; return its path and an open descriptor for reading and writing.

        The draft is not changed: the caller assigns both. Raises `OSError`.
        """
        path = self.folder / f"{self.key}.{secrets.token_hex(3)}.data"
        return path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def delete_data(self) -> None:
        """Close the data file, and delete it and the older ones in `stale`."""
        self.close()
        for data in (self.data, *self.stale):
            data.unlink(missing_ok=True)

    def save(self) -> None:
        """Write the record by atomic replace, then delete the stale data files. Raises `OSError`.

        The draft must have been committed. The record is not synced: it survives the process, not a power cut.
        """
        assert self.committed is not None
        values = {name: getattr(self, name) for name in _RECORD_FIELDS} | {"data": self.committed.name}
        if self.committed != self.data:
            values["size"] = self.committed.stat().st_size
        disk.write(self.record, json.dumps(values), durable=False, private=True)
        for data in [data for data in self.stale if data != self.committed]:
            data.unlink()
            self.stale.remove(data)

    def save_if_room(self) -> None:
        """Do what `save` does, but only log it if the disk is full, since uploads are what frees a full disk.

        If the process then dies, the next one has the older record. It uploads the bytes again, and may create a second
        file. Raises `OSError` for other errors.
        """
        try:
            self.save()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            _log.debug("The disk has no room for the upload progress of %s: %s", self.name, error)


def load(record: Path) -> Draft:
    """Return the committed draft that a record describes; it is pending unless the record says that it was removed.

    Bytes appended after the last commit are cut off: the process that wrote them died before it committed them. Bytes
    overwritten in place after it stay as they are, as on a local disk.

    Raises `OSError` if the record or the data file cannot be read, and `ValueError`, `TypeError` or `KeyError` if the
    record is invalid or the data file is shorter than it says, as after a power cut.
    """
    values = json.loads(record.read_text())
    data = record.parent / Path(values.pop("data")).name
    draft = Draft(record.stem, record.parent, **values, data=data, committed=data)
    draft.pending = not draft.removed
    if draft.removed:
        draft.size = 0
        return draft
    size = data.stat().st_size
    if size < draft.size:
        raise ValueError(f"the data file has {size} bytes instead of {draft.size}")
    if size > draft.size:
        os.truncate(data, draft.size)
    return draft
