"""File content in and out: hashed while it is written, served with ranges, never a whole large file in memory.

An incoming file is written to a temporary file in `.hub`, fsynced, and renamed to its place when complete, so no
partial file is ever visible. Disk I/O runs in threads: a slow disk delays its own request and no other. Ranges follow
RFC 9110, section 14; a request for several ranges gets the whole file.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from io import FileIO
from pathlib import Path

from aiohttp import web

from haversack.hub import wire
from haversack.hub.refusal import Refusal

BLOCK = 1 << 20
_IN_MEMORY = 1 << 18
# A browser must not run a stored file as a page of the hub's origin.
UNTRUSTED_HEADERS = {
    "Content-Disposition": "attachment",
    "Content-Security-Policy": "sandbox",
    "X-Content-Type-Options": "nosniff",
}
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True)
class Staged:
    """A complete, fsynced temporary file, to be renamed to its place: path, size in bytes, MD5 in hexadecimal."""

    path: Path
    size: int
    md5: str


@dataclass(frozen=True)
class Digests:
    """A file's hashes in hexadecimal; SHA-1 and SHA-256 are None if they were not requested."""

    md5: str
    sha1: str | None = None
    sha256: str | None = None


@contextmanager
def temporary_path(folder: Path) -> Iterator[Path]:
    """Yield a unique path in `folder` for a temporary file, which the caller creates.

    On exit the file is deleted if it is still at that path: rename it elsewhere to keep it.
    """
    path = folder / f"new-{secrets.token_hex(12)}"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


async def write(path: Path, chunks: AsyncIterator[bytes]) -> Staged:
    """Write `chunks` to a new file at `path`, hash and fsync it, and return it as staged.

    A block is written in a thread while the next one is received. Raises `FileExistsError` if `path` exists, other
    `OSError` if the disk fails, and any exception of `chunks`; a partial file can then remain at `path`.
    """
    hasher = hashlib.md5(usedforsecurity=False)
    incoming = rechunked(chunks)
    first = await anext(incoming, b"")
    following = await anext(incoming, None)
    if following is None:
        return await asyncio.to_thread(_write_small, path, first)
    size = 0
    with await asyncio.to_thread(open, path, "xb", 0) as file:

        def hash_and_write(block: bytes) -> None:
            hasher.update(block)
            write_all(file.fileno(), block)

        writing = asyncio.ensure_future(asyncio.to_thread(hash_and_write, first))
        try:
            while following is not None:
                size += len(following)
                await writing
                writing = asyncio.ensure_future(asyncio.to_thread(hash_and_write, following))
                following = await anext(incoming, None)
        finally:
            await writing
        await asyncio.to_thread(os.fsync, file.fileno())
    return Staged(path, len(first) + size, hasher.hexdigest())


def _write_small(path: Path, content: bytes) -> Staged:
    """Do the same as `write` for content of one block, in a single call."""
    with open(path, "xb", 0) as file:
        write_all(file.fileno(), content)
        os.fsync(file.fileno())
    return Staged(path, len(content), hashlib.md5(content, usedforsecurity=False).hexdigest())


def write_all(descriptor: int, block: bytes, offset: int | None = None) -> None:
    """Write all of `block` to a file descriptor at byte `offset`, or at its current position if `offset` is None."""
    left = memoryview(block)
    while left:
        if offset is None:
            written = os.write(descriptor, left)
        else:
            written = os.pwrite(descriptor, left, offset)
            offset += written
        left = left[written:]


