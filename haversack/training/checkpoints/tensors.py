"""One file of arrays in the safetensors format, hashed while it is written and while it is read.

Format: https://huggingface.co/docs/safetensors: eight bytes with the length of the header, the header in JSON, then the
arrays one after the other. The safetensors library writes a file in one call and computes no hash, so a gigabyte would
have to be read again to hash it. This module writes the same bytes, and the tests compare it with the library. An array
whose dtype the format does not have is stored as bytes; its dtype is in the header's metadata.

The hash is XXH3 with 128 bits. It detects damage by disks and networks; it is not a signature.

Linux keeps written pages in memory until writeback starts, so a plain write and fsync leaves the disk idle half of the
time. Here writeback is started every few megabytes, and the next bytes are copied and hashed in the meantime. fsync
comes last, and the file is durable only after it.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from haversack.errors import IntegrityError
from haversack.training.checkpoints.failpoints import failpoint
from haversack.training.checkpoints.snapshot import Arrays

_FORMAT_NAMES = {
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
"""numpy's name of a dtype -> the format's."""
_NUMPY_NAMES = {name: numpy_name for numpy_name, name in _FORMAT_NAMES.items()}
_CHUNK = 8 << 20
_SYNC_FILE_RANGE_WRITE = 2
"""Flag of sync_file_range(2): start writeback and do not wait for it."""
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)


@dataclass(frozen=True)
class FileChecksum:
    """What a file must be: its size in bytes and its XXH3 hash, 128 bits in hex."""

    size: int
    xxh3: str


def write(path: Path, arrays: Arrays) -> FileChecksum:
    """Write `arrays` to the new file `path`, fsync it, and return its checksum; the folder is not synced.

    Raises `FileExistsError` if the file exists, and other `OSError`s of the disk.
    """
    # The widest dtype first, so that every array is aligned to its item size.
    ordered = dict(sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])))
    digest, size, flushed = xxhash.xxh3_128(), 0, 0
    with open(path, "xb", buffering=1 << 20) as file:
        for chunk in _chunks(ordered):
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
            if size - flushed >= _CHUNK // 2:
                file.flush()
                _start_writeback(file.fileno(), flushed, size - flushed)
                flushed = size
            failpoint("mid-write")
        file.flush()
        failpoint("before-fsync")
        os.fsync(file.fileno())
    failpoint("after-fsync")
    return FileChecksum(size, digest.hexdigest())


def read(path: Path, expected: FileChecksum) -> Arrays:
    """Return the arrays in the file `path`; they are views of one buffer in memory.

    Raises `IntegrityError` if the file's size or hash is not the `expected` one, `OSError` if it cannot be read.
    """
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size != expected.size:
            raise _damaged(path, f"has {size} bytes instead of {expected.size}")
        digest, descriptor = xxhash.xxh3_128(), file.fileno()
        length = int(_read_hashed(descriptor, 0, 8, digest).view("<u8")[0])
        if length > size - 8:
            raise _damaged(path, "has a header longer than the file")
        header = _read_hashed(descriptor, 8, length, digest).tobytes()
        data = _read_hashed(descriptor, 8 + length, size - 8 - length, digest)
    if digest.hexdigest() != expected.xxh3:
        raise _damaged(path, "does not match its hash")
    return _split(json.loads(header), data)


def _start_writeback(descriptor: int, start: int, count: int) -> None:
    """Ask the kernel to write these bytes to the disk now; does nothing where it cannot, since fsync follows anyway."""
    if _sync_file_range is not None:
        _sync_file_range(descriptor, ctypes.c_int64(start), ctypes.c_int64(count), _SYNC_FILE_RANGE_WRITE)


def _encode_header(arrays: Arrays) -> bytes:
    """Return the length and the JSON header of a file that holds `arrays` in this order, padded to 8 bytes."""
    entries: dict[str, object] = {}
    foreign, at = {}, 0
    for name, array in arrays.items():
        kind, shape = _FORMAT_NAMES.get(array.dtype.name if array.dtype.isnative else ""), list(array.shape)
        if kind is None:
            foreign[name] = _dtype_name(array.dtype)
            kind, shape = "U8", [*shape, array.dtype.itemsize]
        entries[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    if foreign:
        entries["__metadata__"] = {"kinds": json.dumps(foreign)}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _chunks(arrays: Arrays) -> Iterator[memoryview]:
    """Yield the content of the file in chunks; a chunk is valid only until the next one is requested.

    Small arrays are gathered into one chunk: writing and hashing a chunk takes Python's GIL three times, and the
    training loop holds it.
    """
    yield memoryview(_encode_header(arrays))
    buffer, filled = np.empty(_CHUNK, np.uint8).data, 0
    for array in arrays.values():
        flat = memoryview(array.reshape(-1).view(np.uint8).data)
        if filled + len(flat) > _CHUNK:
            yield buffer[:filled]
            filled = 0
        if len(flat) > _CHUNK:
            yield from (flat[start : start + _CHUNK] for start in range(0, len(flat), _CHUNK))
        else:
            buffer[filled : filled + len(flat)] = flat
            filled += len(flat)
    yield buffer[:filled]


def _read_hashed(descriptor: int, start: int, count: int, digest: xxhash.xxh3_128) -> np.ndarray:
    """Return `count` bytes of a file as uint8 and add them to `digest`.

    Two threads read ahead of the hash, since faulting in the pages of a new buffer takes a core by itself.
    """
    buffer = np.empty(count, np.uint8)
    parts = [(buffer.data[at : at + _CHUNK], start + at) for at in range(0, count, _CHUNK)]
    with ThreadPoolExecutor(2) as readers:
        for part in readers.map(lambda part: _read_into(descriptor, *part), parts):
            digest.update(part)
    return buffer


def _read_into(descriptor: int, part: memoryview, start: int) -> memoryview:
    """Fill `part` with the bytes from `start` and return it; at the end of the file the rest stays as it was."""
    at = 0
    while at < len(part) and (count := os.preadv(descriptor, [part[at:]], start + at)):
        at += count
    return part


def _split(header: dict[str, dict[str, Any]], data: np.ndarray) -> Arrays:
    """Return the arrays that `header` describes, as views of `data`."""
    foreign = json.loads(header.pop("__metadata__", {}).get("kinds", "{}"))
    found = {}
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        shape = entry["shape"][:-1] if name in foreign else entry["shape"]
        dtype = _parse_dtype(foreign.get(name) or _NUMPY_NAMES[entry["dtype"]])
        found[name] = data[start:stop].view(dtype).reshape(shape)
    return found


def _dtype_name(dtype: np.dtype) -> str:
    """Return a name from which `_parse_dtype` makes the dtype again; those of ml_dtypes have no `str` of their own."""
    return dtype.str if dtype.isbuiltin == 1 or dtype.kind in "MmUS" or not dtype.isnative else dtype.name


def _parse_dtype(text: str) -> np.dtype:
    try:
        return np.dtype(text)
    except TypeError:
        import ml_dtypes

        dtype: np.dtype = np.dtype(getattr(ml_dtypes, text))
        return dtype


def _damaged(path: Path, fault: str) -> IntegrityError:
    return IntegrityError(f"{path} {fault}.", "Restore another checkpoint.")
