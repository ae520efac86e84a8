"""Bytes in and out: written aside and hashed on the way in, ranges on the way out, never a whole file in memory.

A file that comes in is written to a folder of its own beside the tree, synced, and only then renamed to its place, so
that nothing half-written is ever in sight. Disk work runs in threads; a slow disk holds up one request, not the others.
Answers with ranges follow RFC 9110, section 14; of several ranges in one request none is served singly, the whole is.
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
_FEW = 1 << 18
# What a user stored is never run by a browser as a page of the hub's own.
OF_USERS = {
    "Content-Disposition": "attachment",
    "Content-Security-Policy": "sandbox",
    "X-Content-Type-Options": "nosniff",
}
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True)
class Staged:
    """Bytes that lie aside, whole and synced. `md5` as hex digits."""

    path: Path
    size: int
    md5: str


@dataclass(frozen=True)
class Digests:
    """Hashes of a file's content as hex digits; SHA-1 and SHA-256 only where they were asked for."""

    md5: str
    sha1: str | None = None
    sha256: str | None = None


@contextmanager
def aside(folder: Path) -> Iterator[Path]:
    """A path for a new file in `folder`; what still lies there at the end is removed."""
    path = folder / f"new-{secrets.token_hex(12)}"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


async def write(path: Path, chunks: AsyncIterator[bytes]) -> Staged:
    """Write what arrives to `path`, synced. What is hashed and written is one block behind what arrives."""
    hasher = hashlib.md5(usedforsecurity=False)
    arriving = blocks(chunks)
    first = await anext(arriving, b"")
    following = await anext(arriving, None)
    if following is None:
        return await asyncio.to_thread(_written, path, first)
    size = 0
    with await asyncio.to_thread(open, path, "xb", 0) as file:

        def put(block: bytes) -> None:
            hasher.update(block)
            write_all(file.fileno(), block)

        behind = asyncio.ensure_future(asyncio.to_thread(put, first))
        try:
            while following is not None:
                size += len(following)
                await behind
                behind = asyncio.ensure_future(asyncio.to_thread(put, following))
                following = await anext(arriving, None)
        finally:
            await behind
        await asyncio.to_thread(sync, file.fileno())
    return Staged(path, len(first) + size, hasher.hexdigest())


def _written(path: Path, content: bytes) -> Staged:
    with open(path, "xb", 0) as file:
        write_all(file.fileno(), content)
        sync(file.fileno())
    return Staged(path, len(content), hashlib.md5(content, usedforsecurity=False).hexdigest())


def write_all(descriptor: int, block: bytes, offset: int | None = None) -> None:
    """Write the whole of `block`, at the file's own position where no `offset` is given."""
    left = memoryview(block)
    while left:
        if offset is None:
            written = os.write(descriptor, left)
        else:
            written = os.pwrite(descriptor, left, offset)
            offset += written
        left = left[written:]


