"""Drive v3's calls that carry bytes: downloads, media, multipart and resumable uploads, and batches of calls.

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
from haversack.hub.resource import parse_metadata
from haversack.hub.uploads import ReceivedUpload, Uploads

_MAX_JSON = 4 << 20
_MAX_BATCH = 100


class Media:
    """The request handlers of Drive v3.

    Args:
        drive: Drive's methods, which these handlers call.
        sessions: the resumable uploads.
        origin: returns the scheme and host that a request was sent to, for links.
        faults: injects faults into calls inside a batch.
    """

    def __init__(
        self, drive: DriveService, sessions: Uploads, origin: Callable[[web.Request], str], faults: Faults | None = None
    ) -> None:
        self.drive = drive
        self.sessions = sessions
        self.origin = origin
        self.faults = faults

    async def call(self, request: web.Request) -> web.StreamResponse:
        """Handle any call below `/drive/v3/`: downloads (`alt=media`) and exports here, others by `DriveService`.

        Raises `Refusal`: 400 for an invalid parameter or body, 403 for a file without content or a change that is not
        allowed, 404 for a file that does not exist, 409 for an id in use, 413 for a body longer than 4 MiB, 416 for a
        range outside the file, 501 for a method that is not supported.
        """
        path = request.match_info["path"]
        match (request.method, *path.split("/")):
            case ("GET" | "HEAD", "files", file_id) if request.query.get("alt") == "media":
                return await self._download(request, file_id)
            case ("GET", "files", file_id, "export"):
                exported, mime = await asyncio.to_thread(self.drive.export, file_id, request.query)
                return web.Response(body=exported, headers={"Content-Type": mime, **content.UNTRUSTED_HEADERS})
        call = DriveRequest(request.method, path, self.origin(request), request.query, await read_json(request))
        answer = await asyncio.to_thread(self.drive.answer, call)
        return web.Response(status=204) if answer is None else web.json_response(answer)

    async def upload(self, request: web.Request) -> web.StreamResponse:
        """Handle any request below `/upload/drive/v3/files`: media, multipart, and resumable uploads with their chunks.

        Responds with the file's JSON; for a resumable upload with its URI, or 308 while bytes are missing. Raises
        `Refusal`: 400 for a malformed request, 403 for a change that is not allowed or exceeds the quota, 404 for a
        file, folder or upload that does not exist, 405 for a wrong HTTP method, 409 for an id in use, 413 for metadata
        longer than 4 MiB, 501 for a type or transfer encoding that is not supported.
        """
        if "upload_id" in request.query:
            return await self._continue_session(request)
        kind = request.query.get("uploadType")
        if (request.method, "id" in request.match_info) not in (("POST", False), ("PATCH", True)):
            raise Refusal(405, "httpMethodNotAllowed", f"{request.method} is not allowed here.")
        if kind == "resumable":
            return await self._open_session(request)
        target = request.match_info.get("id")
        with content.temporary_path(self.drive.incoming) as path:
            if kind == "multipart":
                parts = multipart.PartReader(request)
                metadata = await asyncio.to_thread(self._validate_metadata, target, await _first_json(parts))
                headers = await parts.next_headers()
                if headers is None:
                    raise invalid("A multipart upload has two parts: JSON, then the content.")
                staged = await content.write(path, _decode_part(headers, parts.body()))
                mime = headers.get("Content-Type")
            elif kind == "media":
                metadata, mime = (
                    await asyncio.to_thread(self._validate_metadata, target, None),
                    request.headers.get("Content-Type"),
                )
                staged = await content.write(path, wire.read_body(request))
            else:
                raise invalid("uploadType must be media, multipart or resumable.", "uploadType")
            answer = await asyncio.to_thread(
                self._store, target, metadata, staged, mime, dict(request.query), self.origin(request)
            )
        return web.json_response(answer)

    async def batch(self, request: web.Request) -> web.Response:
        """Carry out the calls of a batch (`multipart/mixed`) in order; return their responses in the same order.

        An error of one call is the response of that call. Raises `Refusal`: 400 for more than 100 calls or a malformed
        multipart body, 413 for a call longer than 4 MiB; calls that precede the fault have been carried out then.
        """
        edge = multipart.boundary(request.headers.get("Content-Type", ""))
        parts = multipart.PartReader(request)
        answers: list[bytes] = []
        while (headers := await parts.next_headers()) is not None:
            if len(answers) == _MAX_BATCH:
                raise invalid(f"A batch has at most {_MAX_BATCH} calls.")
            text = b"".join([chunk async for chunk in _limit_json(parts.body())])
            status, answer = await self._answer_batched_call(request, text)
            answers.append(_batch_part(edge, headers.get("Content-ID", ""), status, answer))
        body = b"".join(answers) + b"--" + edge + b"--\r\n"
        return web.Response(body=body, headers={"Content-Type": f'multipart/mixed; boundary="{edge.decode()}"'})

    async def _download(self, request: web.Request, file_id: str) -> web.StreamResponse:
        file, path = await asyncio.to_thread(self.drive.locate_content, file_id)
        return await content.send(request, path, file.mime, md5=file.md5, name=file.name)

    async def download_link(self, request: web.Request) -> web.StreamResponse:
        """Send a file's content for its `webContentLink`, a signed link that needs no other credential.

        Raises `Refusal`: 403 if the link is expired, its signature wrong or the file has no content, 404 if the file
        does not exist, 416 for a range outside the file.
        """
        expires, signature = request.query.get("expires", ""), request.query.get("signature", "")
        if not self.drive.signin.is_valid_link(request.rel_url.raw_path, expires, signature):
            raise Refusal(
                403, "expired", "The link has expired or was not signed by this hub; get the file again for a new one."
            )
        return await self._download(request, request.match_info["id"])

    async def _open_session(self, request: web.Request) -> web.Response:
        """Open an upload session. Its URI is secret, and requests to it need the token nevertheless."""
        target = request.match_info.get("id")
        metadata = await asyncio.to_thread(self._validate_metadata, target, await read_json(request))
        # With an id assigned now, the file can be found again if the last response is lost.
        has_client_id = "id" in metadata
        if target is None and not has_client_id:
            metadata["id"] = new_id()
        total = request.headers.get("X-Upload-Content-Length")
        if total is not None and not (total.isascii() and total.isdigit() and len(total) < 19):
            raise invalid("X-Upload-Content-Length is not a number of bytes.", "X-Upload-Content-Length")
        details = {
            "about": metadata,
            "target": target,
            "named": has_client_id,
            "mime": request.headers.get("X-Upload-Content-Type"),
            "parameters": {key: value for key, value in request.query.items() if key != "uploadType"},
        }
        size = None if total is None else int(total)
        await asyncio.to_thread(self._check_quota, target, size or 0)
        upload_id = await asyncio.to_thread(self.sessions.open, "drive", details, size)
        location = f"{self.origin(request)}{request.path}?uploadType=resumable&upload_id={upload_id}"
        return web.Response(headers={"Location": location, "X-GUploader-UploadID": upload_id})

    async def _continue_session(self, request: web.Request) -> web.StreamResponse:
        """Handle a request to an upload session: a chunk, a status query, or DELETE, answered with Google's 499."""
        upload = await asyncio.to_thread(self.sessions.find, request.query["upload_id"], "drive")
        if request.method == "DELETE":
            await asyncio.to_thread(self.sessions.cancel, upload.id)
            return web.Response(status=499, reason="Client Closed Request")
        if request.method not in ("PUT", "POST"):
            raise Refusal(405, "httpMethodNotAllowed", f"{request.method} is not allowed here.")
        async with self.sessions.lock(upload):
            upload = await asyncio.to_thread(self.sessions.find, upload.id, "drive")
            done = await asyncio.to_thread(self._finished_answer, upload, self.origin(request))
            if done is not None:
                return web.json_response(done)
            staged = await self.sessions.receive(request, upload)
            if staged is None:
                return uploads.incomplete_response(await asyncio.to_thread(self.sessions.received, upload))
            return web.json_response(await asyncio.to_thread(self._finish, upload, staged, self.origin(request)))

    def _validate_metadata(self, target: str | None, body: Any) -> dict[str, Any]:
        """Parse the metadata of an upload, and raise its `Refusal` before content is received.

        `target` is the id of the file whose content is replaced; None creates a file.
        """
        metadata = parse_metadata(body, creating=target is None)
        if target is None:
            self.drive.validate_new(metadata)
        elif (mime := self.drive.tree.get(target).mime) in (FOLDER, SHORTCUT):
            raise invalid("Neither a folder nor a shortcut has content.", "fileId")
        elif mime in DOCUMENTS:
            raise Refusal(403, "fileNotModifiable", "The hub exports documents and does not edit them.")
        return metadata

    def _check_quota(self, target: str | None, size: int) -> None:
        """Raise `Refusal` (403) if `size` bytes, in place of the content of `target`, exceed the quota."""
        self.drive.tree.check_quota(size - (self.drive.tree.get(target).size if target else 0))

    def _finished_answer(self, upload: ReceivedUpload, origin: str) -> dict[str, Any] | None:
        """Return the response of a completed upload, or None.

        If the hub was killed after it created the file and before it saved the response, the file's id tells.
        """
        details = upload.details
        if upload.result is None and details["target"] is None and not details["named"]:
            with suppress(Refusal):
                return self.drive.file_json(self.drive.tree.get(details["about"]["id"]), details["parameters"], origin)
        return upload.result

    def _finish(self, upload: ReceivedUpload, staged: Staged, origin: str) -> dict[str, Any]:
        """Store a completed upload and save its response; cancel the session if it can never succeed."""
        details = upload.details
        try:
            answer = self._store(
                details["target"], details["about"], staged, details["mime"], details["parameters"], origin
            )
        except Refusal as refusal:
            if refusal.status in (404, 409):
                # The folder was deleted or the id is in use: the session cannot succeed any more.
                self.sessions.cancel(upload.id)
            raise
        self.sessions.save_result(upload, answer)
        return answer

    def _store(
        self,
        target: str | None,
        metadata: dict[str, Any],
        staged: Staged,
        mime: str | None,
        parameters: dict[str, str],
        origin: str,
    ) -> dict[str, Any]:
        """Create a file from staged content, or replace the content of the file `target`; return its JSON."""
        if target is None:
            return self.drive.file_json(self.drive.create(dict(metadata), staged, mime), parameters, origin)
        self.drive.tree.replace(target, staged, metadata.get("mime") or mime, metadata.get("modified"))
        file = self.drive.update(target, {**metadata, "modified": None}, parameters)
        return self.drive.file_json(file, parameters, origin)

    async def _answer_batched_call(self, request: web.Request, text: bytes) -> tuple[int, Any]:
        """Carry out one call of a batch; return its status and its JSON."""
        try:
            call = _parse_batched_call(text, self.origin(request))
            calls.count_batched(request, call.method, call.path)
            if self.faults is not None:
                self.faults.apply_to_batched_call()
            answer = await asyncio.to_thread(self.drive.answer, call)
        except Refusal as refusal:
            return refusal.status, refusal.as_google()
        return (204, None) if answer is None else (200, answer)