async def rechunked(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the bytes of `chunks` in blocks of at least `BLOCK` (1 MiB); the last block may be shorter.

    After a broken connection the bytes received so far are yielded, then the error (`ConnectionError` or aiohttp's
    `RequestPayloadError`) is raised.
    """
    buffer = bytearray()
    error_at_end: ConnectionError | web.RequestPayloadError | None = None
    try:
        async for chunk in chunks:
            buffer += chunk
            if len(buffer) >= BLOCK:
                yield bytes(buffer)
                buffer.clear()
    except (ConnectionError, web.RequestPayloadError) as error:
        error_at_end = error
    if buffer:
        yield bytes(buffer)
    if error_at_end is not None:
        raise error_at_end


def digests(path: Path, *, sha: bool = False) -> Digests:
    """Return the MD5 of the file at `path`, with `sha` also its SHA-1 and SHA-256; the file is read once.

    Raises `OSError` if it cannot be read.
    """
    hashers = [hashlib.new(name, usedforsecurity=False) for name in (("md5", "sha1", "sha256") if sha else ("md5",))]
    with open(path, "rb", buffering=0) as file:
        while block := file.read(BLOCK):
            for hasher in hashers:
                hasher.update(block)
    return Digests(*(hasher.hexdigest() for hasher in hashers))


def stage_file(path: Path) -> Staged:
    """Fsync and hash the existing temporary file at `path`, and return it as staged. Raises `OSError` if that fails."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    return Staged(path, path.stat().st_size, digests(path).md5)


def rename_exclusive(source: Path, target: Path) -> None:
    """Rename a file without replacing an existing one. Raises `FileExistsError` if `target` exists.

    The check is atomic where the file system supports hard links; elsewhere a race with another process is possible.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        # The file system has no hard links: check, then rename.
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        os.rename(source, target)
    else:
        os.unlink(source)


async def send(
    request: web.Request, path: Path, mime: str, *, md5: str | None = None, name: str | None = None
) -> web.StreamResponse:
    """Answer `request` with the file at `path` (200), the requested range (206), or 304 if the client has it.

    Args:
        request: the request; its Range, If-Range and If-None-Match headers are honoured.
        path: the file; a symbolic link is not followed.
        mime: the Content-Type; an invalid one becomes application/octet-stream.
        md5: the file's hash in hexadecimal, for the ETag and the `x-goog-hash` header; None makes the ETag from mtime
            and size.
        name: the file name for the Content-Disposition header, which is `attachment` in any case.

    Raises `Refusal`: 404 if the file does not exist, 416 for a malformed range or one outside the file. Raises
    `OSError` if the file cannot be read, `ConnectionResetError` if it is truncated while it is sent.
    """
    reply = await asyncio.to_thread(_prepare, path, request, mime, md5, name)
    if isinstance(reply, web.Response):
        transport = wire.transport_of(request)
        return reply if transport is None else await transport.send_whole(request, reply)
    try:
        await reply.response.prepare(request)
        if request.method != "HEAD":
            await _send_file(request, reply)
        await reply.response.write_eof()
        return reply.response
    finally:
        reply.file.close()


@dataclass(frozen=True)
class _StreamedFile:
    """A response that is not sent yet; its body is bytes `start` to `stop` (exclusive) of the open `file`."""

    response: web.StreamResponse
    file: FileIO
    start: int
    stop: int


def _prepare(
    path: Path, request: web.Request, mime: str, md5: str | None, name: str | None
) -> web.Response | _StreamedFile:
    """Return the complete response if its body fits in memory (256 KiB) or is empty, else what to stream."""
    file = FileIO(_open(path))
    try:
        status = os.fstat(file.fileno())
        headers = _response_headers(status, mime, md5, name)
        if request.headers.get("If-None-Match") in (headers["ETag"], "*"):
            file.close()
            return web.Response(status=304, headers=headers)
        span = _requested_range(request.headers, headers, status.st_size)
        start, stop = span or (0, status.st_size)
        if span is not None:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{status.st_size}"
        code = 200 if span is None else 206
        if stop - start <= _IN_MEMORY:
            body = os.pread(file.fileno(), stop - start, start)
            file.close()
            if len(body) < stop - start:
                raise ConnectionResetError("the file was truncated while it was sent")
            return web.Response(status=code, headers=headers, body=body)
        headers["Content-Length"] = str(stop - start)
        return _StreamedFile(web.StreamResponse(status=code, headers=headers), file, start, stop)
    except BaseException:
        file.close()
        raise


async def _send_file(request: web.Request, reply: _StreamedFile) -> None:
    transport, count = wire.transport_of(request), reply.stop - reply.start
    if transport is None and request.transport is not None and not request.secure:
        # Zero-copy: the operating system sends the file, no byte passes through this process.
        sent = await asyncio.get_running_loop().sendfile(request.transport, reply.file, reply.start, count)
        if sent < count:
            raise ConnectionResetError("the file was truncated while it was sent")
    elif transport is not None:
        blocks_of_file = _read(reply.file.fileno(), reply.start, reply.stop, wire.BLOCK)
        await transport.send(request, reply.response, blocks_of_file, count)
    else:
        async for block in _read(reply.file.fileno(), reply.start, reply.stop, BLOCK):
            await reply.response.write(block)


async def _read(descriptor: int, start: int, stop: int, size: int) -> AsyncIterator[bytes]:
    while start < stop:
        block = await asyncio.to_thread(os.pread, descriptor, min(size, stop - start), start)
        if not block:
            raise ConnectionResetError("the file was truncated while it was sent")
        yield block
        start += len(block)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, IsADirectoryError):
        raise Refusal(404, "notFound", "The file no longer exists.") from None


def _response_headers(status: os.stat_result, mime: str, md5: str | None, name: str | None) -> dict[str, str]:
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Type": mime
        if re.fullmatch(r"[\w.+-]+/[\w.+-]+(; ?[\w=.\"-]+)*", mime)
        else "application/octet-stream",
        "Last-Modified": formatdate(status.st_mtime, usegmt=True),
        "ETag": f'"{md5}"' if md5 else f'"{status.st_mtime_ns:x}-{status.st_size:x}"',
        **UNTRUSTED_HEADERS,
    }
    if md5:
        headers["x-goog-hash"] = f"md5={base64.b64encode(bytes.fromhex(md5)).decode()}"
    if name:
        plain = re.sub(r"[^ !#-\[\]-~]", "_", name)
        headers["Content-Disposition"] = f'attachment; filename="{plain}"'
    return headers


def _requested_range(
    request_headers: Mapping[str, str], headers: Mapping[str, str], size: int
) -> tuple[int, int] | None:
    """Return the first byte of the requested range and the byte after its last; None means the whole file.

    Raises `Refusal` (416) for a range that is malformed or outside the file's `size` bytes.
    """
    text = request_headers.get("Range", "").strip()
    condition = request_headers.get("If-Range")
    if not text or "," in text or (condition and condition not in (headers["ETag"], headers["Last-Modified"])):
        return None
    found = _RANGE.fullmatch(text)
    if found is None or text == "bytes=-":
        raise _unsatisfiable(f"{text[:100]!r} is not a range like bytes=0-99.", size)
    first, last = found.groups()
    if first:
        start, stop = int(first), min(int(last) + 1, size) if last else size
    else:
        start, stop = max(0, size - int(last)), size
    if start >= stop:
        raise _unsatisfiable(f"The file has {size} bytes; {text} is outside of it.", size)
    return start, stop


def _unsatisfiable(message: str, size: int) -> Refusal:
    """Return a 416 error with the file's size in its Content-Range header."""
    headers = {"Content-Range": f"bytes */{size}"}
    return Refusal(416, "requestedRangeNotSatisfiable", message, where="Range", headers=headers)


def stage_copy(source: Path, target: Path) -> Staged:
    """Copy the file `source` to the new temporary path `target`, fsync and hash the copy, and return it.

    Raises `Refusal` (404) if `source` does not exist, other `OSError` if it cannot be copied.
    """
    try:
        shutil.copyfile(source, target, follow_symlinks=False)
    except FileNotFoundError:
        raise Refusal(404, "notFound", "The file no longer exists.") from None
    return stage_file(target)
