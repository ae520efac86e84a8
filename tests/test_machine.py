"""What `haversack doctor` says of this machine, and of machines that lack something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from haversack import account, machine, settings, signin
from haversack.gpus import locks, nvidia_smi
from haversack.machine import Fact
from tests.conftest import RunningHub


def doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "haversack", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def finding(name: str) -> Fact:
    return next(one for one in machine.examine().findings if one.name == name)


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def no_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of the PATH, empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_it_prints_every_part_and_ends_with_0() -> None:
    done = doctor()
    assert done.returncode == 0, done.stderr
    for name in ("Python", "FUSE", "/content", "GPU", "cores", "memory", "data folder", "cache folder", "drive", "uv"):
        assert any(line[2:].startswith(name) for line in done.stdout.splitlines()), name


def test_json_is_one_object_that_names_the_lacks(no_programs: Path) -> None:
    done = doctor("--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found["lacks"] == [one["name"] for one in found["findings"] if not one["ok"]]
    assert "commands" in found["lacks"]


def test_every_lack_has_one_line_of_what_to_do_and_nothing_else_has(no_programs: Path) -> None:
    for one in machine.examine().findings:
        assert bool(one.remedy) is not one.ok, one
        assert "\n" not in one.remedy


def test_missing_commands_are_named_with_the_packages(no_programs: Path) -> None:
    program(no_programs / "git", "")
    found = finding("commands")
    assert not found.ok
    assert "apt-get install wget curl unzip" in found.remedy


def test_uv_is_found_on_the_path(no_programs: Path) -> None:
    program(no_programs / "uv", "echo uv 9.8.7")
    assert "uv 9.8.7" in finding("uv").what
    program(no_programs / "uv", "exit 3")
    assert not finding("uv").ok


def test_no_secret_is_shown(own_folders: Path) -> None:
    (own_folders / ".kaggle").mkdir()
    (own_folders / ".kaggle" / "kaggle.json").write_text('{"username": "ada", "key": "SECRET-key"}')
    with signin.changing() as kept:
        kept.hubs["http://127.0.0.1:1"] = "SECRET-stored"
        kept.google = {"with": "client", "said": "f", "credentials": {"refresh_token": "SECRET-refresh"}}
    for given in (
        {"HAVERSACK_HUB": "http://ada:SECRET-word@127.0.0.1:1", "HAVERSACK_TOKEN": "SECRET-token"},
        {"HAVERSACK_HUB": "google"},
        {"KAGGLE_API_TOKEN": "SECRET-kaggle", "HAVERSACK_KAGGLE": "http://ada:SECRET-word@127.0.0.1:1"},
        {},
    ):
        for arguments in ([], ["--json"]):
            done = doctor(*arguments, **given)
            assert done.returncode == 0, done.stderr
            assert "SECRET" not in done.stdout + done.stderr


def test_it_opens_no_connection() -> None:
    code = (
        "import sys\n"
        "def refuse(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.bind'): raise SystemExit(event)\n"
        "sys.addaudithook(refuse)\n"
        "from haversack.cli import main\n"
        "main(['doctor'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_it_writes_nothing_and_starts_no_hub(own_folders: Path) -> None:
    doctor()
    assert list(own_folders.iterdir()) == []


def test_settings_that_cannot_be_read_are_a_finding(own_folders: Path) -> None:
    file = settings.folder() / "settings.toml"
    file.parent.mkdir(parents=True)
    file.write_text("hubb = 1")
    done = doctor("--json")
    assert done.returncode == 0
    found = {one["name"]: one for one in json.loads(done.stdout)["findings"]}
    for name in ("settings", "data folder", "drive"):
        assert "'hubb', which is not a setting" in found[name]["what"]
        assert found[name]["remedy"]
    assert found["Python"]["ok"]


def test_fuse_that_is_turned_off_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_FUSE", "off")
    found = finding("FUSE")
    assert not found.ok
    assert found.remedy == "Unset HAVERSACK_FUSE to mount the drive."


@pytest.mark.parametrize(
    ("user", "status", "may"),
    [
        (0, "CapEff:\t0000000000200000\nCapBnd:\t0\nNoNewPrivs:\t1\n", True),
        (0, "CapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nNoNewPrivs:\t0\n", False),  # Docker's default
        (1000, "CapEff:\t0\nCapBnd:\t000001ffffffffff\nNoNewPrivs:\t0\n", True),
        (1000, "CapEff:\t0\nCapBnd:\t000001ffffffffff\nNoNewPrivs:\t1\n", False),
        (1000, "CapEff:\t0\nCapBnd:\t00000000a80425fb\nNoNewPrivs:\t0\n", False),
    ],
)
def test_a_container_that_may_not_mount_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int, status: str, may: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    (tmp_path / "status").write_text(status)
    assert machine._may_mount(tmp_path / "status") is may


def test_gpus_and_who_holds_them_are_shown(no_programs: Path) -> None:
    program(
        no_programs / "nvidia-smi",
        "case $1 in\n"
        "-L) echo 'GPU 0: Tesla T4 (UUID: GPU-a)'; echo 'GPU 1: Tesla T4 (UUID: GPU-b)';;\n"
        "--query-gpu=*) echo 'GPU-a, 15360, 3, 550.54'; echo 'GPU-b, 15360, 5000, 550.54';;\n"
        "esac",
    )
    first = nvidia_smi.present()[0]
    assert finding("GPU").what.startswith("GPU 0: Tesla T4, 3.1 MB of 16.1 GB used, free; GPU 1:")
    held = locks.lock(first)
    assert held is not None
    locks.sign(held, locks.GpuHolder("train-1", 7))
    found = finding("GPU")
    os.close(held)
    assert found.ok
    assert "GPU 0: Tesla T4, 3.1 MB of 16.1 GB used, held by the job train-1 (process 7); " in found.what
    assert found.what.endswith(
        "GPU 1: Tesla T4, 5.2 GB of 16.1 GB used, used by programs that are not shown. Driver 550.54."
    )
    assert [gpu["holder"] for gpu in found.values["gpus"]] == [{"job": "train-1", "pid": 7}, None]


@pytest.mark.parametrize("text", ["echo 'NVIDIA-SMI has failed.'; exit 9", "echo No devices were found", "exit 0"])
def test_an_nvidia_smi_that_fails_is_a_lack(no_programs: Path, text: str) -> None:
    program(no_programs / "nvidia-smi", text)
    found = finding("GPU")
    assert not found.ok
    assert found.values == {"gpus": []}


def test_a_card_without_its_driver_is_found_on_the_bus(tmp_path: Path) -> None:
    card = tmp_path / "0000:01:00.0"
    card.mkdir()
    (card / "vendor").write_text("0x10de\n")
    (card / "class").write_text("0x040300\n")  # its sound
    assert not machine._has_nvidia_card(tmp_path)
    (card / "class").write_text("0x030200\n")
    assert machine._has_nvidia_card(tmp_path)


def test_cores_and_memory_are_those_of_the_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_control_groups", lambda: [tmp_path])
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text("600000000\n")
    (tmp_path / "memory.current").write_text("500000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 100000000\n")
    assert finding("cores").values == {"cores": len(os.sched_getaffinity(0)), "limit": 0.5}
    memory = finding("memory")
    assert memory.values == {"total": 600_000_000, "available": 200_000_000}
    assert not memory.ok
    for name in ("cpu.max", "memory.max"):
        (tmp_path / name).write_text("max 100000\n" if name == "cpu.max" else "max\n")
    assert finding("cores").values["limit"] is None
    assert finding("memory").values["total"] > 600_000_000


def test_a_folder_in_memory_is_lost_with_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/shm").is_dir() or machine.place.file_system(Path("/dev/shm")) != "tmpfs":
        pytest.skip("no file system in memory here")
    monkeypatch.setattr(machine, "LITTLE_DISK", 0)
    monkeypatch.setenv("HAVERSACK_DATA", "/dev/shm/not/there/yet")
    found = finding("data folder")
    assert not found.ok
    assert "lost with this machine's session" in found.what
    assert "HAVERSACK_DATA" in found.remedy
    assert not finding("drive").ok  # the embedded hub would be lost


def test_a_folder_with_little_space_is_a_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LITTLE_DISK", 10**18)
    found = finding("cache folder")
    assert not found.ok
    assert "haversack jobs rm --done" in found.remedy


def test_a_folder_that_cannot_be_made_is_a_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HAVERSACK_CACHE", str(tmp_path / "file" / "cache"))
    assert "cannot be written" in finding("cache folder").what


def test_a_hub_without_its_token_is_a_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_HUB", "http://127.0.0.1:1")
    found = finding("drive")
    assert not found.ok
    assert "haversack login hub http://127.0.0.1:1" in found.remedy


def test_google_without_a_sign_in_is_a_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_HUB", "google")
    assert finding("drive").remedy == "Sign in: haversack login google"
    monkeypatch.setenv("HAVERSACK_GOOGLE", "rclone:gdrive")
    assert finding("drive").ok
    assert finding("drive").values == {"drive": "google", "sign_in": "rclone:gdrive"}


def test_it_names_the_servers_that_whoami_finds(hub: RunningHub) -> None:
    """`hub` is named with its token in the environment; then none is, and the embedded hub serves both."""
    drive, *_ = account.whoami()
    assert finding("drive").values == {"drive": drive.url, "sign_in": drive.source}
    assert finding("Kaggle").values["server"] == drive.url


def test_without_anything_the_drive_is_the_embedded_hub() -> None:
    if not machine.place.disk_outlives_session(settings.load().data):
        pytest.skip("the test's folders are lost with the session")
    assert finding("drive").values == {"drive": "embedded", "sign_in": None}
    assert account.whoami()[0].service == "embedded hub"


def test_kaggles_own_sign_in_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not finding("Kaggle").ok
    monkeypatch.setenv("KAGGLE_USERNAME", "ada")
    monkeypatch.setenv("KAGGLE_KEY", "0123")
    found = finding("Kaggle")
    assert found.ok
    assert found.values == {"server": "https://api.kaggle.com", "sign_in": "KAGGLE_USERNAME and KAGGLE_KEY"}


def test_both_doctors_say_how_they_differ() -> None:
    def helped(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "haversack", *command, "--help"],
            capture_output=True,
            text=True,
            env={**os.environ, "COLUMNS": "200"},
        )
        return done.stdout

    assert "drive doctor" in helped("doctor").split("Example")[0].split("Usage")[1].split("\n", 1)[1]
    assert "haversack doctor" in helped("drive", "doctor").split("Example")[0]
