"""A mounted drive, used with ordinary tools."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from haversack.drive.filesystem import DriveFileSystem
from haversack.drive.fuse import mount as mounting
from haversack.drive.fuse import registry
from haversack.drive.fuse.mount import check_mountpoint, mount, unmount
from haversack.errors import ConnectionFailed, MountError, MountpointInvalid, SignInError
from tests.conftest import RunningHub, start_hub
from tests.drive.conftest import Proxy, kill
from tests.processes import command_lines

pytestmark = pytest.mark.fuse


@pytest.fixture
def here(hub: RunningHub, folder: str, mountpoint: Path) -> Iterator[Path]:
    """This test's folder in a mount."""
    yield mount(mountpoint).my_drive / folder
    if mounting.is_mounted(mountpoint):
        unmount(mountpoint)


@pytest.fixture
def there(here: Path, hub: RunningHub, folder: str) -> Path:
    """The same folder as the hub keeps it."""
    return hub.my_drive / folder


def shell(command: str, folder: Path) -> str:
    done = subprocess.run(["bash", "-ec", command], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


def test_both_of_colabs_names_lead_to_my_drive(here: Path, mountpoint: Path) -> None:
    assert sorted(os.listdir(mountpoint)) == ["My Drive", "MyDrive"]
    assert os.readlink(mountpoint / "MyDrive") == "My Drive"
    assert (mountpoint / "MyDrive" / here.name).is_dir()


def test_what_is_on_the_drive_is_read(here: Path, there: Path) -> None:
    content = os.urandom((9 << 20) + 5)
    (there / "big").write_bytes(content)
    assert (here / "big").read_bytes() == content
    with open(here / "big", "rb") as file:
        file.seek(5_000_000)
        assert file.read(10) == content[5_000_000:5_000_010]


def test_unmounting_means_on_the_drive(here: Path, there: Path, mountpoint: Path) -> None:
    for number in range(20):
        (here / f"{number}.bin").write_bytes(os.urandom(1000) + bytes([number]))
    written = {path.name: path.read_bytes() for path in here.iterdir()}
    unmount(mountpoint)
    assert {path.name: path.read_bytes() for path in there.iterdir()} == written
    assert not os.path.ismount(mountpoint)


def test_fsync_means_on_the_drive(here: Path, there: Path) -> None:
    with open(here / "a", "wb") as file:
        file.write(b"synced")
        file.flush()
        os.fsync(file.fileno())
        assert (there / "a").read_bytes() == b"synced"


def test_ordinary_tools(here: Path, mountpoint: Path) -> None:
    assert shell("echo one > a; echo two >> a; cat a", here) == "one\ntwo\n"
    assert shell("cp a b; mv b c; ls", here) == "a\nc\n"
    assert shell("mkdir -p x/y; mv c x/y; cat x/y/c; rm -r x; ls", here) == "one\ntwo\na\n"
    assert shell("dd if=/dev/zero of=z bs=64k count=3 status=none; stat -c %s z", here) == "196608\n"
    assert shell("printf 12345 > t; truncate -s 3 t; cat t; truncate -s 5 t; od -An -tx1 t", here).startswith("123")
    assert shell("touch -d 2001-02-03T04:05:06Z t; date -u -r t +%s", here) == "981173106\n"
    assert shell("tar cf all.tar a t && tar tf all.tar", here) == "a\nt\n"
    assert shell("chmod 644 a && sed -i s/one/1/ a && cat a", here) == "1\ntwo\n"


def test_writing_in_the_middle_keeps_the_rest(here: Path, there: Path, mountpoint: Path) -> None:
    (there / "a").write_bytes(b"0123456789")
    with open(here / "a", "r+b") as file:
        file.seek(3)
        file.write(b"xyz")
    assert (here / "a").read_bytes() == b"012xyz6789"
    unmount(mountpoint)
    assert (there / "a").read_bytes() == b"012xyz6789"


def test_renaming_over_a_file_replaces_it(here: Path, there: Path, mountpoint: Path) -> None:
    (there / "weights").write_bytes(b"old")
    (here / "weights.tmp").write_bytes(b"new")
    os.replace(here / "weights.tmp", here / "weights")
    assert (here / "weights").read_bytes() == b"new"
    assert os.listdir(here) == ["weights"]
    unmount(mountpoint)
    assert [(path.name, path.read_bytes()) for path in there.iterdir()] == [("weights", b"new")]


def test_renaming_over_a_file_while_it_is_uploaded(
    hub: RunningHub, proxy: Proxy, folder: str, mountpoint: Path
) -> None:
    here = mount(mountpoint).my_drive / folder
    proxy.stalls = lambda call: "/upload/" in call.path
    (here / "old").write_bytes(b"old")
    (here / "new").write_bytes(b"new")
    assert proxy.stalled.wait(60)
    os.replace(here / "new", here / "old")
    assert (here / "old").read_bytes() == b"new"
    assert os.listdir(here) == ["old"]
    proxy.release.set()
    unmount(mountpoint)
    assert [(path.name, path.read_bytes()) for path in (hub.my_drive / folder).iterdir()] == [("old", b"new")]


def test_a_file_deleted_before_its_upload_never_gets_there(here: Path, there: Path, mountpoint: Path) -> None:
    (here / "a").write_bytes(b"x")
    (here / "a").unlink()
    assert not (here / "a").exists()
    unmount(mountpoint)
    assert list(there.iterdir()) == []


def test_an_open_file_outlives_its_name(here: Path) -> None:
    with open(here / "a", "w+b") as file:
        file.write(b"still here")
        file.flush()
        (here / "a").unlink()
        file.seek(0)
        assert file.read() == b"still here"
    assert os.listdir(here) == []


def test_a_deleted_file_is_looked_at_and_written_on_by_who_has_it_open(here: Path) -> None:
    (here / "a").write_bytes(b"0123456789")
    with open(here / "a", "r+b", buffering=0) as one, open(here / "a", "rb", buffering=0) as other:
        (here / "a").unlink()
        assert os.fstat(one.fileno()).st_size == 10
        one.write(b"x")
        one.truncate(5)
        assert other.read() == b"x1234"
        assert os.fstat(other.fileno()).st_size == 5
        assert os.listdir(here) == []
    assert os.listdir(here) == []


def test_a_deleted_file_is_looked_at_also_when_its_folder_is_renamed(here: Path) -> None:
    (here / "folder").mkdir()
    with open(here / "folder" / "a", "w+b", buffering=0) as file:
        file.write(b"0123456789")
        (here / "folder" / "a").unlink()
        (here / "folder").rename(here / "renamed")
        file.write(b"x")
        assert os.fstat(file.fileno()).st_size == 11
    assert os.listdir(here / "renamed") == []


def test_what_is_written_to_a_replaced_file_stays_out_of_the_new_one(here: Path, there: Path, mountpoint: Path) -> None:
    (there / "a").write_bytes(b"old")
    with open(here / "a", "r+b", buffering=0) as old:
        (here / "b").write_bytes(b"new")
        os.replace(here / "b", here / "a")
        old.write(b"late")
        old.seek(0)
        assert old.read() == b"late"
    assert (here / "a").read_bytes() == b"new"
    unmount(mountpoint)
    assert [(path.name, path.read_bytes()) for path in there.iterdir()] == [("a", b"new")]


def test_a_full_drive_is_said_at_fsync_and_at_close(
    hub: RunningHub, proxy: Proxy, folder: str, mountpoint: Path
) -> None:
    proxy.full = True
    here = mount(mountpoint).my_drive / folder
    with open(here / "a", "wb", buffering=0) as file:
        file.write(b"waits")
        with pytest.raises(OSError) as at_fsync:  # noqa: PT011 - the errno is compared
            os.fsync(file.fileno())
        file.write(b" here")
        with pytest.raises(OSError) as at_close:  # noqa: PT011
            file.close()
    assert (at_fsync.value.errno, at_close.value.errno) == (errno.EDQUOT, errno.EDQUOT)
    proxy.full = False
    unmount(mountpoint)
    assert (hub.my_drive / folder / "a").read_bytes() == b"waits here"


def test_a_hub_that_died_is_found_again(own_folders: Path, mountpoint: Path) -> None:
    here = mount(mountpoint, hub="embedded").my_drive
    (here / "a").write_bytes(b"before")
    for pid in [pid for pid, command in command_lines().items() if str(own_folders) in command and " hub " in command]:
        os.kill(pid, signal.SIGKILL)
    (here / "b").write_bytes(b"after")
    with open(here / "b", "rb") as file:
        os.fsync(file.fileno())
    unmount(mountpoint)
    kept = own_folders / "data" / "hub" / "My Drive"
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == {"a": b"before", "b": b"after"}


def test_dead_mounts_are_cleared_away_by_the_next_one(hub: RunningHub, mountpoint: Path, tmp_path: Path) -> None:
    mount(tmp_path / "dead")
    kill(tmp_path / "dead")
    mount(mountpoint)
    assert not (tmp_path / "dead").exists()
    unmount(mountpoint)


def test_a_reader_sees_what_a_writer_adds(here: Path) -> None:
    (here / "log").write_bytes(b"one\n")
    with open(here / "log", "rb", buffering=0) as reader:
        assert reader.read() == b"one\n"
        with open(here / "log", "ab") as writer:
            writer.write(b"two\n")
        assert reader.read() == b"two\n"


def test_a_file_written_twice_has_its_last_bytes(here: Path, there: Path, mountpoint: Path) -> None:
    for number in range(30):
        (here / "a").write_bytes(b"%d" % number * 1000)
        if number % 10 == 0:
            time.sleep(0.4)  # some of them are on their way by then
    unmount(mountpoint)
    assert (there / "a").read_bytes() == b"29" * 1000


def test_only_an_empty_folder_is_removed(here: Path) -> None:
    (here / "x").mkdir()
    (here / "x" / "a").write_bytes(b"x")
    with pytest.raises(OSError, match="not empty"):
        (here / "x").rmdir()
    (here / "x" / "a").unlink()
    (here / "x").rmdir()
    assert os.listdir(here) == []


def test_a_folder_is_renamed_with_what_is_in_it(here: Path) -> None:
    (here / "x").mkdir()
    (here / "x" / "a").write_bytes(b"x")
    (here / "x").rename(here / "y")
    assert (here / "y" / "a").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (lambda at: os.symlink("a", at / "l"), errno.ENOTSUP),
        (lambda at: os.link(at / "file", at / "l"), errno.ENOTSUP),
        (lambda at: os.setxattr(at / "file", "user.x", b"1"), errno.ENOTSUP),
        (lambda at: open(at / "none"), errno.ENOENT),  # noqa: SIM115
        (lambda at: open(at / "file" / "x"), errno.ENOTDIR),  # noqa: SIM115
        (lambda at: (at / "file").mkdir(), errno.EEXIST),
        (lambda at: os.rmdir(at / "file"), errno.ENOTDIR),
        (lambda at: os.rename(at / "folder", at / "file"), errno.ENOTDIR),
        (lambda at: (at.parent.parent / "x").write_bytes(b"x"), errno.EROFS),
    ],
)
def test_what_a_drive_cannot_do_has_its_errno(here: Path, act, code: int) -> None:  # type: ignore[no-untyped-def]
    (here / "file").write_bytes(b"x")
    (here / "folder").mkdir()
    with pytest.raises(OSError) as raised:  # noqa: PT011 - the errno is compared
        act(here)
    assert raised.value.errno in (code, errno.ENOENT if code == errno.EROFS else code)


