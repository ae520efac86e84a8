"""Drive v3, the part of it that haversack speaks: thin, typed, asynchronous.

Protocol: https://developers.google.com/workspace/drive/api/reference/rest/v3. A call asks for the fields that `File`
holds and no more. Creating is repeatable, because the id is generated beforehand: a second attempt meets its own file
and compares the hash. Every upload's MD5 is compared with what the drive says it stored.

This module keeps no state between calls but a stock of generated ids; what is known of the drive stands in `index`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from haversack.credentials import Server
from haversack.errors import AlreadyExists, ConnectionFailed, IntegrityError, NotFound, RemoteError
from haversack.http import Answer, Http

FOLDER = "application/vnd.google-apps.folder"
MULTIPART_LIMIT = 5 << 20
"""Up to this many bytes go up in one call (Google's own recommendation); more in a resumable upload."""
CHUNK = 8 << 20
"""Bytes per call of a resumable upload; a multiple of 256 KiB, as the protocol asks."""

_FILE = "id,name,mimeType,size,md5Checksum,modifiedTime,version,trashed"
_FILE_AND_PARENT = _FILE + ",parents"
_UPLOAD = "/upload/drive/v3/files"
_FILES = "/drive/v3/files"


@dataclass(frozen=True)
class File:
    """One file or folder of the drive. `size` in bytes; `modified` in seconds since 1970; `md5` is "" without bytes."""

    id: str
    name: str
    parent: str
    mime_type: str
    size: int
    md5: str
    modified: float
    version: int

    @property
    def is_folder(self) -> bool:
        return self.mime_type == FOLDER


@dataclass(frozen=True)
class Quota:
    """Bytes that the drive holds and may hold; `limit` is None where there is none."""

    used: int
    limit: int | None


@dataclass
class Upload:
    """One upload of one state of a file: the journal's view of it.

    `source` holds `size` bytes with hash `md5`. `file_id` is the file to be made or, when `exists`, to get new content.
    `marks` become its `appProperties`. `exclusive` says that a file of that id with other bytes is somebody else's.
    `session` is the resumable upload's URI, a secret. `on_session` is called when it is known; `moved` with the bytes
    that the drive has; `is_wanted` is asked before every call, and the upload ends with `Overtaken` when it says no, so
    that no state that was overtaken is ever completed.
    """

    source: Path
    size: int
    md5: str
    file_id: str
    exists: bool
    parent: str
    name: str
    modified: float
    marks: dict[str, str] = field(default_factory=dict)
    exclusive: bool = False
    session: str | None = None
    on_session: Callable[[str | None], None] = lambda session: None
    moved: Callable[[int], None] = lambda position: None
    is_wanted: Callable[[], bool] = lambda: True

    def metadata(self) -> dict[str, Any]:
        about: dict[str, Any] = {"modifiedTime": rfc3339(self.modified)}
        if not self.exists:
            about |= {"id": self.file_id, "name": self.name, "parents": [self.parent]}
            if self.marks:
                about["appProperties"] = self.marks
        return about


class Overtaken(Exception):
    """An upload ended early because what it uploads is no longer wanted; the journal's own word, never a user's."""


class DriveApi:
    """Calls of Drive v3 on one server. Every method raises what `http.error_of` and `Http.request` say."""

    def __init__(self, server: Server, http: Http | None = None) -> None:
        self.server = server
        self.http = http or Http(server)
        self._ids: list[str] = []

    async def get(self, file_id: str) -> File:
        """The file of that id; `root` is My Drive."""
        answer = await self.http.request("GET", f"{_FILES}/{file_id}", params=_asking(_FILE_AND_PARENT))
        return _file(answer.json())

    async def lookup(self, parent: str, name: str) -> list[File]:
        """The files called exactly `name` in the folder `parent`, newest first: one call, whatever the folder's size.

        Drive compares names without case, so they are compared again here.
        """
        query = f"name = '{_escaped(name)}' and '{_escaped(parent)}' in parents and trashed = false"
        found = [file async for file in self._search(query, parent)]
        return sorted((file for file in found if file.name == name), key=lambda file: (-file.modified, file.id))

    def list(self, parent: str) -> AsyncIterator[File]:
        """The files and folders in the folder `parent`, in the server's own order."""
        return self._search(f"'{_escaped(parent)}' in parents and trashed = false", parent)

    async def _search(self, query: str, parent: str) -> AsyncIterator[File]:
        params: dict[str, str | int] = {"q": query, "pageSize": 1000, **_asking(f"nextPageToken,files({_FILE})")}
        while True:
            page = (await self.http.request("GET", _FILES, params=params)).json()
            for entry in page.get("files", []):
                yield _file(entry, parent)
            if not page.get("nextPageToken"):
                return
            params["pageToken"] = page["nextPageToken"]

    async def new_id(self) -> str:
        """An id that no file has yet."""
        if not self._ids:
            params: dict[str, str | int] = {"count": 50, "fields": "ids"}
            self._ids = (await self.http.request("GET", f"{_FILES}/generateIds", params=params)).json()["ids"]
        return self._ids.pop()

    async def create_folder(self, parent: str, name: str) -> File:
        about = {"id": await self.new_id(), "name": name, "parents": [parent], "mimeType": FOLDER}
        params = _asking(_FILE_AND_PARENT)
        try:
            answer = await self.http.request("POST", _FILES, params=params, json=about, again=True)
        except AlreadyExists:
            return await self.get(str(about["id"]))
        return _file(answer.json())

    async def update(
        self,
        file: File,
        *,
        name: str | None = None,
        parent: str | None = None,
        modified: float | None = None,
    ) -> File:
        """Rename a file, move it, or set its time; only what is given changes."""
        params = _asking(_FILE_AND_PARENT)
        about: dict[str, Any] = {}
        if name is not None:
            about["name"] = name
        if modified is not None:
            about["modifiedTime"] = rfc3339(modified)
        if parent is not None and parent != file.parent:
            params |= {"addParents": parent, "removeParents": file.parent}
        return _file((await self.http.request("PATCH", f"{_FILES}/{file.id}", params=params, json=about)).json())

    async def trash(self, file_id: str) -> None:
        """Put a file, or a folder with all it holds, into the trash; nothing to do when it is gone."""
        params = {"supportsAllDrives": "true", "fields": "id"}
        await self.http.request("PATCH", f"{_FILES}/{file_id}", params=params, json={"trashed": True}, accept=(404,))

    async def copy(self, file: File, parent: str, name: str) -> File:
        """A copy of a file made by the drive itself."""
        about = {"id": await self.new_id(), "name": name, "parents": [parent]}
        try:
            answer = await self.http.request(
                "POST", f"{_FILES}/{file.id}/copy", params=_asking(_FILE_AND_PARENT), json=about, again=True
            )
        except AlreadyExists:
            return await self.get(str(about["id"]))
        return _file(answer.json())

    async def marks(self, file_id: str) -> dict[str, str]:
        """The `appProperties` of a file: what this application noted on it, which no other can see or set."""
        answer = await self.http.request("GET", f"{_FILES}/{file_id}", params=_asking("appProperties"))
        return dict(answer.json().get("appProperties", {}))

    async def delete(self, file_id: str) -> None:
        """Delete for good, past the trash."""
        await self.http.request("DELETE", f"{_FILES}/{file_id}", accept=(404,))

    async def about(self) -> Quota:
        answer = await self.http.request("GET", "/drive/v3/about", params={"fields": "storageQuota"})
        quota = answer.json().get("storageQuota", {})
        return Quota(int(quota.get("usage", 0)), int(quota["limit"]) if "limit" in quota else None)

    def download(self, file_id: str, start: int, stop: int) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """The bytes from `start` to before `stop` as a stream; the answer's status is 206, or 200 with the whole."""
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        return self.http.stream("GET", f"{_FILES}/{file_id}", params={"alt": "media"}, headers=headers)

    async def upload(self, upload: Upload) -> File:
        """Carry out an upload, going on with its session where there is one, and return the file as it then is.

        Raises `IntegrityError` when the drive stored other bytes, `Overtaken` when it is no longer wanted, and
        `AlreadyExists` when it is exclusive and the id is another's.
        """
        if upload.size <= MULTIPART_LIMIT and upload.session is None:
            answer = await self._multipart(upload)
        else:
            answer = await self._resumable(upload)
        if answer.status == 409:
            try:
                made = await self.get(upload.file_id)
            except NotFound as error:
                raise _in_use(upload) from error
            if made.md5 != upload.md5:
                if upload.exclusive:
                    raise _in_use(upload)
                # Ours, from an attempt with older bytes: give it the new ones.
                upload.exists = True
                return await self.upload(upload)
            return made
        file = _file(answer.json())
        if file.md5 != upload.md5:
            raise IntegrityError(
                f"The drive stored other bytes of {upload.name} than were sent.", "The upload is tried again."
            )
        return file

    async def _multipart(self, upload: Upload) -> Answer:
        content = await asyncio.to_thread(upload.source.read_bytes)
        _check_wanted(upload)
        boundary = secrets.token_hex(16)
        head = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{json.dumps(upload.metadata())}\r\n"
        )
        head += f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n"
        body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
        method, url = _target(upload)
        return await self.http.request(
            method,
            url,
            params=_asking(_FILE_AND_PARENT) | {"uploadType": "multipart"},
            data=body,
            headers={"Content-Type": f"multipart/related; boundary={boundary}"},
            accept=(409,),
            again=True,
        )

    async def _resumable(self, upload: Upload) -> Answer:
        """https://developers.google.com/workspace/drive/api/guides/manage-uploads#resumable"""
        failures = 0
        position: int | None = None
        while True:
            _check_wanted(upload)
            try:
                if upload.session is None:
                    if (refused := await self._begin(upload)) is not None:
                        return refused
                    position = 0
                answer = await self._send_chunk(upload, position)
            except (ConnectionFailed, RemoteError) as error:
                failures += 1
                if failures >= self.http.attempts or (isinstance(error, RemoteError) and error.status < 500):
                    raise
                position = None
                continue
            if answer.status in (404, 410):
                upload.session, position = None, None
                upload.on_session(None)
                failures += 1
                if failures >= self.http.attempts:
                    raise RemoteError(f"The drive forgot the upload of {upload.name} again and again.", "Try later.")
            elif answer.status != 308:
                return answer
            else:
                stored = _stored(answer)
                if position is not None and stored > position:
                    failures = 0
                position = stored
                upload.moved(position)

    async def _begin(self, upload: Upload) -> Answer | None:
        """Open a session; returns the answer instead when the file is already there."""
        method, url = _target(upload)
        answer = await self.http.request(
            method,
            url,
            params=_asking(_FILE_AND_PARENT) | {"uploadType": "resumable"},
            json=upload.metadata(),
            headers={"X-Upload-Content-Type": "application/octet-stream", "X-Upload-Content-Length": str(upload.size)},
            accept=(409,),
            again=True,
        )
        if answer.status == 409:
            return answer
        upload.session = answer.headers["Location"]
        upload.on_session(upload.session)
        return None

    async def _send_chunk(self, upload: Upload, position: int | None) -> Answer:
        """Send the bytes from `position`; with None only ask how far the drive has got."""
        assert upload.session is not None
        content = b""
        if position is None:
            content_range = f"bytes */{upload.size}"
        else:
            content = await asyncio.to_thread(_read_at, upload.source, position, min(CHUNK, upload.size - position))
            _check_wanted(upload)
            content_range = f"bytes {position}-{position + len(content) - 1}/{upload.size}"
            if not content:
                content_range = f"bytes */{upload.size}"
        return await self.http.request(
            "PUT",
            upload.session,
            data=content,
            headers={"Content-Range": content_range},
            accept=(404, 409, 410),
            again=False,
        )


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _file(entry: dict[str, Any], parent: str | None = None) -> File:
    parents = entry.get("parents") or [""]
    return File(
        id=entry["id"],
        name=entry["name"],
        parent=parent if parent is not None else parents[0],
        mime_type=entry["mimeType"],
        size=int(entry.get("size", 0)),
        md5=entry.get("md5Checksum", ""),
        modified=datetime.fromisoformat(entry["modifiedTime"]).timestamp(),
        version=int(entry.get("version", 0)),
    )


def _asking(fields: str) -> dict[str, str | int]:
    return {"fields": fields, "supportsAllDrives": "true"}


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _target(upload: Upload) -> tuple[str, str]:
    return ("PATCH", f"{_UPLOAD}/{upload.file_id}") if upload.exists else ("POST", _UPLOAD)


def _in_use(upload: Upload) -> AlreadyExists:
    return AlreadyExists(f"{upload.name} is on the drive already, under the id that it was to get.", "Look at it.")


def _check_wanted(upload: Upload) -> None:
    if not upload.is_wanted():
        raise Overtaken


def _read_at(path: Path, position: int, size: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(position)
        return file.read(size)


def _stored(answer: Answer) -> int:
    """How many bytes the drive has, from a 308's `Range: bytes=0-N`; the header is absent when there are none."""
    said = answer.headers.get("Range", "")
    return int(said.rpartition("-")[2]) + 1 if said else 0
