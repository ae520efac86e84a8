"""Drive v3's calls that carry bytes: download, upload in one piece, multipart and resumable, and batches of calls.

See https://developers.google.com/workspace/drive/api/guides/manage-uploads and …/performance#batch-requests.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from email.message import Message
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web

from haversack.hub import calls, content, multipart, uploads, wire
from haversack.hub.content import Staged
from haversack.hub.documents import DOCUMENTS, SHORTCUT
from haversack.hub.drive import DriveRequest, DriveService
from haversack.hub.faults import Faults
from haversack.hub.index import FOLDER, new_id
from haversack.hub.refusal import Refusal, invalid
from haversack.hub.resource import described
from haversack.hub.uploads import ReceivedUpload, Uploads

_LONGEST_JSON = 4 << 20
_MOST_CALLS = 100


class Media:
    """The handlers; `origin` tells the scheme and host that a request was sent to, `faults` what befalls calls."""

    def __init__(
        self, drive: DriveService, sessions: Uploads, origin: Callable[[web.Request], str], faults: Faults | None = None
    ) -> None:
        self.drive = drive
        self.sessions = sessions
        self.origin = origin
        self.faults = faults

    async def call(self, request: web.Request) -> web.StreamResponse:
        """Any call below `/drive/v3/`."""
        path = request.match_info["path"]
        match (request.method, *path.split("/")):
            case ("GET" | "HEAD", "files", file_id) if request.query.get("alt") == "media":
                return await self._download(request, file_id)
            case ("GET", "files", file_id, "export"):
                exported, mime = await asyncio.to_thread(self.drive.export, file_id, request.query)
                return web.Response(body=exported, headers={"Content-Type": mime, **content.OF_USERS})
        call = DriveRequest(request.method, path, self.origin(request), request.query, await read_json(request))
        answer = await asyncio.to_thread(self.drive.answer, call)
        return web.Response(status=204) if answer is None else web.json_response(answer)

    async def upload(self, request: web.Request) -> web.StreamResponse:
        """Any call below `/upload/drive/v3/files`."""
        if "upload_id" in request.query:
            return await self._resume(request)
        kind = request.query.get("uploadType")
        if (request.method, "id" in request.match_info) not in (("POST", False), ("PATCH", True)):
            raise Refusal(405, "httpMethodNotAllowed", f"{request.method} is not allowed here.")
        if kind == "resumable":
            return await self._begin(request)
        target = request.match_info.get("id")
        with content.aside(self.drive.incoming) as path:
            if kind == "multipart":
                parts = multipart.Parts(request)
                about = await asyncio.to_thread(self._check, target, await _first_json(parts))
                head = await parts.head()
                if head is None:
                    raise invalid("A multipart upload has two parts: JSON, then the content.")
                staged = await content.write(path, _decoded(head, parts.body()))
                mime = head.get("Content-Type")
            elif kind == "media":
                about, mime = await asyncio.to_thread(self._check, target, None), request.headers.get("Content-Type")
                staged = await content.write(path, wire.arriving(request))
            else:
                raise invalid("uploadType is media, multipart or resumable.", "uploadType")
            answer = await asyncio.to_thread(
                self._store, target, about, staged, mime, dict(request.query), self.origin(request)
            )
        return web.json_response(answer)

    async def batch(self, request: web.Request) -> web.Response:
        """Up to 100 calls in one body; each answer stands where its call stood."""
        edge = multipart.boundary(request.headers.get("Content-Type", ""))
        parts = multipart.Parts(request)
        answers: list[bytes] = []
        while (head := await parts.head()) is not None:
            if len(answers) == _MOST_CALLS:
                raise invalid(f"A batch has at most {_MOST_CALLS} calls.")
            text = b"".join([chunk async for chunk in _limited(parts.body())])
            status, answer = await self._one_of_batch(request, text)
            answers.append(_batch_part(edge, head.get("Content-ID", ""), status, answer))
        body = b"".join(answers) + b"--" + edge + b"--\r\n"
        return web.Response(body=body, headers={"Content-Type": f'multipart/mixed; boundary="{edge.decode()}"'})

    async def _download(self, request: web.Request, file_id: str) -> web.StreamResponse:
        file, path = await asyncio.to_thread(self.drive.downloaded, file_id)
        return await content.send(request, path, file.mime, md5=file.md5, name=file.name)

    async def linked(self, request: web.Request) -> web.StreamResponse:
        """The bytes behind a `webContentLink`: the link is signed, and expires."""
        expires, signature = request.query.get("expires", ""), request.query.get("signature", "")
        if not self.drive.signin.is_signed(request.rel_url.raw_path, expires, signature):
            raise Refusal(403, "expired", "The link has expired, or the hub did not make it; ask for a new one.")
        return await self._download(request, request.match_info["id"])

    async def _begin(self, request: web.Request) -> web.Response:
        """Open a session; its URI is a secret and needs the token all the same."""
        target = request.match_info.get("id")
        about = await asyncio.to_thread(self._check, target, await read_json(request))
        # With an id from the start, the file is known again when its last answer was lost.
        named = "id" in about
        if target is None and not named:
            about["id"] = new_id()
        total = request.headers.get("X-Upload-Content-Length")
        if total is not None and not (total.isascii() and total.isdigit() and len(total) < 19):
            raise invalid("X-Upload-Content-Length is not a number of bytes.", "X-Upload-Content-Length")
        details = {
            "about": about,
            "target": target,
            "named": named,
            "mime": request.headers.get("X-Upload-Content-Type"),
            "parameters": {key: value for key, value in request.query.items() if key != "uploadType"},
        }
        size = None if total is None else int(total)
        await asyncio.to_thread(self._check_room, target, size or 0)
        upload_id = await asyncio.to_thread(self.sessions.open, "drive", details, size)
        location = f"{self.origin(request)}{request.path}?uploadType=resumable&upload_id={upload_id}"
        return web.Response(headers={"Location": location, "X-GUploader-UploadID": upload_id})

    async def _resume(self, request: web.Request) -> web.StreamResponse:
        upload = await asyncio.to_thread(self.sessions.find, request.query["upload_id"], "drive")
        if request.method == "DELETE":
            await asyncio.to_thread(self.sessions.cancel, upload.id)
            return web.Response(status=499, reason="Client Closed Request")
        if request.method not in ("PUT", "POST"):
            raise Refusal(405, "httpMethodNotAllowed", f"{request.method} is not allowed here.")
        async with self.sessions.lock(upload):
            upload = await asyncio.to_thread(self.sessions.find, upload.id, "drive")
            done = await asyncio.to_thread(self._done, upload, self.origin(request))
            if done is not None:
                return web.json_response(done)
            staged = await self.sessions.receive(request, upload)
            if staged is None:
                return uploads.incomplete(await asyncio.to_thread(self.sessions.received, upload))
            return web.json_response(await asyncio.to_thread(self._finish, upload, staged, self.origin(request)))

    def _check(self, target: str | None, body: Any) -> dict[str, Any]:
        """What a body says of a file; refuses what can be refused before its content is sent."""
        about = described(body, creating=target is None)
        if target is None:
            self.drive.check_new(about)
        elif (mime := self.drive.tree.get(target).mime) in (FOLDER, SHORTCUT):
            raise invalid("Neither a folder nor a shortcut has content.", "fileId")
        elif mime in DOCUMENTS:
            raise Refusal(403, "fileNotModifiable", "The hub exports documents and does not edit them.")
        return about

    def _check_room(self, target: str | None, size: int) -> None:
        """Refuse what the quota has no room for, before any byte is sent."""
        self.drive.tree.check_quota(size - (self.drive.tree.get(target).size if target else 0))

    def _done(self, upload: ReceivedUpload, origin: str) -> dict[str, Any] | None:
        """The answer of an upload that had come to its end, perhaps just before the hub was killed."""
        details = upload.details
        if upload.result is None and details["target"] is None and not details["named"]:
            with suppress(Refusal):
                return self.drive.shown(self.drive.tree.get(details["about"]["id"]), details["parameters"], origin)
        return upload.result

    def _finish(self, upload: ReceivedUpload, staged: Staged, origin: str) -> dict[str, Any]:
        details = upload.details
        try:
            answer = self._store(
                details["target"], details["about"], staged, details["mime"], details["parameters"], origin
            )
        except Refusal as refusal:
            if refusal.status in (404, 409):
                # The folder is gone or the id is taken: the session can never end well.
                self.sessions.cancel(upload.id)
            raise
        self.sessions.finish(upload, answer)
        return answer

    def _store(
        self,
        target: str | None,
        about: dict[str, Any],
        staged: Staged,
        mime: str | None,
        parameters: dict[str, str],
        origin: str,
    ) -> dict[str, Any]:
        """Staged bytes become a new file, or the content of the file `target`."""
        if target is None:
            return self.drive.shown(self.drive.create(dict(about), staged, mime), parameters, origin)
        self.drive.tree.replace(target, staged, about.get("mime") or mime, about.get("modified"))
        file = self.drive.update(target, {**about, "modified": None}, parameters)
        return self.drive.shown(file, parameters, origin)

    async def _one_of_batch(self, request: web.Request, text: bytes) -> tuple[int, Any]:
        try:
            call = _inner_call(text, self.origin(request))
            calls.note(request, call.method, call.path)
            if self.faults is not None:
                self.faults.meet()
            answer = await asyncio.to_thread(self.drive.answer, call)
        except Refusal as refusal:
            return refusal.status, refusal.as_google()
        return (204, None) if answer is None else (200, answer)


async def read_json(request: web.Request) -> Any:
    """The body as JSON; None where there is none. Raises `Refusal`."""
    body = b"".join([chunk async for chunk in _limited(wire.arriving(request))])
    return parse_json(body)


def parse_json(body: bytes) -> Any:
    if not body.strip():
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "parseError", "The body is not JSON.") from None


async def _first_json(parts: multipart.Parts) -> Any:
    if await parts.head() is None:
        raise invalid("A multipart upload has two parts: JSON, then the content.")
    return parse_json(b"".join([chunk async for chunk in _limited(parts.body())]))


async def _limited(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > _LONGEST_JSON:
            raise Refusal(413, "uploadTooLarge", f"The JSON is longer than {_LONGEST_JSON} bytes.")
        yield chunk


async def _decoded(head: Message, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A part's bytes without their transfer encoding."""
    encoding = str(head.get("Content-Transfer-Encoding", "binary")).strip().lower()
    if encoding not in ("binary", "7bit", "8bit", "base64"):
        raise Refusal(501, "notImplemented", f"The hub does not read the transfer encoding {encoding[:40]}.")
    if encoding != "base64":
        async for chunk in chunks:
            yield chunk
        return
    left = b""
    async for chunk in chunks:
        left += b"".join(chunk.split())
        whole = len(left) - len(left) % 4
        yield _from_base64(left[:whole])
        left = left[whole:]
    yield _from_base64(left)