async def blocks(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in pieces worth a trip to a thread."""
    waiting = bytearray()
    broken: ConnectionError | web.RequestPayloadError | None = None
    try:
        async for chunk in chunks:
            waiting += chunk
            if len(waiting) >= BLOCK:
                yield bytes(waiting)
                waiting.clear()
    except (ConnectionError, web.RequestPayloadError) as error:
        broken = error
    if waiting:
        yield bytes(waiting)
    if broken is not None:
        raise broken


def sync(descriptor: int) -> None:
    os.fsync(descriptor)


def digests(path: Path, *, sha: bool = False) -> Digests:
    """A file's hashes, of all in one reading."""
    hashers = [hashlib.new(name, usedforsecurity=False) for name in (("md5", "sha1", "sha256") if sha else ("md5",))]
    with open(path, "rb", buffering=0) as file:
        while block := file.read(BLOCK):
            for hasher in hashers:
                hasher.update(block)
    return Digests(*(hasher.hexdigest() for hasher in hashers))


def staged(path: Path) -> Staged:
    """A file that lies aside, hashed and synced."""
    with open(path, "rb") as file:
        sync(file.fileno())
    return Staged(path, path.stat().st_size, digests(path).md5)


def rename_new(source: Path, target: Path) -> None:
    """Rename a file, never over one that is there. Raises `FileExistsError`."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        # A file system without hard links: the check and the rename are two steps there.
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        os.rename(source, target)
    else:
        os.unlink(source)


async def send(
    request: web.Request, path: Path, mime: str, *, md5: str | None = None, name: str | None = None
) -> web.StreamResponse:
    """Answer with a file's bytes, or with the range that was asked for.

    `md5` becomes the entity tag and Google storage's hash header. Raises `Refusal` for a range that cannot be served.
    """
    reply = await asyncio.to_thread(_begun, path, request, mime, md5, name)
    if isinstance(reply, web.Response):
        way = wire.of(request)
        return reply if way is None else await way.send_whole(request, reply)
    try:
        await reply.response.prepare(request)
        if request.method != "HEAD":
            await _copy(request, reply)
        await reply.response.write_eof()
        return reply.response
    finally:
        reply.file.close()


@dataclass(frozen=True)
class _Large:
    """An answer whose bytes are still to be sent: those of `file` from `start` to `stop`."""

    response: web.StreamResponse
    file: FileIO
    start: int
    stop: int


def _begun(path: Path, request: web.Request, mime: str, md5: str | None, name: str | None) -> web.Response | _Large:
    """The answer, with its bytes where they are few."""
    file = FileIO(_open(path))
    try:
        status = os.fstat(file.fileno())
        headers = _headers(status, mime, md5, name)
        if request.headers.get("If-None-Match") in (headers["ETag"], "*"):
            file.close()
            return web.Response(status=304, headers=headers)
        span = _span(request.headers, headers, status.st_size)
        start, stop = span or (0, status.st_size)
        if span is not None:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{status.st_size}"
        code = 200 if span is None else 206
        if stop - start <= _FEW:
            body = os.pread(file.fileno(), stop - start, start)
            file.close()
            if len(body) < stop - start:
                raise ConnectionResetError("the file became shorter while it was sent")
            return web.Response(status=code, headers=headers, body=body)
        headers["Content-Length"] = str(stop - start)
        return _Large(web.StreamResponse(status=code, headers=headers), file, start, stop)
    except BaseException:
        file.close()
        raise


async def _copy(request: web.Request, reply: _Large) -> None:
    way, count = wire.of(request), reply.stop - reply.start
    if way is None and request.transport is not None and not request.secure:
        # The system copies from file to connection, and no byte passes through this process.
        sent = await asyncio.get_running_loop().sendfile(request.transport, reply.file, reply.start, count)
        if sent < count:
            raise ConnectionResetError("the file became shorter while it was sent")
    elif way is not None:
        blocks_of_file = _read(reply.file.fileno(), reply.start, reply.stop, wire.BLOCK)
        await way.send(request, reply.response, blocks_of_file, count)
    else:
        async for block in _read(reply.file.fileno(), reply.start, reply.stop, BLOCK):
            await reply.response.write(block)


async def _read(descriptor: int, start: int, stop: int, size: int) -> AsyncIterator[bytes]:
    while start < stop:
        block = await asyncio.to_thread(os.pread, descriptor, min(size, stop - start), start)
        if not block:
            raise ConnectionResetError("the file became shorter while it was sent")
        yield block
        start += len(block)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, IsADirectoryError):
        raise Refusal(404, "notFound", "The file is gone.") from None


def _headers(status: os.stat_result, mime: str, md5: str | None, name: str | None) -> dict[str, str]:
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Type": mime
        if re.fullmatch(r"[\w.+-]+/[\w.+-]+(; ?[\w=.\"-]+)*", mime)
        else "application/octet-stream",
        "Last-Modified": formatdate(status.st_mtime, usegmt=True),
        "ETag": f'"{md5}"' if md5 else f'"{status.st_mtime_ns:x}-{status.st_size:x}"',
        **OF_USERS,
    }
    if md5:
        headers["x-goog-hash"] = f"md5={base64.b64encode(bytes.fromhex(md5)).decode()}"
    if name:
        plain = re.sub(r"[^ !#-\[\]-~]", "_", name)
        headers["Content-Disposition"] = f'attachment; filename="{plain}"'
    return headers


def _span(asked: Mapping[str, str], headers: Mapping[str, str], size: int) -> tuple[int, int] | None:
    """First byte and the one behind the last; None for the whole."""
    text = asked.get("Range", "").strip()
    condition = asked.get("If-Range")
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
        raise _unsatisfiable(f"The file has {size} bytes; {text} lies outside.", size)
    return start, stop


def _unsatisfiable(message: str, size: int) -> Refusal:
    """416, which also tells the size."""
    headers = {"Content-Range": f"bytes */{size}"}
    return Refusal(416, "requestedRangeNotSatisfiable", message, where="Range", headers=headers)


def copied(source: Path, target: Path) -> Staged:
    """A copy of a file, aside."""
    try:
        shutil.copyfile(source, target, follow_symlinks=False)
    except FileNotFoundError:
        raise Refusal(404, "notFound", "The file is gone.") from None
    return staged(target)