def test_a_read_only_mount_refuses_writes(hub: RunningHub, folder: str, mountpoint: Path) -> None:
    (hub.my_drive / folder / "a").write_bytes(b"x")
    here = mount(mountpoint, readonly=True).my_drive / folder
    with pytest.raises(OSError, match="Read-only"):
        (here / "b").write_bytes(b"x")
    assert (here / "a").read_bytes() == b"x"
    unmount(mountpoint)


def test_room_on_the_drive_is_shown(here: Path) -> None:
    room = os.statvfs(here)
    assert room.f_bavail > 0
    assert room.f_namemax == 255


def test_a_slow_read_never_holds_up_another(hub: RunningHub, proxy: Proxy, folder: str, mountpoint: Path) -> None:
    for name in ("slow", "fast"):
        (hub.my_drive / folder / name).write_text(name)
    here = mount(mountpoint).my_drive / folder
    slow = DriveFileSystem(hub=hub.url).info(f"{folder}/slow")["id"]
    proxy.stalls = lambda call: slow in call.path and "alt=media" in call.path
    read: list[str] = []
    waiting = threading.Thread(target=lambda: read.append((here / "slow").read_text()))
    waiting.start()
    assert proxy.stalled.wait(60)
    assert (here / "fast").read_text() == "fast"
    assert sorted(os.listdir(here)) == ["fast", "slow"]
    assert read == []
    proxy.release.set()
    waiting.join(60)
    assert read == ["slow"]
    unmount(mountpoint)


