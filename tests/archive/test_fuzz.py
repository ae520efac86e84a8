"""Whatever bytes an archive has: it is read, or refused with a reason, and no member reaches beyond its bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from haversack.archive.index import ArchiveIndex, open_index, read_index
from haversack.archive.reader import Archive
from haversack.errors import ArchiveInvalid, IntegrityError
from tests.archive.zips import InMemory, streamed, zip64, zipped

ARCHIVES = [
    zipped({"a.txt": b"first" * 50, "dir/b.bin": bytes(range(256))}),
    zipped({"a.txt": b"first" * 50, "ü.txt": b""}, method=zipfile.ZIP_STORED, comment=b"PK\5\6"),
    streamed({"a": b"x" * 99, "b": b"y"}),
    zip64({"a": b"x" * 99, "b": b"y" * 7}),
]

many = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
changes = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=8)


def members_of(data: bytes) -> ArchiveIndex | None:
    try:
        return read_index(InMemory(data))
    except ArchiveInvalid:
        return None


def spoiled(data: bytes, at: list[tuple[int, int]], from_end: bool = True) -> bytes:
    changed = bytearray(data)
    for place, byte in at:
        changed[-1 - place % len(data) if from_end else place % len(data)] = byte
    return bytes(changed)


@many
@given(st.binary(max_size=400))
@example(b"PK\5\6" + b"\0" * 18)
@example(b"PK\5\6" + b"\xff" * 16 + b"\0\0")
def test_any_bytes(data: bytes) -> None:
    members_of(data)


@many
@given(st.sampled_from(ARCHIVES), changes)
def test_archive_with_some_bytes_changed(data: bytes, at: list[tuple[int, int]]) -> None:
    data = spoiled(data, at)
    index = members_of(data)
    if index is None:
        return
    archive = Archive(InMemory(data))
    for name, member in index.items():
        assert 0 <= member.offset < member.end <= len(data)
        assert not name.startswith("/")
        assert ".." not in name.split("/")
        try:
            assert len(archive.read(member)) == member.size
        except (ArchiveInvalid, IntegrityError):
            continue


@many
@given(st.sampled_from(ARCHIVES), st.integers(0, 600), st.integers(0, 600))
def test_archive_with_a_piece_cut_out(data: bytes, start: int, length: int) -> None:
    members_of(data[:start] + data[start + length :])


@many
@given(changes)
def test_kept_index_with_some_bytes_changed(tmp_path: Path, at: list[tuple[int, int]]) -> None:
    file, kept = InMemory(ARCHIVES[0]), tmp_path / "index"
    whole = dict(read_index(file))
    kept.unlink(missing_ok=True)
    open_index(file, kept, "content")
    kept.write_bytes(spoiled(kept.read_bytes(), at, from_end=False))
    assert dict(open_index(file, kept, "content")) == whole
