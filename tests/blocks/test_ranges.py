from __future__ import annotations

import logging
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from haversack.blocks import ranges
from haversack.blocks.ranges import RemoteFile
from haversack.blocks.sparse import BLOCK
from haversack.errors import ConnectionFailed, DiskFull, IntegrityError, RemoteError
from haversack.http import wait
from tests.blocks.storage import Storage
from tests.blocks.test_sparse import small_disk  # noqa: F401 - a fixture

DOWNLOAD = """if True:
    import sys
    from pathlib import Path
    from haversack.blocks.ranges import RemoteFile
    from haversack.credentials import Server
    from haversack.http import Http
    async def locate():
        return sys.argv[1] + "/file?signature=0"
    file = RemoteFile(Http(Server("storage", sys.argv[1], "test")), locate, Path(sys.argv[2]), "the file")
    print(file.complete(lambda path: None))
"""


@pytest.fixture
def clients(storage: Storage) -> Any:
    """Makes remote files of the storage, and closes their connections."""
    made = []

    def make(path: Path, **options: Any) -> RemoteFile:
        http = storage.client(**options)
        made.append(http)
        return RemoteFile(http, storage.locate, path, "the file")

    yield make
    for http in made:
        wait(http.close())


def eventually(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.005)


def unchecked(path: Path) -> None:
    raise AssertionError("the md5 was to be checked")


def test_reading_fetches_only_the_blocks_it_needs(storage: Storage, clients: Any, tmp_path: Path) -> None:
    file = clients(tmp_path / "f")
    assert file.read_at(1_000_000, 10) == storage.data[1_000_000:1_000_010]
    assert file.present == BLOCK
    assert storage.served == BLOCK + 1  # the first byte told what file it is


def test_reading_twice_fetches_once(storage: Storage, clients: Any, tmp_path: Path) -> None:
    clients(tmp_path / "f").read_at(100, 10)
    file = clients(tmp_path / "f")
    asked = len(storage.asked)
    file.read_at(100, 10)
    assert len(storage.asked) == asked


def test_reading_on_and_on_fetches_ahead(storage: Storage, clients: Any, tmp_path: Path) -> None:
    file = clients(tmp_path / "f")
    read = [file.read_at(at, min(10_000, file.size - at)) for at in range(0, file.size, 10_000)]
    assert b"".join(read) == storage.data
    assert len(storage.asked) < 15


def test_complete_file_is_the_served_one(storage: Storage, clients: Any, tmp_path: Path) -> None:
    path = clients(tmp_path / "f").complete(unchecked)
    assert path.read_bytes() == storage.data
    assert not list(tmp_path.glob("*.part"))


def test_ranges_are_fetched_side_by_side(storage: Storage, clients: Any, tmp_path: Path) -> None:
    storage.delay = 0.01
    clients(tmp_path / "f").complete(unchecked)
    assert storage.most_open >= 4


def test_cut_connections_go_on_where_they_stopped(storage: Storage, clients: Any, tmp_path: Path) -> None:
    storage.cut_after = 300_000
    file = clients(tmp_path / "f")
    assert file.complete(unchecked).read_bytes() == storage.data
    assert storage.served < 1.3 * len(storage.data)


def test_block_that_came_in_two_halves_is_believed(storage: Storage, clients: Any, tmp_path: Path) -> None:
    file = clients(tmp_path / "f")
    storage.cut_after = BLOCK // 2
    assert file.read_at(0, 3 * BLOCK) == storage.data[: 3 * BLOCK]
    assert file.present == 3 * BLOCK


def test_connection_cut_before_every_byte_is_given_up(storage: Storage, clients: Any, tmp_path: Path) -> None:
    file = clients(tmp_path / "f")
    storage.cut_after = 0
    with pytest.raises(ConnectionFailed, match="it resumes there"):
        file.complete(unchecked)


def test_stalled_server_is_asked_again(storage: Storage, clients: Any, tmp_path: Path) -> None:
    file = clients(tmp_path / "f")
    storage.stall_after = 200_000
    assert file.complete(unchecked).read_bytes() == storage.data


