"""The requests of Drive v3, each a `Call` record: what to send, and how to parse the response.

Protocol: https://developers.google.com/workspace/drive/api/reference/rest/v3. Requests ask only for the fields of
`File`. `api.DriveApi` sends a `Call` alone or as a part of a batch. Every `Call` may be retried: whatever it creates
has an id that was generated beforehand, so a retry finds the file that the first attempt created.

Each function here returns a `Call` and sends nothing; its docstring says what the call does when it is sent.
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
"""Maximum number of folders in one query; Drive refuses more than about a hundred with 413."""

_FILE_FIELDS = "id,name,mimeType,size,md5Checksum,createdTime,modifiedTime,version,trashed,"
_FILE_FIELDS += "shortcutDetails(targetId,targetMimeType)"
FILE_AND_PARENT = _FILE_FIELDS + ",parents"
_SHARING_FIELDS = ",ownedByMe,shared"
_TRASH_PATH = f"{FILES}/trash"
_PAGE_SIZE = 1000


# Not frozen: listings create hundreds of thousands of these, and a frozen one takes eight times as long to create.
@dataclass(slots=True)
class File:
    """The metadata of one file or folder on the drive. Treat it as immutable.

    `size` is in bytes; `modified` and `created` are in seconds since 1970 (`created` is 0.0 if unknown). `parent` is
    the id of its folder, "" if the response names none. `md5` is in hex, "" for folders and Google documents. `version`
    grows with every change on the drive. `target` and `target_type` are a shortcut's target id and MIME type, ""
    otherwise. `owned` and `shared` are meaningful only if the request had `sharing=True`.
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
    """The drive's storage quota: bytes `used` (`in_trash` of them in the trash), and `limit`, None if unlimited.

    `user` is the e-mail address of the signed-in user, else their display name, else "".
    """

    used: int
    limit: int | None
    in_trash: int = 0
    user: str = ""


@dataclass(frozen=True)
class Page:
    """One page of a listing; `token` is the page token of the next page, None on the last one."""

    files: list[File]
    token: str | None


@dataclass(frozen=True)
class Change:
    """An entry of the changes feed: the file with the id `file_id` has changed.

    `file` is its present metadata, maybe in the trash; None if it was deleted or is no longer accessible.
    """

    file_id: str
    file: File | None


@dataclass(frozen=True)
class Changes:
    """One page of the changes feed.

    `token` is the page token to continue with: that of the next page or, if `last` says that the feed ends here for
    now, that of changes still to come.
    """

    changes: list[Change]
    token: str
    last: bool


class _Shortcut(msgspec.Struct, rename="camel", gc=False):
    target_id: str = ""
    target_mime_type: str = ""


class _FileAnswer(msgspec.Struct, rename="camel", gc=False):
    """A `files` resource in a response. Drive sends its numbers as strings."""

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


class _ChangeAnswer(msgspec.Struct, rename="camel"):
    """A `changes` resource in a response; `file_id` is "" for a change of a shared drive itself.

    `removed` says that the file was deleted or is no longer accessible; then `file` is None.
    """

    file_id: str = ""
    removed: bool = False
    file: _FileAnswer | None = None


class _ChangesAnswer(msgspec.Struct, rename="camel"):
    changes: list[_ChangeAnswer] = []
    next_page_token: str | None = None
    new_start_page_token: str | None = None


_FILE_DECODER = msgspec.json.Decoder(_FileAnswer, strict=False)
_LIST_DECODER = msgspec.json.Decoder(_ListAnswer, strict=False)
_CHANGES_DECODER = msgspec.json.Decoder(_ChangesAnswer, strict=False)


@dataclass(frozen=True)
class Call(Generic[T_co]):
    """One API request that may be retried.

    Attributes:
        method: The HTTP method.
        path: The path, relative to the server's URL.
        read: Parses the response to what the call returns; raises `RemoteError` if the body is not what it must be.
        params: The query parameters.
        json: The body, sent as JSON; None for no body.
        accept: Statuses of 400 and above that count as success; `read` gets those responses too.
    """

    method: str
    path: str
    read: Callable[[Answer], T_co]
    params: Mapping[str, str | int] = field(default_factory=dict)
    json: Any = None
    accept: tuple[int, ...] = ()


def get(file_id: str, *, sharing: bool = False) -> Call[File]:
    """Get a file's metadata by id; the id `root` is My Drive. `sharing` fills in `File.owned` and `File.shared`."""
    fields = FILE_AND_PARENT + _SHARING_FIELDS * sharing
    return Call("GET", f"{FILES}/{file_id}", parse_file, fields_params(fields))


