"""Arrays in one file of the safetensors format, hashed while they are written and while they are read.

Format: https://huggingface.co/docs/safetensors: eight bytes of length, a JSON header, then the arrays in one row. The
library of that name writes a file in one call without a hash, which would mean reading a gigabyte again; these lines
write the same bytes, and the tests hold them against it. An array of a kind that the format does not know is stored as
its bytes, with its kind in the header's metadata.

The hash is XXH3 with 128 bits. It finds what disks and networks do to bytes; it is no signature.

Linux keeps what is written in memory until it is asked for, so a plain write and fsync leaves the disk idle for half of
the time. Here every few megabytes are sent on their way at once, and the next are copied and hashed meanwhile; fsync
still comes last, and nothing counts as written before it.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from haversack.errors import IntegrityError
from haversack.training.checkpoints.failpoints import failpoint
from haversack.training.checkpoints.snapshot import Arrays

_KINDS = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_PIECE = 8 << 20
_START_WRITING = 2
"""SYNC_FILE_RANGE_WRITE of sync_file_range(2)."""
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)


@dataclass(frozen=True)
class Written:
    """What a file must be: `size` in bytes, `xxh3` its hash in hexadecimal digits."""

    size: int
    xxh3: str


def write(path: Path, arrays: Arrays) -> Written:
    """Write a new file and have the disk keep it. Raises `OSError` as the disk does."""
    # The widest first, so that every array lies at a multiple of its own width.
    ordered = dict(sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])))
    digest, size, started = xxhash.xxh3_128(), 0, 0
    with open(path, "xb", buffering=1 << 20) as file:
        for piece in _pieces(ordered):
            file.write(piece)
            digest.update(piece)
            size += len(piece)
            if size - started >= _PIECE // 2:
                file.flush()
                _start_writing(file.fileno(), started, size - started)
                started = size
            failpoint("mid-write")
        file.flush()
        failpoint("before-fsync")
        os.fsync(file.fileno())
    failpoint("after-fsync")
    return Written(size, digest.hexdigest())


def read(path: Path, expected: Written) -> Arrays:
    """The arrays of a file; they share one piece of memory.

    Raises `IntegrityError` when its bytes are not those that were written, `OSError` when it cannot be read.
    """
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size != expected.size:
            raise _broken(path, f"has {size} bytes instead of {expected.size}")
        digest, descriptor = xxhash.xxh3_128(), file.fileno()
        length = int(_read(descriptor, 0, 8, digest).view("<u8")[0])
        if length > size - 8:
            raise _broken(path, "has a header that cannot be")
        header = _read(descriptor, 8, length, digest).tobytes()
        data = _read(descriptor, 8 + length, size - 8 - length, digest)
    if digest.hexdigest() != expected.xxh3:
        raise _broken(path, "has other bytes than were written")
    return _arrays(json.loads(header), data)


def weigh(path: Path) -> Written:
    """The size and the hash of a file as it is."""
    with open(path, "rb", buffering=0) as file:
        size, digest, room = 0, xxhash.xxh3_128(), memoryview(bytearray(_PIECE))
        while count := file.readinto(room):
            digest.update(room[:count])
            size += count
    return Written(size, digest.hexdigest())


def _start_writing(descriptor: int, start: int, count: int) -> None:
    """Have the disk begin with these bytes. It is a hint: where it is not known or fails, fsync does all the work."""
    if _sync_file_range is not None:
        _sync_file_range(descriptor, ctypes.c_int64(start), ctypes.c_int64(count), _START_WRITING)


def _header(arrays: Arrays) -> bytes:
    entries: dict[str, object] = {}
    foreign, at = {}, 0
    for name, array in arrays.items():
        kind, shape = _KINDS.get(array.dtype.name if array.dtype.isnative else ""), list(array.shape)
        if kind is None:
            foreign[name] = _text_of(array.dtype)
            kind, shape = "U8", [*shape, array.dtype.itemsize]
        entries[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    if foreign:
        entries["__metadata__"] = {"kinds": json.dumps(foreign)}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _pieces(arrays: Arrays) -> Iterator[memoryview]:
    """The file in pieces, each to be done with before the next is asked for.

    Small arrays are gathered: each piece that is written and hashed asks three times for Python's lock, which the loop
    holds.
    """
    yield memoryview(_header(arrays))
    room, filled = np.empty(_PIECE, np.uint8).data, 0
    for array in arrays.values():
        flat = memoryview(array.reshape(-1).view(np.uint8).data)
        if filled + len(flat) > _PIECE:
            yield room[:filled]
            filled = 0
        if len(flat) > _PIECE:
            yield from (flat[start : start + _PIECE] for start in range(0, len(flat), _PIECE))
        else:
            room[filled : filled + len(flat)] = flat
            filled += len(flat)
    yield room[:filled]


def _read(descriptor: int, start: int, count: int, digest: xxhash.xxh3_128) -> np.ndarray:
    """Bytes of a file in new memory. Two threads read while this one hashes: making room in memory takes a core."""
    room = np.empty(count, np.uint8)
    pieces = [(room.data[at : at + _PIECE], start + at) for at in range(0, count, _PIECE)]
    with ThreadPoolExecutor(2) as readers:
        for piece in readers.map(lambda piece: _fill(descriptor, *piece), pieces):
            digest.update(piece)
    return room


def _fill(descriptor: int, piece: memoryview, start: int) -> memoryview:
    at = 0
    while at < len(piece) and (count := os.preadv(descriptor, [piece[at:]], start + at)):
        at += count
    return piece


def _arrays(header: dict[str, dict], data: np.ndarray) -> Arrays:
    foreign = json.loads(header.pop("__metadata__", {}).get("kinds", "{}"))
    found = {}
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        shape = entry["shape"][:-1] if name in foreign else entry["shape"]
        dtype = _dtype(foreign.get(name) or _NAMES[entry["dtype"]])
        found[name] = data[start:stop].view(dtype).reshape(shape)
    return found


def _text_of(dtype: np.dtype) -> str:
    """A name that gives the kind back; the kinds of ml_dtypes have no string of their own."""
    return dtype.str if dtype.isbuiltin == 1 or dtype.kind in "MmUS" or not dtype.isnative else dtype.name


def _dtype(text: str) -> np.dtype:
    try:
        return np.dtype(text)
    except TypeError:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, text))


def _broken(path: Path, how: str) -> IntegrityError:
    return IntegrityError(f"{path} {how}.", "Take another checkpoint.")
