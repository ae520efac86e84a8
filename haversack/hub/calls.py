"""A log of the calls that were answered, for whoever counts them: one JSON object per line.

    {"at": 1760000000.123, "method": "GET", "route": "files.list", "status": 200, "received": 0, "sent": 512, "ms": 1.9}

`route` is Google's name of the call; below `/upload` it is `upload.media`, `upload.multipart`, `upload.begin` (of a
resumable one) and `upload.chunk`, a download is `files.download`. A batch is one line, with its calls in `calls`.
`received` and `sent` count the bytes of bodies. A connection that was cut has status 499. A line is written before its
answer leaves, or, where the answer is a file's bytes, when they were sent. Neither names, ids nor tokens are written.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from haversack.errors import InputError

_CALLS: web.RequestKey[Counter[str]] = web.RequestKey("calls", Counter)
_WITHOUT_LOG = "/haversack/"
OF_DRIVE = {
    ("GET", "about"): "about.get",
    ("GET", "files"): "files.list",
    ("POST", "files"): "files.create",
    ("GET", "files", "generateIds"): "files.generateIds",
    ("DELETE", "files", "trash"): "files.emptyTrash",
    ("GET", "files", ""): "files.get",
    ("PATCH", "files", ""): "files.update",
    ("DELETE", "files", ""): "files.delete",
    ("POST", "files", "", "copy"): "files.copy",
    ("GET", "files", "", "export"): "files.export",
    ("GET", "changes"): "changes.list",
    ("GET", "changes", "startPageToken"): "changes.getStartPageToken",
    ("GET", "drives"): "drives.list",
}


class CallLog:
    """The file, appended to; a middleware."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InputError(f"The log {path} cannot be written ({error.strerror}).", "Name another file.") from error

    @web.middleware
    async def middleware(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.path.startswith(_WITHOUT_LOG):
            return await handler(request)
        at, started = time.time(), time.perf_counter()
        answer = await handler(request)
        line = {
            "at": round(at, 3),
            "method": request.method,
            "route": _route(request),
            "status": answer.status,
            "received": request.content.total_bytes,
            "sent": answer.content_length or 0,
            "ms": round((time.perf_counter() - started) * 1000, 3),
        }
        if calls := request.get(_CALLS):
            line["calls"] = dict(calls)
        os.write(self._file, json.dumps(line).encode() + b"\n")
        return answer

    def close(self) -> None:
        os.close(self._file)


def note(request: web.Request, method: str, path: str) -> None:
    """Count one call of a batch."""
    calls = request.get(_CALLS)
    if calls is None:
        calls = request[_CALLS] = Counter()
    calls[of_drive(method, path)] += 1


def of_drive(method: str, path: str) -> str:
    """Google's name of a call by its path below `/drive/v3/`."""
    parts = path.strip("/").split("/")
    exact = OF_DRIVE.get((method, *parts))
    if exact is None and len(parts) > 1:
        exact = OF_DRIVE.get((method, parts[0], "", *parts[2:]))
    return exact or "unknown"


def _route(request: web.Request) -> str:
    first, _, rest = request.path.lstrip("/").partition("/")
    match first:
        case "drive":
            route = of_drive(request.method, rest.removeprefix("v3/"))
            return "files.download" if route == "files.get" and request.query.get("alt") == "media" else route
        case "upload":
            kind = request.query.get("uploadType", "media")
            return f"upload.{'chunk' if 'upload_id' in request.query else 'begin' if kind == 'resumable' else kind}"
        case "api" | "v1":
            return "kaggle." + request.path.rpartition("/")[2]
        case "batch" | "storage" | "blobs":
            return first
    return "page"
