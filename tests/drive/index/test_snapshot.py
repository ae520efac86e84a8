"""What one machine knows of the drive, the next machine knows from the start."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from haversack import credentials
from haversack.drive import MARK
from haversack.drive.index import snapshot
from haversack.drive.index.snapshot import NAME
from haversack.drive.tree import Drive
from haversack.errors import IntegrityError
from haversack.http import wait
from tests.conftest import RunningHub, start_hub

Machine = Callable[[str], Drive]
_BEGINNING = NAME.partition(".jsonl")[0]


@pytest.fixture(scope="module")
def full_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A hub with 1,200 files in 12 folders, for all tests here."""
    root = tmp_path_factory.mktemp("full") / "hub"
    for number in range(1200):
        inside = root / "My Drive" / f"{number % 12}"
        inside.mkdir(parents=True, exist_ok=True)
        (inside / f"{number}").write_text("x" * (number % 7))
    running = start_hub(root)
    yield running
    running.process.terminate()
    running.process.wait(60)


@pytest.fixture
def machine(full_hub: RunningHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setenv("HAVERSACK_HUB", full_hub.url)
    monkeypatch.setenv("HAVERSACK_TOKEN", full_hub.token)

    def make(name: str) -> Drive:
        return Drive(credentials.drive(), tmp_path / name / "data", tmp_path / name / "cache")

    return make


@pytest.fixture
def known(machine: Machine) -> Drive:
    """A machine that has listed the whole drive, and saved what it knows."""
    drive = machine("first")
    drive.snapshots.wait(60)
    everything(drive)
    drive.snapshots.save()
    return drive


def everything(drive: Drive) -> dict[tuple[str, ...], int]:
    """The size of every file, and every folder, but for snapshots."""
    found, left = {}, [()]
    while left:
        path = left.pop()
        for name, file in drive.listing(path).items():
            if not name.startswith(_BEGINNING):
                found[(*path, name)] = file.size
            if file.is_folder:
                left.append((*path, name))
    return found


def snapshots(hub: RunningHub) -> list[Path]:
    return [path for path in hub.my_drive.iterdir() if path.name.startswith(_BEGINNING)]


def test_the_next_machine_lists_nothing(known: Drive, full_hub: RunningHub, machine: Machine) -> None:
    known.remove(("3", "3"))
    known.rename(("4", "4"), ("4", "renamed"))
    known.make_folder(("new",))
    expected = everything(known)
    second = machine("second")
    second.snapshots.wait(60)
    asked = []
    second.api.http.request = counted(second.api.http.request, asked)  # type: ignore[method-assign]
    found = everything(second)
    assert ((("3", "3")) in found, found["4", "renamed"], ("new",) in found) == (False, 4, True)
    assert found == expected
    assert len([path for path in asked if "changes" not in path]) <= 1  # the new folder


def counted(request: Callable, asked: list[str]) -> Callable:  # type: ignore[type-arg]
    def count(method: str, url: str, **more: object) -> object:
        asked.append(url)
        return request(method, url, **more)

    return count


def test_bytes_come_from_the_drive_all_the_same(known: Drive, machine: Machine) -> None:
    second = machine("second")
    second.snapshots.wait(60)
    file = second.find(("5", "5"))
    assert second.read(file, 0, 10) == b"xxxxx"


def test_a_new_snapshot_takes_the_place_of_the_old_one(known: Drive, full_hub: RunningHub) -> None:
    before = snapshots(full_hub)
    assert known.snapshots.save() is not None
    assert len(before) == len(snapshots(full_hub)) == 1
    assert wait(known.api.send(snapshot.search(MARK))).files[0].name == NAME


def test_it_is_saved_only_when_enough_has_changed(known: Drive, full_hub: RunningHub) -> None:
    assert not known.snapshots.is_worth_saving()
    for number in range(0, 840, 12):
        known.rename(("0", f"{number}"), ("1", f"{number}"))
    assert known.snapshots.is_worth_saving()


def test_of_two_machines_that_save_at_once_one_snapshot_stays(
    known: Drive, full_hub: RunningHub, machine: Machine
) -> None:
    drives = [known, machine("second")]
    drives[1].snapshots.wait(60)
    threads = [threading.Thread(target=drive.snapshots.save) for drive in drives]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(snapshots(full_hub)) >= 1
    known.snapshots.save()
    assert len(snapshots(full_hub)) == 1
    third = machine("third")
    third.snapshots.wait(60)
    assert everything(third) == everything(known)


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
            with_head(path).replace(b'"listed":true', b'"listed":true}\n[1, 2]\n{"folder": "x"')
        ),
        lambda path: gzip.compress("\n".join([*lines(path)[:3], *lines(path)[2:], ""]).encode()),
        lambda path: gzip.compress(with_head(path).replace(b'.folder",0', b'.folder",-1')),
        lambda path: gzip.compress(b'{"__reduce__": "os.system"}\n'),
        lambda path: b"",
    ],
    ids=[
        "cut",
        "no gzip",
        "no end",
        "another drive",
        "another form",
        "forgotten token",
        "no file",
        "twice",
        "no size",
        "no head",
        "empty",
    ],
)
def test_what_cannot_be_used_is_passed_over(
    known: Drive, full_hub: RunningHub, machine: Machine, damage: Callable[[Path], bytes]
) -> None:
    (path,) = snapshots(full_hub)
    path.write_bytes(damage(path))
    second = machine("second")
    second.snapshots.wait(60)
    assert second.known().names == 0
    assert everything(second) == everything(known)


def test_a_snapshot_whose_bytes_are_not_the_promised_ones_is_refused(known: Drive, machine: Machine) -> None:
    from dataclasses import replace

    file = wait(known.api.send(snapshot.search(MARK))).files[0]
    with pytest.raises(IntegrityError):
        machine("second").snapshots.load(replace(file, md5="0" * 32))


def test_what_is_done_while_it_loads_stands(known: Drive, full_hub: RunningHub, machine: Machine) -> None:
    second = machine("second")
    second.remove(("1", "1"))
    second.make_folder(("made",))
    second.snapshots.wait(60)
    second.follower.refresh()
    found = everything(second)
    assert (("1", "1") in found, ("made",) in found) == (False, True)
    known.follower.refresh()
    assert found == everything(known)


def test_a_small_drive_gets_none(own_hub: RunningHub, tmp_path: Path) -> None:
    (own_hub.my_drive / "a").touch()
    drive = Drive(credentials.drive(), tmp_path / "data", tmp_path / "cache")
    everything(drive)
    drive.save_snapshot()
    assert snapshots(own_hub) == []
