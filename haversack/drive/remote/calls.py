"""Drive v3's calls, each as a record: what is sent, and how the answer is read.

Protocol: https://developers.google.com/workspace/drive/api/reference/rest/v3. A call asks for the fields that `File`
holds and no more. One record serves a call by itself and a part of a batch (`drive.api`); both may repeat it, since
whatever is created gets an id that was generated beforehand: a second attempt meets its own file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import msgspec

from haversack.answer import Answer
from haversack.errors import RemoteError

T_co = TypeVar("T_co", covariant=True)

FOLDER = "application/vnd.google-apps.folder"
SHORTCUT = "application/vnd.google-apps.shortcut"
FILES = "/drive/v3/files"
CHANGES = "/drive/v3/changes"
PARENTS_PER_QUERY = 50
"""How many folders one query names at most; more than about a hundred are refused with 413."""

_FILE = "id,name,mimeType,size,md5Checksum,createdTime,modifiedTime,version,trashed,"
_FILE += "shortcutDetails(targetId,targetMimeType)"
FILE_AND_PARENT = _FILE + ",parents"
_SHARING = ",ownedByMe,shared"
_TRASH = f"{FILES}/trash"
_PAGE = 1000


# Hundreds of thousands are made in a row, and a frozen one takes eight times as long to make.
@dataclass(slots=True)
class File:
    """One file or folder of the drive, which nobody changes.

    `size` in bytes; `modified` and `created` in seconds since 1970; `md5` is "" without bytes. `target` and
    `target_type` are what a shortcut leads to, "" for everything else. `owned` and `shared` are as they are only where
    they were asked for.
    """

    id: str
    name: str
    parent: str
    mime_type: str
    size: int
    md5: str
    modified: float
    version: int
    created: float = 0.0
    target: str = ""
    target_type: str = ""
    trashed: bool = False
    owned: bool = True
    shared: bool = False

    @property
    def is_folder(self) -> bool:
        return self.mime_type == FOLDER


@dataclass(frozen=True)
class Quota:
    """Bytes that the drive holds, `in_trash` of them in the trash, and may hold; `limit` is None where there is none.

    `user` is who is signed in, as the drive names them.
    """

    used: int
    limit: int | None
    in_trash: int = 0
    user: str = ""


@dataclass(frozen=True)
class Page:
    """A part of a listing; `token` leads to the next part, None behind the last."""

    files: list[File]
    token: str | None


@dataclass(frozen=True)
class Change:
    """A file as it is now, perhaps in the trash; `file` is None when it is gone for good or out of sight."""

    file_id: str
    file: File | None


@dataclass(frozen=True)
class Changes:
    """What changed up to `token`, which leads on; `last` says that nothing more has changed yet."""

    changes: list[Change]
    token: str
    last: bool


class _Shortcut(msgspec.Struct, rename="camel", gc=False):
    target_id: str = ""
    target_mime_type: str = ""


class _FileAnswer(msgspec.Struct, rename="camel", gc=False):
    """A file as it stands in an answer, its numbers in quotes."""

    id: str
    name: str
    mime_type: str
    modified_time: datetime
    created_time: datetime | None = None
    size: int = 0
    md5_checksum: str = ""
    version: int = 0
    trashed: bool = False
    parents: list[str] = []
    shortcut_details: _Shortcut | None = None
    owned_by_me: bool = True
    shared: bool = False


class _ListAnswer(msgspec.Struct, rename="camel"):
    files: list[_FileAnswer] = []
    next_page_token: str | None = None


class _Happened(msgspec.Struct, rename="camel"):
    """A change; without `file_id` it is one of a shared drive itself."""

    file_id: str = ""
    removed: bool = False
    file: _FileAnswer | None = None


class _ChangesAnswer(msgspec.Struct, rename="camel"):
    changes: list[_Happened] = []
    next_page_token: str | None = None
    new_start_page_token: str | None = None


_ENTRY = msgspec.json.Decoder(_FileAnswer, strict=False)
_FOUND = msgspec.json.Decoder(_ListAnswer, strict=False)
_LOG = msgspec.json.Decoder(_ChangesAnswer, strict=False)


@dataclass(frozen=True)
class Call(Generic[T_co]):
    """A call that may be repeated. A status in `accept` is no error; `read` says what the answer means."""

    method: str
    path: str
    read: Callable[[Answer], T_co]
    params: Mapping[str, str | int] = field(default_factory=dict)
    json: Any = None
    accept: tuple[int, ...] = ()


def get(file_id: str, *, sharing: bool = False) -> Call[File]:
    """The file of that id; `root` is My Drive."""
    fields = FILE_AND_PARENT + _SHARING * sharing
    return Call("GET", f"{FILES}/{file_id}", as_file, asking(fields))


def named(parent: str, name: str, token: str | None = None) -> Call[Page]:
    """The files called `name` in the folder `parent`; Drive compares without case, so the caller compares again."""
    return search(f"name = '{escaped(name)}' and '{escaped(parent)}' in parents and trashed = false", parent, token)


def listing(parents: Sequence[str], token: str | None = None, *, sharing: bool = False) -> Call[Page]:
    """A page of what lies in up to `PARENTS_PER_QUERY` folders, in the server's own order."""
    within = " or ".join(f"'{escaped(parent)}' in parents" for parent in parents)
    only = parents[0] if len(parents) == 1 else None
    return search(f"({within}) and trashed = false", only, token, sharing=sharing)


