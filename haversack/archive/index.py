"""The index of a zip archive: its files by name, parsed once from the central directory and cached in an index file.

An index of a million members is a few memory-mapped arrays, not a million objects: it opens in milliseconds, processes
share its pages, and an `ArchiveMember` is created on access. A name is found by binary search in the sorted hashes of
all names.

The index file is a cache. It is written by atomic replace, has a hash of its bytes, and names the archive content that
it describes. A file that is damaged, has another format version or describes other content is ignored and rewritten.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import xxhash
from numpy.typing import NDArray

from haversack import disk
from haversack.archive.directory import COLUMNS, Bytes, read_directory

_MAGIC = b"haversack zip index 1\n"
# Each section of the index file starts at a multiple of this, so that it can be mapped as an array.
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """One file of an archive. Sizes and offsets are in bytes.

    Attributes:
        name: the full name, with slashes.
        size: the uncompressed size.
        compressed: the compressed size.
        offset: where the member's local header starts in the archive.
        end: where the next member, or else the central directory, starts.
        method: the compression method (APPNOTE 4.4.5): 0 is stored, 8 deflated.
        crc: the CRC-32 of the uncompressed bytes.
        encrypted: whether a password is needed to read it.
    """

    name: str
    size: int
    compressed: int
    offset: int
    end: int
    method: int
    crc: int
    encrypted: bool


class ArchiveIndex(Mapping[str, ArchiveMember]):
    """An immutable mapping of file names to `ArchiveMember`, in the order of the central directory. Thread-safe.

    Args:
        columns: a structured array of dtype `directory.COLUMNS`, one row per file; also an attribute.
        names: the UTF-8 names of all rows, concatenated (bytes or a memoryview).
        hashes: the 64-bit XXH3 hashes of the names, sorted.
        rows: for each of `hashes`, the row of its file in `columns`.
    """

    def __init__(
        self, columns: NDArray[np.void], names: Any, hashes: NDArray[np.uint64], rows: NDArray[np.int64]
    ) -> None:
        self.columns = columns
        self._names = names
        self._hashes = hashes
        self._rows = rows

    @property
    def size(self) -> int:
        """The sum of the uncompressed sizes of all files, in bytes."""
        return int(self.columns["size"].sum())

    def row(self, name: str) -> int:
        """Return the row of the file `name` in `columns`. Raises `KeyError` if there is none."""
        try:
            encoded = name.encode()
        except UnicodeEncodeError:
            raise KeyError(name) from None
        hashed = np.uint64(xxhash.xxh3_64_intdigest(encoded))
        for place in range(int(np.searchsorted(self._hashes, hashed)), len(self._hashes)):
            if self._hashes[place] != hashed:
                break
            row = int(self._rows[place])
            if self._name(row) == encoded:
                return row
        raise KeyError(name)

    def member(self, row: int) -> ArchiveMember:
        """Return the file in row `row` of `columns`. Raises `IndexError` if there is no such row."""
        offset, end, size, compressed, _, crc, method, encrypted, _ = self.columns[row].item()
        return ArchiveMember(self._name(row).decode(), size, compressed, offset, end, method, crc, encrypted)

    def __getitem__(self, name: str) -> ArchiveMember:
        return self.member(self.row(name))

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and self.row(name) >= 0
        except KeyError:
            return False

    def __iter__(self) -> Iterator[str]:
        names, ends = bytes(self._names), self.columns["name_end"].tolist()
        parts = map(slice, [0, *ends[:-1]], ends)
        # Fast path for a million ASCII names: byte offsets are character offsets, so decode all names in one call.
        return map(names.decode().__getitem__, parts) if names.isascii() else (names[part].decode() for part in parts)

    def __len__(self) -> int:
        return len(self.columns)

    def _name(self, row: int) -> bytes:
        start = int(self.columns["name_end"][row - 1]) if row else 0
        return bytes(self._names[start : int(self.columns["name_end"][row])])

    def save(self, path: Path, content: str) -> None:
        """Write the index file `path` by atomic replace; create its folder if it is missing.

        `content` is a tag that changes with the archive's bytes; `open_index` accepts the file only with an equal tag.
        Raises `OSError` if it cannot be written.
        """
        parts = [self.columns.tobytes(), self._hashes.tobytes(), self._rows.tobytes()]
        payload = b"".join(map(_pad, parts)) + bytes(self._names)
        header = {
            "content": content,
            "count": len(self),
            "names": len(self._names),
            "hash": xxhash.xxh3_64_hexdigest(payload),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        disk.write(path, _pad(_MAGIC + json.dumps(header).encode() + b"\n") + payload, durable=False)


def read_index(file: Bytes) -> ArchiveIndex:
    """Index the archive's files, without folders; only the central directory is read.

    Of several members with one name the last one counts, as in other zip tools. Raises `ArchiveInvalid` if the
    central directory is invalid (see `directory.read_directory`). Errors of `file.read_at` pass through.
    """
    directory = read_directory(file)
    kept = [row for row, name in enumerate(directory.names) if not name.endswith(b"/")]
    columns, names = directory.columns, directory.names
    if len(kept) < len(names):
        columns, names = columns[kept], [names[row] for row in kept]
    latest = {name: row for row, name in enumerate(names)}
    if len(latest) < len(names):
        kept = sorted(latest.values())
        columns, names = columns[kept], [names[row] for row in kept]
    columns["name_end"] = np.cumsum(np.fromiter(map(len, names), np.int64, len(names)))
    hashes = np.fromiter(map(xxhash.xxh3_64_intdigest, names), np.uint64, len(names))
    rows = np.argsort(hashes, kind="stable")
    return ArchiveIndex(columns, b"".join(names), hashes[rows], rows)


def open_index(file: Bytes, path: Path, content: str) -> ArchiveIndex:
    """Return the archive's index: from the index file at `path`, else from the central directory of `file`.

    The index file is used if it is intact and was saved with an equal `content`, a tag that changes with the archive's
    bytes; otherwise it is written anew. If it cannot be written, the index is returned all the same. Raises
    `ArchiveInvalid` if the central directory is invalid. Errors of `file.read_at` pass through.
    """
    cached = _load(path, content)
    if cached is not None:
        return cached
    index = read_index(file)
    try:
        index.save(path, content)
    except OSError:
        return index
    return _load(path, content) or index


def _load(path: Path, content: str) -> ArchiveIndex | None:
    """Map the index file at `path`; None unless it is intact and its content tag is `content`."""
    try:
        with open(path, "rb") as file:
            whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return None
    end = whole.find(b"\n", len(_MAGIC), 1 << 16)
    if whole[: len(_MAGIC)] != _MAGIC or end < 0:
        return None
    try:
        header = json.loads(whole[len(_MAGIC) : end])
        count, length = int(header["count"]), int(header["names"])
        stored_content, stored_hash = header["content"], header["hash"]
    except (ValueError, KeyError, TypeError):
        return None
    view = memoryview(whole)
    start = _align(end + 1)
    if stored_content != content or xxhash.xxh3_64_hexdigest(view[start:]) != stored_hash:
        return None
    hashes = start + _align(count * COLUMNS.itemsize)
    rows = hashes + _align(8 * count)
    names = rows + _align(8 * count)
    if count < 0 or names + length != len(view):
        return None
    return ArchiveIndex(
        np.frombuffer(view, COLUMNS, count, start),
        view[names:],
        cast(NDArray[np.uint64], np.frombuffer(view, "<u8", count, hashes)),
        cast(NDArray[np.int64], np.frombuffer(view, "<i8", count, rows)),
    )


def _align(position: int) -> int:
    """Round `position` up to a multiple of `_ALIGNMENT`."""
    return -(-position // _ALIGNMENT) * _ALIGNMENT


def _pad(data: bytes) -> bytes:
    return data.ljust(_align(len(data)), b"\0")