def _from_base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise invalid("A part is not the base64 that it claims to be.") from None


def _inner_call(text: bytes, origin: str) -> DriveRequest:
    """The call that one part of a batch holds as an HTTP request."""
    head, _, body = text.replace(b"\r\n", b"\n").lstrip(b"\n").partition(b"\n\n")
    words = head.decode(errors="replace").split("\n", 1)[0].split(" ")
    target = urlsplit(words[1]) if len(words) == 3 else None
    if target is None or not target.path.startswith("/drive/v3/"):
        raise invalid("A part of the batch is not a Drive v3 call.")
    parameters = dict(parse_qsl(target.query, keep_blank_values=True))
    if parameters.get("alt") == "media":
        raise invalid("A batch carries no content; download it by itself.")
    return DriveRequest(words[0], target.path.removeprefix("/drive/v3/"), origin, parameters, parse_json(body))


def _batch_part(edge: bytes, content_id: str, status: int, answer: Any) -> bytes:
    # `<x>` is answered as `<response-x>`.
    shown = content_id.strip().removeprefix("<").removesuffix(">").replace("\n", "").replace("\r", "")
    body = b"" if answer is None else json.dumps(answer).encode()
    reason = web.Response(status=status).reason
    head = (
        f"Content-Type: application/http\r\nContent-ID: <response-{shown}>\r\n\r\n"
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json; charset=UTF-8\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return b"--" + edge + b"\r\n" + head.encode() + body + b"\r\n"