def named(parent: str, name: str, token: str | None = None) -> Call[Page]:
    """Get a page of the files named `name` in the folder `parent`, trash excluded.

    Drive ignores case in names, so the caller must compare them again. `token` continues after an earlier page.
    """
    return search(f"name = '{_escape(name)}' and '{_escape(parent)}' in parents and trashed = false", parent, token)


def listing(parents: Sequence[str], token: str | None = None, *, sharing: bool = False) -> Call[Page]:
    """Get a page of the children of up to `PARENTS_PER_QUERY` folders, trash excluded, in the server's order.

    `token` continues after an earlier page. `sharing` fills in `File.owned` and `File.shared`.
    """
    in_any = " or ".join(f"'{_escape(parent)}' in parents" for parent in parents)
    only = parents[0] if len(parents) == 1 else None
    return search(f"({in_any}) and trashed = false", only, token, sharing=sharing)


def search(query: str, parent: str | None = None, token: str | None = None, *, sharing: bool = False) -> Call[Page]:
    """Get a page of the files that match `query`, in the language of Drive's `q` parameter.

    Query language: https://developers.google.com/workspace/drive/api/guides/search-files

    Args:
        query: The query; it should exclude the trash.
        parent: The id of the only folder that the query can match files of. Then the response need not name it.
        token: The page token of an earlier page, to continue after it.
        sharing: Fill in `File.owned` and `File.shared`.
    """

    def read(answer: Answer) -> Page:
        found = _decoded(_LIST_DECODER, answer)
        return Page([_file(entry, parent) for entry in found.files], found.next_page_token or None)

    fields = (_FILE_FIELDS if parent is not None else FILE_AND_PARENT) + _SHARING_FIELDS * sharing
    params: dict[str, str | int] = {
        "q": query,
        "pageSize": _PAGE_SIZE,
        **_list_params(f"nextPageToken,files({fields})"),
    }
    if token is not None:
        params["pageToken"] = token
    return Call("GET", FILES, read, params)


def create_folder(file_id: str, parent: str, name: str) -> Call[File]:
    """Create a folder with the id `file_id`, from `new_ids`, in the folder with the id `parent`.

    Fails with the status 409, as `AlreadyExists`, if the id is in use.
    """
    resource = {"id": file_id, "name": name, "parents": [parent], "mimeType": FOLDER}
    return Call("POST", FILES, parse_file, fields_params(FILE_AND_PARENT), resource)


def copy(file: File, file_id: str, parent: str, name: str) -> Call[File]:
    """Copy a file on the server to `name` in the folder with the id `parent`; the copy gets `file_id`, from `new_ids`.

    Fails with the status 409, as `AlreadyExists`, if the id is in use.
    """
    resource = {"id": file_id, "name": name, "parents": [parent]}
    return Call("POST", f"{FILES}/{file.id}/copy", parse_file, fields_params(FILE_AND_PARENT), resource)


def update(
    file: File, *, name: str | None = None, parent: str | None = None, modified: float | None = None
) -> Call[File]:
    """Rename a file, move it to the folder with the id `parent`, or set its modification time.

    `modified` is in seconds since 1970. None leaves a value unchanged. Returns the file's new metadata.
    """
    params = fields_params(FILE_AND_PARENT)
    resource: dict[str, Any] = {}
    if name is not None:
        resource["name"] = name
    if modified is not None:
        resource["modifiedTime"] = rfc3339(modified)
    if parent is not None and parent != file.parent:
        params |= {"addParents": parent, "removeParents": file.parent}
    return Call("PATCH", f"{FILES}/{file.id}", parse_file, params, resource)


def trash(file_id: str) -> Call[None]:
    """Move a file, or a folder with its content, to the trash. Succeeds if it does not exist."""
    return Call("PATCH", f"{FILES}/{file_id}", _nothing, fields_params("id"), {"trashed": True}, accept=(404,))


def restore(file_id: str) -> Call[File]:
    """Restore a file from the trash to the folder it was in."""
    return Call("PATCH", f"{FILES}/{file_id}", parse_file, fields_params(FILE_AND_PARENT), {"trashed": False})


def delete(file_id: str) -> Call[None]:
    """Delete a file permanently, bypassing the trash. Succeeds if it does not exist."""
    return Call("DELETE", f"{FILES}/{file_id}", _nothing, {"supportsAllDrives": "true"}, accept=(404,))


