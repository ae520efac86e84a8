"""What one machine knows of the drive, the next machine knows from the start."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from haversack import credentials
from haversack.drive import snapshot
from haversack.drive.snapshot import NAME
from haversack.drive.tree import MARK, Drive
from haversack.errors import IntegrityError
from haversack.http import wait
from tests.conftest import RunningHub

Machine = Callable[[str], Drive]


@pytest.fixture
def machine(own_hub: RunningHub, tmp_path: Path) -> Machine:
    def make(name: str) -> Drive:
        return Drive(credentials.drive(), tmp_path / name / "data", tmp_path / name / "cache")

    return make


@pytest.fixture
def known(own_hub: RunningHub, machine: Machine) -> Drive:
    """A machine that has listed a drive of 1,200 files in 12 folders, and saved what it knows."""
    for number in range(1200):
        inside = own_hub.my_drive / f"{number % 12}"
        inside.mkdir(exist_ok=True)
        (inside / f"{number}").write_text("x" * (number % 7))
    drive = machine("first")
    assert len(everything(drive)) == 1212
    drive.save_snapshot()
    return drive


def everything(drive: Drive) -> dict[tuple[str, ...], int]:
    """The size of every file, and every folder, but for the snapshot itself."""
    found, left = {}, [()]
    while left:
        path = left.pop()
        for name, file in drive.listing(path).items():
            if name != NAME:
                found[(*path, name)] = file.size
            if file.is_folder:
                left.append((*path, name))
    return found


def snapshots(hub: RunningHub) -> list[Path]:
    return [path for path in hub.my_drive.iterdir() if path.name.startswith(NAME.partition(".jsonl")[0])]


def test_the_next_machine_lists_nothing(known: Drive, own_hub: RunningHub, machine: Machine) -> None:
    (own_hub.my_drive / "3" / "3").unlink()
    (own_hub.my_drive / "4" / "4").write_text("changed since")
    (own_hub.my_drive / "new").mkdir()
    second = machine("second")
    second.snapshots.wait(30)
    asked = []
    second.api.http.request = counted(second.api.http.request, asked)  # type: ignore[method-assign]
    found = everything(second)
    assert ((("3", "3")) in found, found["4", "4"], ("new",) in found) == (False, 13, True)
    assert len(found) == 1212
    assert len([path for path in asked if "changes" not in path]) <= 1  # the new folder


def counted(request: Callable, asked: list[str]) -> Callable:  # type: ignore[type-arg]
    def count(method: str, url: str, **more: object) -> object:
        asked.append(url)
        return request(method, url, **more)

    return count


def test_bytes_are_not_believed_from_a_snapshot(known: Drive, machine: Machine) -> None:
    second = machine("second")
    second.snapshots.wait(30)
    file = second.find(("5", "5"))
    assert second.read(file, 0, 10) == b"xxxxx"


def test_a_new_snapshot_takes_the_place_of_the_old_one(known: Drive, own_hub: RunningHub) -> None:
    before = snapshots(own_hub)
    assert known.snapshots.save() is not None
    assert len(before) == len(snapshots(own_hub)) == 1
    assert wait(known.api.do(snapshot.search(MARK))).files[0].name == NAME


def test_it_is_saved_only_when_enough_has_changed(known: Drive, own_hub: RunningHub) -> None:
    assert not known.snapshots.is_worth_saving()
    for number in range(70):
        (own_hub.my_drive / "0" / f"more-{number}").touch()
    known.following.refresh()
    assert known.snapshots.is_worth_saving()


def test_of_two_machines_that_save_at_once_one_snapshot_stays(
    known: Drive, own_hub: RunningHub, machine: Machine
) -> None:
    drives = [known, machine("second")]
    drives[1].snapshots.wait(30)
    threads = [threading.Thread(target=drive.snapshots.save) for drive in drives]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(snapshots(own_hub)) >= 1
    known.snapshots.save()
    assert len(snapshots(own_hub)) == 1
    third = machine("third")
    third.snapshots.wait(30)
    assert third.known().names == 1213


def lines(path: Path) -> list[str]:
    return gzip.decompress(path.read_bytes()).decode().splitlines()


def with_head(path: Path, **changed: object) -> bytes:
    head, *rest = lines(path)
    return "\n".join([json.dumps(json.loads(head) | changed), *rest, ""]).encode()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.read_bytes()[:-100],
        lambda path: b"no gzip at all",
        lambda path: gzip.compress("\n".join(lines(path)[:-1]).encode()),
        lambda path: gzip.compress(with_head(path, root="another")),
        lambda path: gzip.compress(with_head(path, form=99)),
        lambda path: gzip.compress(with_head(path, token="gone")),
        lambda path: gzip.compress(
            with_head(path).replace(b'"listed": true', b'"listed": true}\n[1, 2]\n{"folder": "x"')
        ),
        lambda path: gzip.compress(b'{"__reduce__": "os.system"}\n'),
        lambda path: b"",
    ],
    ids=["cut", "no gzip", "no end", "another drive", "another form", "forgotten token", "no file", "no head", "empty"],
)
def test_what_cannot_be_used_is_passed_over(
    known: Drive, own_hub: RunningHub, machine: Machine, damage: Callable[[Path], bytes]
) -> None:
    (path,) = snapshots(own_hub)
    path.write_bytes(damage(path))
    second = machine("second")
    second.snapshots.wait(30)
    assert second.known().names == 0
    assert len(everything(second)) == 1212


def test_a_snapshot_whose_bytes_are_not_the_promised_ones_is_refused(known: Drive, machine: Machine) -> None:
    from dataclasses import replace

    file = wait(known.api.do(snapshot.search(MARK))).files[0]
    with pytest.raises(IntegrityError):
        machine("second").snapshots.load(replace(file, md5="0" * 32))


def test_what_is_done_while_it_loads_stands(
    known: Drive, own_hub: RunningHub, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = machine("second")
    second.remove(("1", "1"))
    second.make_folder(("made",))
    second.snapshots.wait(30)
    second.following.refresh()
    found = everything(second)
    assert (("1", "1") in found, ("made",) in found, len(found)) == (False, True, 1212)


def test_a_small_drive_gets_none(own_hub: RunningHub, machine: Machine) -> None:
    (own_hub.my_drive / "a").touch()
    drive = machine("first")
    everything(drive)
    drive.save_snapshot()
    assert snapshots(own_hub) == []