async def read_json(request: web.Request) -> Any:
    """Read the request's body as JSON; None if it is empty.

    Raises `Refusal`: 400 if it is not JSON, 413 if it is longer than 4 MiB.
    """
    body = b"".join([chunk async for chunk in _limit_json(wire.read_body(request))])
    return parse_json(body)


def parse_json(body: bytes) -> Any:
    """Parse a body as JSON; return None if it is empty. Raises `Refusal` (400) if it is not JSON."""
    if not body.strip():
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "parseError", "The body is not JSON.") from None


async def _first_json(parts: multipart.PartReader) -> Any:
    if await parts.next_headers() is None:
        raise invalid("A multipart upload has two parts: JSON, then the content.")
    return parse_json(b"".join([chunk async for chunk in _limit_json(parts.body())]))


async def _limit_json(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the same chunks. Raises `Refusal` (413) beyond 4 MiB."""
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > _MAX_JSON:
            raise Refusal(413, "uploadTooLarge", f"The JSON is longer than {_MAX_JSON} bytes.")
        yield chunk


async def _decode_part(headers: Message, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield a part's content without its transfer encoding (base64). Raises `Refusal` for an unknown encoding."""
    encoding = str(headers.get("Content-Transfer-Encoding", "binary")).strip().lower()
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
        raise invalid("A part is not valid base64, which its Content-Transfer-Encoding announces.") from None


def _parse_batched_call(text: bytes, origin: str) -> DriveRequest:
    """Parse one part of a batch, an HTTP request. Raises `Refusal` if it is not a Drive v3 call."""
    headers, _, body = text.replace(b"\r\n", b"\n").lstrip(b"\n").partition(b"\n\n")
    words = headers.decode(errors="replace").split("\n", 1)[0].split(" ")
    target = urlsplit(words[1]) if len(words) == 3 else None
    if target is None or not target.path.startswith("/drive/v3/"):
        raise invalid("A part of the batch is not a Drive v3 call.")
    parameters = dict(parse_qsl(target.query, keep_blank_values=True))
    if parameters.get("alt") == "media":
        raise invalid("A batch cannot download content; send calls with alt=media on their own.")
    return DriveRequest(words[0], target.path.removeprefix("/drive/v3/"), origin, parameters, parse_json(body))


def _batch_part(edge: bytes, content_id: str, status: int, answer: Any) -> bytes:
    # Google answers Content-ID `<x>` with `<response-x>`.
    shown = content_id.strip().removeprefix("<").removesuffix(">").replace("\n", "").replace("\r", "")
    body = b"" if answer is None else json.dumps(answer).encode()
    reason = web.Response(status=status).reason
    headers = (
        f"Content-Type: application/http\r\nContent-ID: <response-{shown}>\r\n\r\n"
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json; charset=UTF-8\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return b"--" + edge + b"\r\n" + headers.encode() + body + b"\r\n"