def test_closed_files_survive_the_death_of_the_mount(
    hub: RunningHub, proxy: Proxy, folder: str, mountpoint: Path
) -> None:
    proxy.stalls = lambda call: "/upload/" in call.path
    here = mount(mountpoint).my_drive / folder
    contents = {f"{number}": os.urandom(10_000) for number in range(8)}
    for name, content in contents.items():
        (here / name).write_bytes(content)
    kill(mountpoint)
    assert list((hub.my_drive / folder).iterdir()) == []
    proxy.stalls = lambda call: False
    proxy.release.set()
    mount(mountpoint)
    unmount(mountpoint)
    assert {path.name: path.read_bytes() for path in (hub.my_drive / folder).iterdir()} == contents


def test_a_killed_upload_goes_on_where_it_was(
    hub: RunningHub, proxy: Proxy, folder: str, mountpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAVERSACK_AHEAD", "0")
    content = os.urandom(24 << 20)  # hashed before it is uploaded, so the kill cannot come before the hash
    proxy.stalls = lambda call: call.range.startswith(f"bytes {8 << 20}-")
    here = mount(mountpoint).my_drive / folder
    (here / "big").write_bytes(content)
    assert proxy.stalled.wait(60)
    kill(mountpoint)
    proxy.stalls = lambda call: False
    proxy.calls.clear()
    mount(mountpoint)
    unmount(mountpoint)
    assert (hub.my_drive / folder / "big").read_bytes() == content
    assert sum(call.size for call in proxy.calls) < 17 << 20


def test_a_new_file_system_takes_up_what_a_dead_mount_left(
    hub: RunningHub, proxy: Proxy, folder: str, mountpoint: Path
) -> None:
    proxy.stalls = lambda call: "/upload/" in call.path
    (mount(mountpoint).my_drive / folder / "a").write_bytes(b"left")
    kill(mountpoint)
    proxy.stalls = lambda call: False
    journal = DriveFileSystem(hub=proxy.url).drive.journal
    assert journal.drain() == {}
    assert (hub.my_drive / folder / "a").read_bytes() == b"left"


def test_no_file_of_the_journal_can_be_read_by_others(
    hub: RunningHub, proxy: Proxy, folder: str, mountpoint: Path, own_folders: Path
) -> None:
    proxy.stalls = lambda call: "/upload/" in call.path
    (mount(mountpoint).my_drive / folder / "a").write_bytes(b"left")
    kept = [path for path in (own_folders / "data" / "drives").rglob("*") if path.suffix in (".json", ".data")]
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}
    proxy.release.set()
    unmount(mountpoint)


