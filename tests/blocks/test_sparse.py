from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from haversack.blocks.sparse import BLOCK, SparseFile
from haversack.errors import DiskFull

SIZE = 10 * BLOCK + 100


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_new_file_misses_everything(tmp_path: Path) -> None:
    assert list(SparseFile(tmp_path / "f", SIZE, "a").missing(0, SIZE)) == [(0, SIZE)]


def test_missing_is_told_in_whole_blocks(tmp_path: Path) -> None:
    assert list(SparseFile(tmp_path / "f", SIZE, "a").missing(5, 6)) == [(0, BLOCK)]


def test_kept_blocks_are_no_longer_missing(tmp_path: Path) -> None:
    file = SparseFile(tmp_path / "f", SIZE, "a")
    file.write(BLOCK, b"x" * BLOCK * 2)
    file.keep(BLOCK, 3 * BLOCK)
    assert list(file.missing(0, SIZE)) == [(0, BLOCK), (3 * BLOCK, SIZE)]
    assert file.read_at(2 * BLOCK, 3) == b"xxx"


def test_half_a_block_is_not_believed(tmp_path: Path) -> None:
    file = SparseFile(tmp_path / "f", SIZE, "a")
    assert file.keep(10, BLOCK + 10) == 10
    assert file.keep(10, 2 * BLOCK + 10) == 2 * BLOCK
    assert next(file.missing(0, SIZE)) == (0, BLOCK)


def test_short_last_block_counts_as_whole(tmp_path: Path) -> None:
    file = SparseFile(tmp_path / "f", SIZE, "a")
    file.keep(10 * BLOCK, SIZE)
    assert list(file.missing(9 * BLOCK, SIZE)) == [(9 * BLOCK, 10 * BLOCK)]


def test_two_openers_see_each_others_blocks(tmp_path: Path) -> None:
    one, two = SparseFile(tmp_path / "f", SIZE, "a"), SparseFile(tmp_path / "f", SIZE, "a")
    one.write(0, b"y" * BLOCK)
    one.keep(0, BLOCK)
    assert next(two.missing(0, SIZE)) == (BLOCK, SIZE)
    assert two.read_at(0, 1) == b"y"


def test_journal_survives_sigkill(tmp_path: Path) -> None:
    program = f"""if True:
        import os, signal
        from pathlib import Path
        from haversack.blocks.sparse import SparseFile
        file = SparseFile(Path({str(tmp_path / "f")!r}), {SIZE}, "a")
        file.write(0, b"z" * {3 * BLOCK})
        file.keep(0, {2 * BLOCK})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert subprocess.run([sys.executable, "-c", program]).returncode == -9
    file = SparseFile(tmp_path / "f", SIZE, "a")
    assert list(file.missing(0, SIZE)) == [(2 * BLOCK, SIZE)]
    assert file.read_at(0, 2 * BLOCK) == b"z" * 2 * BLOCK


def test_other_content_starts_over(tmp_path: Path) -> None:
    SparseFile(tmp_path / "f", SIZE, "a").keep(0, SIZE)
    file = SparseFile(tmp_path / "f", SIZE, "b")
    assert file.replaced
    assert list(file.missing(0, SIZE)) == [(0, SIZE)]


@pytest.mark.parametrize("spoiled", ["f.journal", "f.part"])
def test_lost_half_starts_over(tmp_path: Path, spoiled: str) -> None:
    SparseFile(tmp_path / "f", SIZE, "a").keep(0, SIZE)
    os.truncate(tmp_path / spoiled, 7)
    assert list(SparseFile(tmp_path / "f", SIZE, "a").missing(0, SIZE)) == [(0, SIZE)]


def test_file_has_its_name_only_when_finished(tmp_path: Path) -> None:
    file = SparseFile(tmp_path / "f", SIZE, "a")
    file.keep(0, SIZE)
    assert not (tmp_path / "f").exists()
    file.finish()
    assert file.complete
    assert SparseFile(tmp_path / "f", SIZE, "a").complete


def test_forgotten_blocks_are_missing_again_and_the_file_incomplete(tmp_path: Path) -> None:
    file = SparseFile(tmp_path / "f", SIZE, "a")
    file.keep(0, SIZE)
    file.finish()
    file.forget(BLOCK + 1, BLOCK + 2)
    assert not file.complete
    assert list(SparseFile(tmp_path / "f", SIZE, "a").missing(0, SIZE)) == [(BLOCK, 2 * BLOCK)]


def test_discarded_file_is_gone(tmp_path: Path) -> None:
    SparseFile(tmp_path / "f", SIZE, "a").discard()
    assert not any(path for path in tmp_path.iterdir() if path.suffix != ".lock")


def test_full_disk_is_told(small_disk: Path) -> None:
    file = SparseFile(small_disk / "f", 4 << 20, "a")
    with pytest.raises(DiskFull, match="Free space") as caught:
        file.write(0, bytes(3 << 20))
    assert caught.value.errno == errno.ENOSPC


def test_what_can_be_fetched_again_is_not_believed_after_a_new_start(tmp_path: Path) -> None:
    file = SparseFile(tmp_path / "f", SIZE, "a", lasting=False)
    file.write(0, bytes(BLOCK))
    file.keep(0, BLOCK)
    again = SparseFile(tmp_path / "f", SIZE, "a", lasting=False)
    assert next(again.missing(0, SIZE)) == (BLOCK, SIZE)
    journal = tmp_path / "f.journal"
    journal.write_bytes(re.sub(rb'"boot": ".', b'"boot": "_', journal.read_bytes()))
    assert next(SparseFile(tmp_path / "f", SIZE, "a", lasting=False).missing(0, SIZE)) == (0, SIZE)


def test_what_was_only_written_is_believed_until_a_new_start(tmp_path: Path) -> None:
    file = SparseFile(tmp_path / "f", SIZE, "a")
    file.write(0, bytes(4 * BLOCK))
    assert file.mark_written(0, 3 * BLOCK + 5) == 3 * BLOCK
    file.keep(0, BLOCK)
    again = SparseFile(tmp_path / "f", SIZE, "a")
    assert list(again.missing(0, SIZE)) == [(3 * BLOCK, SIZE)]
    journal = tmp_path / "f.journal"
    journal.write_bytes(re.sub(rb'"boot": ".', b'"boot": "_', journal.read_bytes()))
    assert list(SparseFile(tmp_path / "f", SIZE, "a").missing(0, SIZE)) == [(BLOCK, SIZE)]


def test_a_finished_file_is_believed_after_a_new_start(tmp_path: Path) -> None:
    file = SparseFile(tmp_path / "f", SIZE, "a")
    file.mark_written(0, SIZE)
    file.finish()
    journal = tmp_path / "f.journal"
    journal.write_bytes(re.sub(rb'"boot": ".', b'"boot": "_', journal.read_bytes()))
    again = SparseFile(tmp_path / "f", SIZE, "a")
    assert again.complete
    assert again.present == SIZE


def test_a_file_that_another_began_anew_is_not_finished(tmp_path: Path) -> None:
    file = SparseFile(tmp_path / "f", SIZE, "a", lasting=False)
    file.remove()
    SparseFile(tmp_path / "f", SIZE, "a", lasting=False)
    file.finish()
    assert not (tmp_path / "f").exists()