def test_expired_address_is_asked_for_anew(storage: Storage, clients: Any, tmp_path: Path) -> None:
    storage.valid_for = 4
    assert clients(tmp_path / "f").complete(unchecked).read_bytes() == storage.data
    assert storage.signed > 1


def test_address_that_is_always_refused_ends_it(storage: Storage, clients: Any, tmp_path: Path) -> None:
    file = clients(tmp_path / "f")
    storage.valid_for = 0
    with pytest.raises(RemoteError, match="400"):
        file.complete(unchecked)


def test_server_that_ignores_ranges_serves_one_stream(storage: Storage, clients: Any, tmp_path: Path) -> None:
    storage.ranges = False
    assert clients(tmp_path / "f").complete(unchecked).read_bytes() == storage.data


def test_server_that_ignores_ranges_may_break_off(storage: Storage, clients: Any, tmp_path: Path) -> None:
    storage.ranges = False
    storage.stall_after = 3_000_000
    assert clients(tmp_path / "f").complete(unchecked).read_bytes() == storage.data


def test_ranges_ignored_later_serve_one_stream(storage: Storage, clients: Any, tmp_path: Path) -> None:
    file = clients(tmp_path / "f")
    storage.ranges = False
    assert file.complete(unchecked).read_bytes() == storage.data