def test_unmounting_says_what_is_not_on_the_drive(own_hub: RunningHub, mountpoint: Path, tmp_path: Path) -> None:
    my_drive = mount(mountpoint).my_drive
    os.listdir(my_drive)
    own_hub.process.kill()
    own_hub.process.wait()
    (my_drive / "a").write_bytes(b"kept")
    with pytest.raises(MountError, match="not on the drive \\(a\\)"):
        unmount(mountpoint)
    assert not os.path.ismount(mountpoint)
    again = start_hub(own_hub.root, own_hub.token)
    mount(mountpoint, hub=again.url)
    unmount(mountpoint)
    again.process.terminate()
    again.process.wait(60)
    assert (own_hub.my_drive / "a").read_bytes() == b"kept"


def test_another_mount_after_a_killed_one(here: Path, there: Path, mountpoint: Path) -> None:
    kill(mountpoint)
    with pytest.raises(OSError, match="not connected"):
        os.listdir(mountpoint)
    again = mount(mountpoint).my_drive / there.name
    (there / "a").write_text("x")
    assert os.listdir(again) == ["a"]


def test_unmounting_a_killed_mount_clears_it_away(here: Path, mountpoint: Path) -> None:
    kill(mountpoint)
    unmount(mountpoint)
    assert not mountpoint.exists()