def search(query: str, parent: str | None = None, token: str | None = None, *, sharing: bool = False) -> Call[Page]:
    """A page of the files that `query` describes (Drive's `q`); those are known to lie in `parent` when it is given."""

    def read(answer: Answer) -> Page:
        found = _decoded(_FOUND, answer)
        return Page([_file(entry, parent) for entry in found.files], found.next_page_token or None)

    fields = (_FILE if parent is not None else FILE_AND_PARENT) + _SHARING * sharing
    params: dict[str, str | int] = {"q": query, "pageSize": _PAGE, **_everywhere(f"nextPageToken,files({fields})")}
    if token is not None:
        params["pageToken"] = token
    return Call("GET", FILES, read, params)


def create_folder(file_id: str, parent: str, name: str) -> Call[File]:
    about = {"id": file_id, "name": name, "parents": [parent], "mimeType": FOLDER}
    return Call("POST", FILES, as_file, asking(FILE_AND_PARENT), about)


def copy(file: File, file_id: str, parent: str, name: str) -> Call[File]:
    """A copy made by the drive itself, with the id `file_id`."""
    about = {"id": file_id, "name": name, "parents": [parent]}
    return Call("POST", f"{FILES}/{file.id}/copy", as_file, asking(FILE_AND_PARENT), about)


def update(
    file: File, *, name: str | None = None, parent: str | None = None, modified: float | None = None
) -> Call[File]:
    """Rename a file, move it, or set its time; only what is given changes."""
    params = asking(FILE_AND_PARENT)
    about: dict[str, Any] = {}
    if name is not None:
        about["name"] = name
    if modified is not None:
        about["modifiedTime"] = rfc3339(modified)
    if parent is not None and parent != file.parent:
        params |= {"addParents": parent, "removeParents": file.parent}
    return Call("PATCH", f"{FILES}/{file.id}", as_file, params, about)


def trash(file_id: str) -> Call[None]:
    """Put a file, or a folder with all it holds, into the trash; nothing to do when it is gone."""
    return Call("PATCH", f"{FILES}/{file_id}", _nothing, asking("id"), {"trashed": True}, accept=(404,))


def restore(file_id: str) -> Call[File]:
    """Take a file out of the trash, to where it was."""
    return Call("PATCH", f"{FILES}/{file_id}", as_file, asking(FILE_AND_PARENT), {"trashed": False})


def delete(file_id: str) -> Call[None]:
    """Delete for good, past the trash; nothing to do when it is gone."""
    return Call("DELETE", f"{FILES}/{file_id}", _nothing, {"supportsAllDrives": "true"}, accept=(404,))


def empty_trash() -> Call[None]:
    return Call("DELETE", _TRASH, _nothing)


def marks(file_id: str) -> Call[dict[str, str]]:
    """The `appProperties` of a file: what this application noted on it, which no other can see or set."""

    def read(answer: Answer) -> dict[str, str]:
        return dict(answer.json().get("appProperties", {}))

    return Call("GET", f"{FILES}/{file_id}", read, asking("appProperties"))


