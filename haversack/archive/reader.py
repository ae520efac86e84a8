"""One member of a zip archive, read where it lies: nothing is extracted, and no byte is handed on unchecked to its end.

Stored and deflated members are read (all that Kaggle, `zip`, and this package's own writer make). Encrypted ones and
other methods are refused when they are read, so the rest of such an archive stays of use. ISA-L inflates and
sums, in half of zlib's time.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

from isal import isal_zlib

from haversack.archive.index import DEFLATED, LOCAL, STORED, ArchiveIndex, ArchiveMember, Bytes, open_index, read_index
from haversack.errors import ArchiveInvalid, IntegrityError

_PIECE = 4 << 20
# Its stubs take the exception for an instance.
_DAMAGE = cast(type[Exception], isal_zlib.error)
# Room for a local header's name and extra field, so that a small member comes with its header in one read.
_HEADER_ROOM = 512


class LocalFile:
    """A whole file on this machine, as `Bytes`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "rb")  # noqa: SIM115 - kept open for its owner, who closes it
        self.size = os.fstat(self._file.fileno()).st_size

    def read_at(self, offset: int, size: int) -> bytes:
        data = os.pread(self._file.fileno(), size, offset)
        if len(data) != size:
            raise IntegrityError(f"{self.path} became shorter while it was read.", "Open it again.")
        return data

    def close(self) -> None:
        self._file.close()


class Archive:
    """The members of the zip archive in `file`.

    Its index is kept at `index`, for as long as its bytes are those that `content` stands for; by default it is not
    kept. Raises `ArchiveInvalid` where the archive cannot be read, when its members are first asked for.
    """

    def __init__(self, file: Bytes, index: Path | None = None, content: str = "") -> None:
        self.file = file
        self._index = index
        self._content = content

    @cached_property
    def members(self) -> ArchiveIndex:
        """The files by name, in the archive's order."""
        return read_index(self.file) if self._index is None else open_index(self.file, self._index, self._content)

    def read(self, member: ArchiveMember) -> bytes:
        """The member's bytes, whole and verified. Raises `IntegrityError` where they are not what was promised."""
        if member.end - member.offset > _PIECE:
            return b"".join(self.pieces(member))
        # What is small comes in one read and one call, since a loader asks for it a thousand times a second.
        inflate = _decompressor(member)
        data = next(self._raw(member), b"")
        if inflate is not None:
            try:
                data = inflate.decompress(data, member.size + 1)
            except _DAMAGE as error:
                raise _damaged(member, str(error)) from error
        _check_length(member, len(data), whole=True)
        _check_crc(member, isal_zlib.crc32(data))
        return data

    def open(self, member: ArchiveMember) -> BinaryIO:
        """The member as a binary file object; the CRC is verified when its end is reached.

        It can be seeked in, which for a step back means reading from the member's beginning.
        """
        return cast(BinaryIO, io.BufferedReader(_MemberFile(self, member), buffer_size=1 << 17))

    def pieces(self, member: ArchiveMember) -> Iterator[bytes]:
        """The member's bytes in pieces of at most a few MiB; raises `IntegrityError` at the end if the CRC differs."""
        crc = count = 0
        for piece in self._unpacked(member):
            count += len(piece)
            _check_length(member, count, whole=False)
            crc = isal_zlib.crc32(piece, crc)
            yield piece
        _check_length(member, count, whole=True)
        _check_crc(member, crc)

    def _unpacked(self, member: ArchiveMember) -> Iterator[bytes]:
        inflate = _decompressor(member)
        if inflate is None:
            yield from self._raw(member)
            return
        try:
            for data in self._raw(member):
                while data:
                    yield inflate.decompress(data, _PIECE)
                    data = inflate.unconsumed_tail
            yield inflate.flush()
        except _DAMAGE as error:
            raise _damaged(member, str(error)) from error

    def _raw(self, member: ArchiveMember) -> Iterator[bytes]:
        """The member's bytes as the archive keeps them."""
        head = self.file.read_at(
            member.offset, min(member.end - member.offset, _HEADER_ROOM + member.compressed, _PIECE)
        )
        signature, *_, name_size, extra_size = LOCAL.unpack_from(head)
        start = LOCAL.size + name_size + extra_size
        if signature != b"PK\3\4" or member.offset + start + member.compressed > member.end:
            raise ArchiveInvalid(f"The archive has no member {member.name!r} where it says.", "Fetch it again.")
        first = head[start : start + member.compressed]
        if first:
            yield first
        at, left = member.offset + start + len(first), member.compressed - len(first)
        if start > len(head):
            at = member.offset + start
        while left:
            data = self.file.read_at(at, min(left, _PIECE))
            yield data
            at, left = at + len(data), left - len(data)


class _MemberFile(io.RawIOBase):
    """A member as a raw stream; going back starts it anew, so its CRC always covers what was read."""

    def __init__(self, archive: Archive, member: ArchiveMember) -> None:
        self._archive = archive
        self._member = member
        self.name = member.name
        self._rewind()

    def _rewind(self) -> None:
        self._pieces = self._archive.pieces(self._member)
        self._piece = memoryview(b"")
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._take(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._member.size}[whence]
        target = base + offset
        if target < 0:
            raise ValueError(f"negative seek position {target}")
        if target < self._at:
            self._rewind()
        while self._at < target and self._take(target - self._at):
            continue
        return self._at

    def _take(self, limit: int) -> memoryview:
        """The next bytes, at most `limit`; empty at the end."""
        while not self._piece and (piece := next(self._pieces, None)) is not None:
            self._piece = memoryview(piece)
        data, self._piece = self._piece[:limit], self._piece[limit:]
        self._at += len(data)
        return data


def _decompressor(member: ArchiveMember) -> Any:
    """What inflates the member; None for one that is stored. Raises `ArchiveInvalid` for one that cannot be read."""
    if member.encrypted:
        raise ArchiveInvalid(f"{member.name} is encrypted.", "Ask for an archive without a password.")
    if member.method == DEFLATED:
        return isal_zlib.decompressobj(-isal_zlib.MAX_WBITS)
    if member.method == STORED:
        return None
    raise ArchiveInvalid(
        f"{member.name} is compressed by method {member.method}, which is neither stored nor deflated.",
        "Pack it anew with zip.",
    )


def _check_length(member: ArchiveMember, count: int, *, whole: bool) -> None:
    if count > member.size:
        raise IntegrityError(f"{member.name} is longer than its archive says.", "Fetch the archive again.")
    if whole and count < member.size:
        raise IntegrityError(f"{member.name} ends too early in its archive.", "Fetch the archive again.")


def _check_crc(member: ArchiveMember, crc: int) -> None:
    if crc != member.crc:
        raise _damaged(member, "its CRC differs")


def _damaged(member: ArchiveMember, why: str) -> IntegrityError:
    return IntegrityError(f"{member.name} is damaged: {why}.", "Fetch the archive again.")
