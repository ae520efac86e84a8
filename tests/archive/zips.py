"""Real zip archives of every kind that is read, made by Python's own zipfile, and ways to spoil them."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from pathlib import Path

from haversack.archive.directory import Bytes

FILES = {
    "readme.txt": b"hello\n" * 1000,
    "images/empty.bin": b"",
    "images/noise.bin": random.Random(1).randbytes(300_000),
    "bilder/ärger ☃.txt": b"snow",
}


class InMemory:
    """Bytes in memory, as an archive's file."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.read: list[tuple[int, int]] = []

    @property
    def size(self) -> int:
        return len(self.data)

    def read_at(self, offset: int, size: int) -> bytes:
        self.read.append((offset, size))
        found = self.data[offset : offset + size]
        assert len(found) == size, "read beyond the end"
        return found


class OneWay(io.RawIOBase):
    """A stream that cannot be seeked in, so that zipfile writes data descriptors."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.data += data
        return len(data)


def zipped(files: dict[str, bytes] = FILES, *, method: int = zipfile.ZIP_DEFLATED, comment: bytes = b"") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.comment = comment
    return out.getvalue()


def streamed(files: dict[str, bytes] = FILES) -> bytes:
    out = OneWay()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[arg-type]
        for name, data in files.items():
            archive.writestr(name, data)
    return bytes(out.data)


def zip64(files: dict[str, bytes] = FILES) -> bytes:
    """Every member with zip64 sizes, and a zip64 end."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(data)
        count, offset = len(files), out.tell()
    plain = out.getvalue()
    size = len(plain) - offset - 22
    end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    end += struct.pack("<4sLQL", b"PK\6\7", 0, offset + size, 1)
    end += struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return plain[:-22] + end


def patched(data: bytes, record: bytes, at: int, form: str, value: int | bytes) -> bytes:
    """The archive with one field of the last record of that signature replaced."""
    changed = bytearray(data)
    struct.pack_into(form, changed, data.rindex(record) + at, value)
    return bytes(changed)


def on_disk(folder: Path, data: bytes, name: str = "set.zip") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def as_bytes(data: bytes) -> Bytes:
    return InMemory(data)