def quota() -> Call[Quota]:
    def read(answer: Answer) -> Quota:
        found = answer.json()
        quota, user = found.get("storageQuota", {}), found.get("user", {})
        return Quota(
            used=int(quota.get("usage", 0)),
            limit=int(quota["limit"]) if "limit" in quota else None,
            in_trash=int(quota.get("usageInDriveTrash", 0)),
            user=str(user.get("emailAddress") or user.get("displayName") or ""),
        )

    return Call("GET", "/drive/v3/about", read, {"fields": "storageQuota,user(displayName,emailAddress)"})


def changes_token() -> Call[str]:
    """Where the list of changes ends now; what changes from now on is found behind it."""
    return Call("GET", f"{CHANGES}/startPageToken", lambda answer: str(answer.json()["startPageToken"]))


def changes(token: str) -> Call[Changes]:
    """A page of what changed since `token`."""

    def read(answer: Answer) -> Changes:
        found = _decoded(_LOG, answer)
        following = found.next_page_token or found.new_start_page_token
        if not following:
            raise RemoteError("The drive's list of changes leads nowhere.", "Try again later.")
        return Changes([_change(one) for one in found.changes if one.file_id], following, not found.next_page_token)

    fields = f"nextPageToken,newStartPageToken,changes(fileId,removed,file({FILE_AND_PARENT}))"
    return Call("GET", CHANGES, read, {"pageToken": token, "pageSize": _PAGE, **_everywhere(fields)})


def new_ids(count: int) -> Call[list[str]]:
    """Ids that no file has yet, up to 1,000."""
    params: dict[str, str | int] = {"count": count, "fields": "ids"}
    return Call("GET", f"{FILES}/generateIds", lambda answer: [str(one) for one in answer.json()["ids"]], params)


def shared_drive(file_id: str) -> Call[str]:
    """The id of the shared drive that a file or folder lies in, or is; "" for one in somebody's My Drive."""
    return Call("GET", f"{FILES}/{file_id}", lambda answer: str(answer.json().get("driveId", "")), asking("driveId"))


def within(call: Call[T_co], drive: str) -> Call[T_co]:
    """A call for the shared drive of that id: searches, changes and the trash are each drive's own."""
    if call.path == FILES and call.method == "GET":
        return replace(call, params={**call.params, "corpora": "drive", "driveId": drive})
    if call.path.startswith(CHANGES):
        return replace(call, params={**call.params, "driveId": drive, "supportsAllDrives": "true"})
    return replace(call, params={**call.params, "driveId": drive}) if call.path == _TRASH else call


def asking(fields: str) -> dict[str, str | int]:
    return {"fields": fields, "supportsAllDrives": "true"}


def _everywhere(fields: str) -> dict[str, str | int]:
    """As `asking`, with what lies in shared drives."""
    return asking(fields) | {"includeItemsFromAllDrives": "true"}


def escaped(text: str) -> str:
    """A text as it stands between quotes in a query."""
    return text.replace("\\", "\\\\").replace("'", "\\'")


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def as_file(answer: Answer) -> File:
    return _file(_decoded(_ENTRY, answer))


def _decoded(decoder: msgspec.json.Decoder[T_co], answer: Answer) -> T_co:
    """The answer's JSON, its types checked on the way."""
    try:
        return decoder.decode(answer.body or b"{}")
    except (ValueError, RecursionError) as error:
        raise RemoteError(
            f"The drive's answer is not one of its API ({error}).",
            "Check the address: another server may be there.",
        ) from error


def _file(entry: _FileAnswer, parent: str | None = None) -> File:
    shortcut, created = entry.shortcut_details, entry.created_time
    return File(
        entry.id,
        entry.name,
        parent if parent is not None else entry.parents[0] if entry.parents else "",
        entry.mime_type,
        entry.size,
        entry.md5_checksum,
        entry.modified_time.timestamp(),
        entry.version,
        created.timestamp() if created is not None else 0.0,
        shortcut.target_id if shortcut is not None else "",
        shortcut.target_mime_type if shortcut is not None else "",
        entry.trashed,
        entry.owned_by_me,
        entry.shared,
    )


def _change(one: _Happened) -> Change:
    return Change(one.file_id, None if one.removed or one.file is None else _file(one.file))


def _nothing(answer: Answer) -> None:
    return None
