"""The call log: one JSON object per line for each answered call.

    {"at": 1760000000.123, "method": "GET", "route": "files.list", "status": 200, "received": 0, "sent": 512, "ms": 1.9}

`at` is the Unix time at which the call arrived, `ms` the milliseconds until the line was written. `received` and `sent`
are the bytes of the bodies. A broken connection has status 499. The line is written before the response is sent; for a
response that streams a file it is written afterwards. No name, file id or token is logged.

    route                     call
    files.list, about.get …   Drive's method of that name; `files.download` for content
    upload.media              below `/upload`; also `upload.multipart`
    upload.begin              a resumable upload is opened; `upload.chunk` is any request to it
    batch                     a batch; `calls` counts the calls inside it by their routes
    kaggle.GetDataset …       Kaggle's method of that name
    storage, blobs            a download of a data set, a request to an upload for one
    page                      everything else: the web page and signed links to a drive's files
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

_BATCHED_CALLS: web.RequestKey[Counter[str]] = web.RequestKey("calls", Counter)
_UNLOGGED_PREFIX = "/haversack/"
DRIVE_METHODS = {
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
    """A middleware that appends a line to a log file for each call, except those below `/haversack/`."""

    def __init__(self, path: Path) -> None:
        """Open the log at `path` for appending; create it with mode 600. Raises `InputError` if that fails."""
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InputError(
                f"The log {path} cannot be written ({error.strerror}).", "Give another file with --log."
            ) from error

    @web.middleware
    async def middleware(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Let `handler` answer `request`, append the call's line to the log, and return the response.

        Raises `OSError` if the line cannot be written, for example because the disk is full.
        """
        if request.path.startswith(_UNLOGGED_PREFIX):
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
        if calls := request.get(_BATCHED_CALLS):
            line["calls"] = dict(calls)
        os.write(self._file, json.dumps(line).encode() + b"\n")
        return answer

    def close(self) -> None:
        """Close the log file."""
        os.close(self._file)


def count_batched(request: web.Request, method: str, path: str) -> None:
    """Count one call of a batch by its Drive method, for the log line of the batch.

    Args:
        request: the HTTP request that carries the batch.
        method: the call's HTTP method.
        path: the call's path relative to `/drive/v3/`.
    """
    calls = request.get(_BATCHED_CALLS)
    if calls is None:
        calls = request[_BATCHED_CALLS] = Counter()
    calls[drive_method(method, path)] += 1


def drive_method(method: str, path: str) -> str:
    """Return Google's name of the Drive method for an HTTP method and a path below `/drive/v3/`, or "unknown"."""
    parts = path.strip("/").split("/")
    exact = DRIVE_METHODS.get((method, *parts))
    if exact is None and len(parts) > 1:
        exact = DRIVE_METHODS.get((method, parts[0], "", *parts[2:]))
    return exact or "unknown"


def _route(request: web.Request) -> str:
    first, _, rest = request.path.lstrip("/").partition("/")
    match first:
        case "drive":
            route = drive_method(request.method, rest.removeprefix("v3/"))
            return "files.download" if route == "files.get" and request.query.get("alt") == "media" else route
        case "upload":
            kind = request.query.get("uploadType", "media")
            return f"upload.{'chunk' if 'upload_id' in request.query else 'begin' if kind == 'resumable' else kind}"
        case "api" | "v1":
            return "kaggle." + request.path.rpartition("/")[2]
        case "batch" | "storage" | "blobs":
            return first
    return "page"
