"""Reading members of a zip archive in place, without extraction; size and CRC are verified at a member's end.

Stored and deflated members are supported: Kaggle, `zip` and `archive.writer` create no others. A member that is
encrypted or has another method is refused when it is read, so the rest of its archive remains usable. ISA-L inflates
and computes CRCs in half of zlib's time.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

from isal import isal_zlib

from haversack.archive.directory import DEFLATED, LOCAL, STORED, Bytes
from haversack.archive.index import ArchiveIndex, ArchiveMember, open_index, read_index
from haversack.errors import ArchiveInvalid, IntegrityError

_PIECE_SIZE = 4 << 20
# isal's stubs declare this exception class as an instance.
_InflateError = cast(type[Exception], isal_zlib.error)
# Bytes to read for a local header, so that one read covers the header and a small member.
_HEADER_ESTIMATE = 512


class LocalFile:
    """The local file `path` as `directory.Bytes`: readable at any offset, thread-safe, open until `close`.

    Raises `OSError` if it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "rb")  # noqa: SIM115 - `close` closes it
        self.size = os.fstat(self._file.fileno()).st_size

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes from `offset`. Raises `IntegrityError` if the file is too short."""
        data = os.pread(self._file.fileno(), size, offset)
        if len(data) != size:
            raise IntegrityError(f"{self.path} was truncated while it was being read.", "Open it again.")
        return data

    def close(self) -> None:
        self._file.close()


class Archive:
    """Reads the members of the zip archive in `file`. Nothing is read before the first access to `members`.

    Args:
        file: the archive's bytes. The caller closes it.
        index: the path of the index file, a cache of `members`; None for no cache.
        content: a tag that changes with the archive's bytes; an index file with another tag is stale.
    """

    def __init__(self, file: Bytes, index: Path | None = None, content: str = "") -> None:
        self.file = file
        self._index = index
        self._content = content

    @cached_property
    def members(self) -> ArchiveIndex:
        """The archive's files by name, in the order of the central directory.

        The first access reads it, or the index file, and raises `ArchiveInvalid` if the archive is invalid.
        """
        return read_index(self.file) if self._index is None else open_index(self.file, self._index, self._content)

    def read(self, member: ArchiveMember) -> bytes:
        """Return the member's uncompressed bytes, verified.

        Raises `IntegrityError` if the data, its size or its CRC is wrong; `ArchiveInvalid` if the member is encrypted,
        is neither stored nor deflated, or its local header is not where the central directory says.
        """
        if member.end - member.offset > _PIECE_SIZE:
            return b"".join(self.pieces(member))
        # Fast path: one read and one inflate call. An image loader reads a thousand small members a second.
        inflate = _decompressor(member)
        # One piece, unless the local header is longer than estimated.
        data = b"".join(self._compressed_pieces(member))
        if inflate is not None:
            try:
                data = inflate.decompress(data, member.size + 1)
            except _InflateError as error:
                raise _damaged(member, str(error)) from error
        _check_length(member, len(data), whole=True)
        _check_crc(member, isal_zlib.crc32(data))
        return data

    def open(self, member: ArchiveMember) -> BinaryIO:
        """Return the member's uncompressed bytes as a seekable, buffered binary file object.

        Seeking backwards decompresses the member again from its start. Its reads raise `IntegrityError` for damaged
        data or a wrong size, and at the end for a wrong CRC; `ArchiveInvalid` if the member is encrypted, is neither
        stored nor deflated, or its local header is not where the central directory says.
        """
        return cast(BinaryIO, io.BufferedReader(_MemberFile(self, member), buffer_size=1 << 17))

    def pieces(self, member: ArchiveMember) -> Iterator[bytes]:
        """Yield the member's uncompressed bytes in pieces of at most 4 MiB.

        Raises `IntegrityError` for damaged data or a wrong size, and after the last piece for a wrong CRC;
        `ArchiveInvalid` if the member is encrypted, is neither stored nor deflated, or its local header is not where
        the central directory says.
        """
        crc = count = 0
        for piece in self._uncompressed_pieces(member):
            count += len(piece)
            _check_length(member, count, whole=False)
            crc = isal_zlib.crc32(piece, crc)
            yield piece
        _check_length(member, count, whole=True)
        _check_crc(member, crc)

    def _uncompressed_pieces(self, member: ArchiveMember) -> Iterator[bytes]:
        inflate = _decompressor(member)
        if inflate is None:
            yield from self._compressed_pieces(member)
            return
        try:
            for data in self._compressed_pieces(member):
                while data:
                    yield inflate.decompress(data, _PIECE_SIZE)
                    data = inflate.unconsumed_tail
            yield inflate.flush()
        except _InflateError as error:
            raise _damaged(member, str(error)) from error

    def _compressed_pieces(self, member: ArchiveMember) -> Iterator[bytes]:
        """Yield the member's bytes as they are in the archive.

        The first piece comes from the read that covers the local header. Raises `ArchiveInvalid` if there is no local
        header at the member's offset, or if the member reaches into the next one.
        """
        head = self.file.read_at(
            member.offset, min(member.end - member.offset, _HEADER_ESTIMATE + member.compressed, _PIECE_SIZE)
        )
        signature, *_, name_size, extra_size = LOCAL.unpack_from(head)
        start = LOCAL.size + name_size + extra_size
        if signature != b"PK\3\4" or member.offset + start + member.compressed > member.end:
            raise ArchiveInvalid(
                f"The archive has no member {member.name!r} where it says.", "Fetch the archive again."
            )
        first = head[start : start + member.compressed]
        if first:
            yield first
        at, left = member.offset + start + len(first), member.compressed - len(first)
        if start > len(head):
            at = member.offset + start
        while left:
            data = self.file.read_at(at, min(left, _PIECE_SIZE))
            yield data
            at, left = at + len(data), left - len(data)


class _MemberFile(io.RawIOBase):
    """The uncompressed bytes of `member` as an unbuffered, seekable stream.

    A backward seek restarts the decompression, so that the CRC at the end always covers all bytes.
    """

    def __init__(self, archive: Archive, member: ArchiveMember) -> None:
        self._archive = archive
        self._member = member
        self.name = member.name
        self._rewind()

    def _rewind(self) -> None:
        self._pieces = self._archive.pieces(self._member)
        self._piece = memoryview(b"")
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._next_bytes(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._member.size}[whence]
        target = base + offset
        if target < 0:
            raise ValueError(f"negative seek position {target}")
        if target < self._position:
            self._rewind()
        while self._position < target and self._next_bytes(target - self._position):
            continue
        return self._position

    def _next_bytes(self, limit: int) -> memoryview:
        """Return the next bytes, at most `limit`; empty only at the end."""
        while not self._piece and (piece := next(self._pieces, None)) is not None:
            self._piece = memoryview(piece)
        data, self._piece = self._piece[:limit], self._piece[limit:]
        self._position += len(data)
        return data


def _decompressor(member: ArchiveMember) -> Any:
    """Return an inflating object, or None for a stored member.

    Raises `ArchiveInvalid` for a member that is encrypted or has another compression method.
    """
    if member.encrypted:
        raise ArchiveInvalid(f"{member.name} is encrypted.", "Ask for an archive without a password.")
    if member.method == DEFLATED:
        return isal_zlib.decompressobj(-isal_zlib.MAX_WBITS)
    if member.method == STORED:
        return None
    raise ArchiveInvalid(
        f"{member.name} is compressed by method {member.method}; only stored and deflated members can be read.",
        "Pack the archive again with zip.",
    )


def _check_length(member: ArchiveMember, count: int, *, whole: bool) -> None:
    """Raise `IntegrityError` if `count` bytes are too many, or, with `whole`, too few."""
    if count > member.size:
        raise IntegrityError(f"{member.name} is longer than its archive says.", "Fetch the archive again.")
    if whole and count < member.size:
        raise IntegrityError(f"{member.name} ends too early in its archive.", "Fetch the archive again.")


def _check_crc(member: ArchiveMember, crc: int) -> None:
    if crc != member.crc:
        raise _damaged(member, "its CRC differs")


def _damaged(member: ArchiveMember, reason: str) -> IntegrityError:
    return IntegrityError(f"{member.name} is damaged: {reason}.", "Fetch the archive again.")