def test_changed_file_starts_over(
    storage: Storage, clients: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = clients(tmp_path / "f")
    file.read_at(0, 10)
    old = Storage(storage.data[::-1], etag='"two"')
    storage.data, storage.etag, storage.md5 = old.data, old.etag, old.md5
    with caplog.at_level(logging.WARNING):
        assert file.complete(unchecked).read_bytes() == storage.data
    assert "changed on the server" in caplog.text


def test_reading_a_changed_file_is_an_error(storage: Storage, clients: Any, tmp_path: Path) -> None:
    file = clients(tmp_path / "f")
    storage.etag = '"two"'
    with pytest.raises(IntegrityError, match="Open it again"):
        file.read_at(0, 10)


def test_wrong_bytes_are_discarded(storage: Storage, clients: Any, tmp_path: Path) -> None:
    storage.md5 = "0" * 32
    file = clients(tmp_path / "f")
    with pytest.raises(IntegrityError, match="MD5"):
        file.complete(unchecked)
    assert file.present == 0
    assert not (tmp_path / "f").exists()


def test_without_md5_the_callers_check_decides(storage: Storage, clients: Any, tmp_path: Path) -> None:
    storage.md5 = "none"
    checked: list[Path] = []
    clients(tmp_path / "f").complete(checked.append)
    assert len(checked) == 1


def test_mended_block_is_fetched_again(storage: Storage, clients: Any, tmp_path: Path) -> None:
    file = clients(tmp_path / "f")
    file.complete(unchecked)
    with open(tmp_path / "f", "r+b") as damaged:
        damaged.write(b"damage")
    file.mend(0, 6)
    assert file.read_at(0, 6) == storage.data[:6]


def test_whole_file_is_read_while_the_server_is_away(storage: Storage, clients: Any, tmp_path: Path) -> None:
    clients(tmp_path / "f").complete(unchecked)
    url, storage.url = storage.url, "http://127.0.0.1:9"
    away = clients(tmp_path / "f", attempts=1)
    storage.url = url
    assert away.read_at(5, 5) == storage.data[5:10]


def test_server_away_is_an_error_for_what_is_not_here(storage: Storage, clients: Any, tmp_path: Path) -> None:
    clients(tmp_path / "f").read_at(0, 5)
    storage.url = "http://127.0.0.1:9"
    with pytest.raises(ConnectionFailed, match="does not answer"):
        clients(tmp_path / "f", attempts=1)


def test_disk_space_is_asked_for_first(storage: Storage, clients: Any, small_disk: Path) -> None:  # noqa: F811
    with pytest.raises(DiskFull, match="5,000,123 bytes are needed"):
        clients(small_disk / "f").complete(unchecked)
    assert storage.served == 1


def test_killed_download_goes_on_without_its_done_blocks(storage: Storage, clients: Any, tmp_path: Path) -> None:
    storage.delay = 0.05
    process = subprocess.Popen([sys.executable, "-c", DOWNLOAD, storage.url, str(tmp_path / "f")])
    while storage.served < 4_600_000:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    storage.delay = 0
    file = clients(tmp_path / "f")
    here = file.present
    storage.asked.clear()
    assert here >= 2_000_000
    assert file.complete(unchecked).read_bytes() == storage.data
    assert storage.asked_bytes == len(storage.data) - here


def test_two_processes_share_one_download(storage: Storage, tmp_path: Path) -> None:
    storage.delay = 0.02
    command = [sys.executable, "-c", DOWNLOAD, storage.url, str(tmp_path / "f")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert [re.sub(r"\s", "", process.communicate()[0]) for process in both] == [str(tmp_path / "f")] * 2
    assert (tmp_path / "f").read_bytes() == storage.data
    assert storage.served <= len(storage.data) + 2


def test_threads_may_read_side_by_side(storage: Storage, clients: Any, tmp_path: Path) -> None:
    file = clients(tmp_path / "f")
    wrong = []

    def read(start: int) -> None:
        for at in range(start, len(storage.data) - 100, 400_000):
            if file.read_at(at, 100) != storage.data[at : at + 100]:
                wrong.append(at)

    threads = [threading.Thread(target=read, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_is_wanted_comes_before_it_is_read(storage: Storage, clients: Any, tmp_path: Path) -> None:
    file = clients(tmp_path / "f")
    file.want([(4_000_000, 4_000_100), (100, 200)])
    eventually(lambda: file.present >= 2 * BLOCK)
    storage.asked.clear()
    assert file.read_at(4_000_000, 100) == storage.data[4_000_000:4_000_100]
    assert file.read_at(100, 100) == storage.data[100:200]
    assert storage.asked == []


def test_wanted_neighbours_are_asked_for_together(storage: Storage, clients: Any, tmp_path: Path) -> None:
    file = clients(tmp_path / "f")
    storage.asked.clear()
    file.want((at, at + 100) for at in range(0, 6 * BLOCK, 5_000))
    eventually(lambda: file.present >= 6 * BLOCK)
    assert storage.asked == [f"bytes=0-{6 * BLOCK - 1}"]


def test_reader_waits_for_what_is_on_its_way(storage: Storage, clients: Any, tmp_path: Path) -> None:
    storage.delay = 0.1
    file = clients(tmp_path / "f")
    file.want([(0, 4 * BLOCK)])
    eventually(lambda: len(storage.asked) == 2)
    assert file.read_at(BLOCK, 100) == storage.data[BLOCK : BLOCK + 100]
    assert len(storage.asked) == 2


def test_nothing_comes_twice_when_all_is_fetched_while_some_is_wanted(
    storage: Storage, clients: Any, tmp_path: Path
) -> None:
    storage.delay = 0.01
    file = clients(tmp_path / "f")
    file.want((at, at + 1) for at in range(0, len(storage.data), 300_000))
    assert file.complete(unchecked).read_bytes() == storage.data
    assert storage.served == len(storage.data) + 1


def test_wanting_from_a_server_that_is_away_is_told_to_the_reader(
    storage: Storage, clients: Any, tmp_path: Path
) -> None:
    file = clients(tmp_path / "f")
    storage.cut_after = 0
    file.want([(0, 100)])
    with pytest.raises(ConnectionFailed):
        file.read_at(0, 100)


def test_parts_cover_the_holes_exactly() -> None:
    parts = list(ranges._split([(0, 3 << 20), (5 << 20, (5 << 20) + 7)], 4))
    assert parts[0][0] == 0
    assert parts[-1] == (5 << 20, (5 << 20) + 7)
    assert sum(stop - start for start, stop in parts) == (3 << 20) + 7


def test_an_empty_file_has_no_first_byte(storage: Storage, clients: Any, tmp_path: Path) -> None:
    storage.data, storage.md5 = b"", "none"
    file = clients(tmp_path / "file")
    assert (file.size, file.read_at(0, 0)) == (0, b"")
    assert file.complete(lambda path: None).read_bytes() == b""