def empty_trash() -> Call[None]:
    """Permanently delete everything in the trash."""
    return Call("DELETE", _TRASH_PATH, _nothing)


def marks(file_id: str) -> Call[dict[str, str]]:
    """Get a file's `appProperties`: private key-value pairs that only the application that set them can see."""

    def read(answer: Answer) -> dict[str, str]:
        return dict(answer.json().get("appProperties", {}))

    return Call("GET", f"{FILES}/{file_id}", read, fields_params("appProperties"))


def quota() -> Call[Quota]:
    """Get the storage quota and the signed-in user."""

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
    """Get the start page token: the current end of the changes feed."""
    return Call("GET", f"{CHANGES}/startPageToken", lambda answer: str(answer.json()["startPageToken"]))


def changes(token: str) -> Call[Changes]:
    """Get the page of the changes feed at the page token `token`."""

    def read(answer: Answer) -> Changes:
        found = _decoded(_CHANGES_DECODER, answer)
        next_token = found.next_page_token or found.new_start_page_token
        if not next_token:
            raise RemoteError("The drive's changes feed returned no page token.", "Try again later.")
        return Changes([_change(one) for one in found.changes if one.file_id], next_token, not found.next_page_token)

    fields = f"nextPageToken,newStartPageToken,changes(fileId,removed,file({FILE_AND_PARENT}))"
    return Call("GET", CHANGES, read, {"pageToken": token, "pageSize": _PAGE_SIZE, **_list_params(fields)})


def new_ids(count: int) -> Call[list[str]]:
    """Generate `count` unused file ids, at most 1,000."""
    params: dict[str, str | int] = {"count": count, "fields": "ids"}
    return Call("GET", f"{FILES}/generateIds", lambda answer: [str(one) for one in answer.json()["ids"]], params)


def shared_drive(file_id: str) -> Call[str]:
    """Get the id of the shared drive that a file or folder is in (or is the root of); "" in a user's My Drive."""
    return Call(
        "GET", f"{FILES}/{file_id}", lambda answer: str(answer.json().get("driveId", "")), fields_params("driveId")
    )


def in_shared_drive(call: Call[T_co], drive: str) -> Call[T_co]:
    """Return `call` with the parameters that direct it to the shared drive with the id `drive`.

    Searches, the changes feed and the trash are separate for each drive; other calls are returned unchanged.
    """
    if call.path == FILES and call.method == "GET":
        return replace(call, params={**call.params, "corpora": "drive", "driveId": drive})
    if call.path.startswith(CHANGES):
        return replace(call, params={**call.params, "driveId": drive, "supportsAllDrives": "true"})
    return replace(call, params={**call.params, "driveId": drive}) if call.path == _TRASH_PATH else call


def fields_params(fields: str) -> dict[str, str | int]:
    """Return the query parameters that restrict a response to `fields`, in Drive's syntax, and allow shared drives."""
    return {"fields": fields, "supportsAllDrives": "true"}


def _list_params(fields: str) -> dict[str, str | int]:
    """Return `fields_params`, plus the parameter that includes shared drives in listings."""
    return fields_params(fields) | {"includeItemsFromAllDrives": "true"}


def _escape(text: str) -> str:
    """Escape `text` for use between single quotes in a query."""
    return text.replace("\\", "\\\\").replace("'", "\\'")


def rfc3339(seconds: float) -> str:
    """Format seconds since 1970 as an RFC 3339 timestamp in UTC, with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_file(answer: Answer) -> File:
    """Parse a response that holds one `files` resource. Raises `RemoteError` for any other body."""
    return _file(_decoded(_FILE_DECODER, answer))


def _decoded(decoder: msgspec.json.Decoder[T_co], answer: Answer) -> T_co:
    """Decode a JSON body and check its types. Raises `RemoteError` if either fails."""
    try:
        return decoder.decode(answer.body or b"{}")
    except (ValueError, RecursionError) as error:
        raise RemoteError(
            f"The drive's response is not a valid Drive v3 response ({error}).",
            "Check the drive's address: another server may be there.",
        ) from error


def _file(entry: _FileAnswer, parent: str | None = None) -> File:
    """Convert a `files` resource; `parent` replaces the parent named in it, for requests that leave that out."""
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


def _change(entry: _ChangeAnswer) -> Change:
    return Change(entry.file_id, None if entry.removed or entry.file is None else _file(entry.file))


def _nothing(answer: Answer) -> None:
    return None
