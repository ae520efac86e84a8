from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import xxhash

from haversack.errors import IntegrityError
from haversack.training.checkpoints import tensors

KINDS: list[Any] = [
    "f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?", ">f4", "c8", "c16", "M8[ns]", "m8[s]", "U5",
    "S3", ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2,
    ml_dtypes.float8_e4m3b11fnuz, ml_dtypes.int4,
]  # fmt: skip


def of_kind(kind: Any, *shape: int) -> np.ndarray:
    dtype = np.dtype(kind)
    if dtype == ml_dtypes.int4 or dtype.kind in "?bU":
        return np.ones(shape, dtype)
    count = int(np.prod(shape)) * dtype.itemsize
    return np.random.default_rng(0).integers(0, 255, count, np.uint8).view(dtype).reshape(shape)


def checksum(path: Path) -> tensors.FileChecksum:
    content = path.read_bytes()
    return tensors.FileChecksum(len(content), xxhash.xxh3_128_hexdigest(content))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_kind_comes_back_bit_by_bit(tmp_path: Path, kind: Any) -> None:
    arrays = {"one": of_kind(kind, 3, 5), "none": of_kind(kind, 0, 2), "single": of_kind(kind, 1).reshape(())}
    back = tensors.read(tmp_path / "file", tensors.write(tmp_path / "file", arrays))
    for name, array in arrays.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        assert back[name].tobytes() == array.tobytes()


def test_the_library_of_the_format_reads_the_same(tmp_path: Path) -> None:
    arrays = {"a/b": of_kind("f4", 3, 5), "c": of_kind("u1", 7), "é": of_kind(ml_dtypes.bfloat16, 2, 2)}
    tensors.write(tmp_path / "file", arrays)
    back = safetensors.numpy.load_file(tmp_path / "file")
    assert {name: array.tobytes() for name, array in back.items()} == {n: a.tobytes() for n, a in arrays.items()}


def test_what_the_library_wrote_is_read(tmp_path: Path) -> None:
    arrays = {"a": of_kind("f4", 3, 5), "b": of_kind("i8", 7)}
    safetensors.numpy.save_file(arrays, tmp_path / "theirs")
    back = tensors.read(tmp_path / "theirs", checksum(tmp_path / "theirs"))
    assert back["a"].tobytes() == arrays["a"].tobytes()


def test_arrays_lie_at_multiples_of_their_width(tmp_path: Path) -> None:
    arrays = {"a": of_kind("u1", 3), "b": of_kind("f8", 3), "c": of_kind("f2", 1)}
    back = tensors.read(tmp_path / "file", tensors.write(tmp_path / "file", arrays))
    assert all(array.flags.aligned for array in back.values())


def test_no_arrays_are_a_file_too(tmp_path: Path) -> None:
    assert tensors.read(tmp_path / "file", tensors.write(tmp_path / "file", {})) == {}


def test_arrays_of_many_megabytes_come_back(tmp_path: Path) -> None:
    arrays = {name: np.random.default_rng(0).random(3_000_001) for name in "ab"}
    written = tensors.write(tmp_path / "file", {**arrays, "small": np.ones(3)})
    back = tensors.read(tmp_path / "file", written)
    assert all((back[name] == array).all() for name, array in arrays.items())
    assert checksum(tmp_path / "file") == written


def test_a_file_whose_second_half_was_never_written_is_found(tmp_path: Path) -> None:
    written = tensors.write(tmp_path / "file", {"a": np.ones(2_000_000)})
    content = (tmp_path / "file").read_bytes()
    (tmp_path / "file").write_bytes(content[: len(content) // 2])
    (tmp_path / "file").open("r+b").truncate(len(content))
    with pytest.raises(IntegrityError, match="does not match its hash"):
        tensors.read(tmp_path / "file", written)


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    written = tensors.write(tmp_path / "file", {"a": np.arange(4)})
    content = (tmp_path / "file").read_bytes()
    for place in range(len(content)):
        (tmp_path / "file").write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(IntegrityError):
            tensors.read(tmp_path / "file", written)


def test_another_size_or_hash_is_found(tmp_path: Path) -> None:
    written = tensors.write(tmp_path / "file", {"a": np.arange(4)})
    for other in (replace(written, size=written.size + 1), replace(written, xxh3="0" * 32)):
        with pytest.raises(IntegrityError):
            tensors.read(tmp_path / "file", other)


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError):
        tensors.write(tmp_path / "file", {})