def test_mounting_twice_changes_nothing(here: Path, mountpoint: Path) -> None:
    process = registry.find(mountpoint).pid  # type: ignore[union-attr]
    assert mount(mountpoint).my_drive == here.parent
    assert registry.find(mountpoint).pid == process  # type: ignore[union-attr]


def test_another_drive_is_not_mounted_over_one(here: Path, own_hub: RunningHub, mountpoint: Path) -> None:
    with pytest.raises(MountError, match="Another drive"):
        mount(mountpoint)


def test_unmounting_where_somebody_stands(here: Path, there: Path, mountpoint: Path) -> None:
    (here / "a").write_text("x")
    waiting = subprocess.Popen(["sleep", "60"], cwd=here)
    unmount(mountpoint)
    waiting.kill()
    waiting.wait()
    assert (there / "a").read_text() == "x"
    assert not os.path.ismount(mountpoint)


def test_another_process_unmounts(here: Path, there: Path, mountpoint: Path) -> None:
    (here / "a").write_text("x")
    subprocess.run([sys.executable, "-m", "haversack", "unmount", mountpoint], check=True, capture_output=True)
    assert (there / "a").read_text() == "x"


def test_no_token_is_seen_in_the_list_of_processes(here: Path, hub: RunningHub) -> None:
    listed = "\n".join(command_lines().values())
    assert "haversack.drive.fuse.serving" in listed
    assert hub.token not in listed


def test_unmounting_nothing_is_said(mountpoint: Path) -> None:
    with pytest.raises(MountError, match="No drive is mounted"):
        unmount(mountpoint)


def test_a_hub_that_is_away_mounts_nothing(mountpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_TOKEN", "token")
    with pytest.raises(ConnectionFailed):
        mount(mountpoint, hub="http://127.0.0.1:9")
    assert not mountpoint.exists()


def test_a_wrong_token_mounts_nothing(hub: RunningHub, mountpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_TOKEN", "wrong")
    with pytest.raises(SignInError):
        mount(mountpoint)
    assert not mountpoint.exists()


def test_the_command_line_mounts_and_unmounts(hub: RunningHub, folder: str, mountpoint: Path) -> None:
    def haversack(*arguments: str | Path) -> str:
        command = [sys.executable, "-m", "haversack", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert haversack("mount", mountpoint) == f"Mounted at {mountpoint}; the bytes are on the hub at {hub.url}.\n"
    (mountpoint / "My Drive" / folder / "a").write_text("x")
    assert "Unmounted" in haversack("unmount", mountpoint)
    assert (hub.my_drive / folder / "a").read_text() == "x"


WORDS = {
    "a space": "Mountpoint must not contain a space.",
    "link": "Mountpoint must not be a symlink",
    "full": "Mountpoint must not already contain files",
    "file": "Mountpoint must either be a directory or not exist",
    "no/parent": "Mountpoint must be in a directory that exists",
}


@pytest.mark.parametrize("name", WORDS)
def test_a_bad_mount_point_is_refused_in_colabs_words(tmp_path: Path, name: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(MountpointInvalid) as raised:
        check_mountpoint(tmp_path / name, colab=True)
    assert str(raised.value) == WORDS[name]


@pytest.mark.parametrize("name", ["link", "full", "file", "no/parent"])
def test_nothing_is_mounted_at_a_bad_mount_point(hub: RunningHub, tmp_path: Path, name: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(MountpointInvalid, match=WORDS[name]):
        mount(tmp_path / name)


def test_a_space_in_the_path_is_fine_outside_colab(hub: RunningHub, folder: str, tmp_path: Path) -> None:
    mounted = mount(tmp_path / "a space")
    assert (mounted.my_drive / folder).is_dir()
    unmount(tmp_path / "a space")
