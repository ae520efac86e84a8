"""What a zip archive holds, by name: read once from its central directory, then opened from a file kept beside it.

An index of a million members is a few arrays that are mapped into memory, not a million objects: opening it takes
milliseconds, processes share its pages, and a `Member` is made when it is asked for. A name is found by its hash among
sorted hashes. The file kept of it is a cache: complete or absent, hashed, tied to the archive's content, and made anew
where it is damaged, of another version or another archive.
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
from haversack.archive.directory import COLUMNS, DEFLATED, LOCAL, STORED, Bytes, read_directory

__all__ = ["DEFLATED", "LOCAL", "STORED", "ArchiveIndex", "ArchiveMember", "Bytes", "open_index", "read_index"]

_MAGIC = b"haversack zip index 1\n"
# The parts of the file begin at multiples of this, so that they can be mapped as arrays.
_ALIGNED = 64


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """One file of an archive. Sizes and offsets are in bytes; `end` is the first offset that is another's."""

    name: str
    size: int
    compressed: int
    offset: int
    end: int
    method: int
    crc: int
    encrypted: bool


class ArchiveIndex(Mapping[str, ArchiveMember]):
    """The files of an archive by name, in the directory's order.

    `columns` has a row of `directory.COLUMNS` for each, `names` their UTF-8 one after the other, `hashes` the sorted
    XXH3 of the names and `rows` whose each is.
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
        """The sum of all files' sizes in bytes."""
        return int(self.columns["size"].sum())

    def row(self, name: str) -> int:
        """The row of `columns` that tells of the file `name`. Raises `KeyError`."""
        try:
            wanted = name.encode()
        except UnicodeEncodeError:
            raise KeyError(name) from None
        hashed = np.uint64(xxhash.xxh3_64_intdigest(wanted))
        for place in range(int(np.searchsorted(self._hashes, hashed)), len(self._hashes)):
            if self._hashes[place] != hashed:
                break
            row = int(self._rows[place])
            if self._name(row) == wanted:
                return row
        raise KeyError(name)

    def member(self, row: int) -> ArchiveMember:
        """The file that a row of `columns` tells of."""
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
        # There may be a million: decoded all at once where every character is one byte.
        return map(names.decode().__getitem__, parts) if names.isascii() else (names[part].decode() for part in parts)

    def __len__(self) -> int:
        return len(self.columns)

    def _name(self, row: int) -> bytes:
        start = int(self.columns["name_end"][row - 1]) if row else 0
        return bytes(self._names[start : int(self.columns["name_end"][row])])

    def save(self, path: Path, content: str) -> None:
        """Keep the index at `path`, for the archive whose content is `content`; complete or absent."""
        parts = [self.columns.tobytes(), self._hashes.tobytes(), self._rows.tobytes()]
        payload = b"".join(map(_padded, parts)) + bytes(self._names)
        header = {
            "content": content,
            "count": len(self),
            "names": len(self._names),
            "hash": xxhash.xxh3_64_hexdigest(payload),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        disk.write(path, _padded(_MAGIC + json.dumps(header).encode() + b"\n") + payload, durable=False)


def read_index(file: Bytes) -> ArchiveIndex:
    """The files of the archive; folders are left out.

    Where a name stands twice, the later one counts, as for every zip tool. Only the archive's end is read.
    Raises `ArchiveInvalid` with the reason.
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
    """The files of the archive, from what is kept of them at `path`; read, and kept there, where that is of no use.

    `content` is a tag that changes with the archive's bytes. A disk that takes no more costs only time, at the next
    opening. Raises as `read_index`.
    """
    kept = _load(path, content)
    if kept is not None:
        return kept
    index = read_index(file)
    try:
        index.save(path, content)
    except OSError:
        return index
    return _load(path, content) or index


def _load(path: Path, content: str) -> ArchiveIndex | None:
    """The index kept at `path` if it is whole and of that content."""
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
        known, hashed = header["content"], header["hash"]
    except (ValueError, KeyError, TypeError):
        return None
    view = memoryview(whole)
    begin = _after(end + 1)
    if known != content or xxhash.xxh3_64_hexdigest(view[begin:]) != hashed:
        return None
    hashes = begin + _after(count * COLUMNS.itemsize)
    rows = hashes + _after(8 * count)
    names = rows + _after(8 * count)
    if count < 0 or names + length != len(view):
        return None
    return ArchiveIndex(
        np.frombuffer(view, COLUMNS, count, begin),
        view[names:],
        cast(NDArray[np.uint64], np.frombuffer(view, "<u8", count, hashes)),
        cast(NDArray[np.int64], np.frombuffer(view, "<i8", count, rows)),
    )


def _after(position: int) -> int:
    """The next place where a part may begin."""
    return -(-position // _ALIGNED) * _ALIGNED


def _padded(data: bytes) -> bytes:
    return data.ljust(_after(len(data)), b"\0")
