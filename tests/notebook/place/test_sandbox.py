"""What somebody else's notebook reaches: a real kernel in the sandbox tries, with things of the user's to be found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from haversack.errors import JobError
from haversack.notebook.job.job import JobReport
from haversack.notebook.place import sandbox
from tests.notebook import notebooks
from tests.notebook.conftest import Run

SECRET = "wPX3-the-users-secret-7Kd"
TRIES = """
import json, os, signal, subprocess, sys

def tried(action):
    try:
        return str(action())
    except BaseException as error:
        return f"{type(error).__name__}"

def shell(line):
    done = subprocess.run(line, shell=True, capture_output=True, text=True)
    return done.stdout + done.stderr

def written(path):
    with open(path, "w") as file:
        file.write("x")

def opened(path):
    os.close(os.open(path, os.O_WRONLY))

found = {}
for name, path in PATHS.items():
    found[f"read {name}"] = tried(lambda: open(path).read())
    found[f"write {name}"] = tried(lambda: written(path))
found["ssh"] = tried(lambda: open(os.path.expanduser("~/.ssh/id_rsa")).read())
found["kill"] = tried(lambda: os.kill(VICTIM, signal.SIGKILL))
found["ptrace"] = tried(lambda: open(f"/proc/{VICTIM}/mem", "rb").read(1))
found["processes"] = shell("cat /proc/[0-9]*/cmdline | tr '\\\\0' ' '")
found["environments"] = shell("cat /proc/[0-9]*/environ | tr '\\\\0' '\\\\n'")
found["system"] = tried(lambda: written("/usr/bin/haversack-was-here"))
found["core pattern"] = tried(lambda: opened("/proc/sys/kernel/core_pattern"))
found["writable"] = shell("find /proc /sys -writable -not -path '/proc/[0-9]*'")
found["mount"] = shell("mount -o remount,rw,bind /usr; umount /usr; touch /usr/bin/haversack-was-here")
done = subprocess.run([sys.executable, "-I", "-c", NAMESPACE], capture_output=True, text=True, timeout=60)
found["as root of a namespace"] = done.stdout + done.stderr
found["capabilities"] = [line for line in open("/proc/self/status") if line.startswith(("CapEff", "CapBnd"))]
found["root"] = sorted(os.listdir("/"))
found["devices"] = sorted(os.listdir("/dev"))
print(json.dumps(found))
"""
# A new user namespace gives every capability in it: what was mounted outside must stay as it is.
NAMESPACE = """
import ctypes, os
user, mounts, processes, remount = 0x10000000, 0x00020000, 0x20000000, 0x1020
libc = ctypes.CDLL(None, use_errno=True)
print("unshare", libc.unshare(user | mounts | processes))
for folder in (b"/usr", b"/proc", b"/sys"):
    print("remount", folder, libc.mount(None, folder, None, remount, None))
child = os.fork()
if child == 0:
    libc.mount(b"proc", b"/proc", b"proc", 0, None)
    for path in ("/proc/sys/kernel/core_pattern", "/sys/kernel/uevent_helper", "/usr/bin/env"):
        try:
            os.close(os.open(path, os.O_WRONLY))
            print("opened", path, 0, flush=True)
        except OSError as error:
            print("refused", path, error.errno, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
WORKS = """
import json, os, sys, tempfile
with open("/content/made.txt", "w") as file:
    file.write("kept")
with tempfile.NamedTemporaryFile() as file, open(os.path.expanduser("~/note"), "w") as note:
    note.write(file.name)
from google.colab import files
files.download("/content/made.txt")
print(os.getcwd(), os.environ["HARMLESS"])
"""
MOUNT = "from google.colab import drive\ndrive.mount('/content/drive')"
SIGN_INS = """
from google.colab import auth, userdata
for action in (auth.authenticate_user, lambda: userdata.get("MINE")):
    try:
        print(action())
    except Exception as error:
        print(type(error).__name__, error)
"""


@dataclass(frozen=True)
class Tried:
    report: JobReport
    found: dict[str, Any]
    victim: subprocess.Popen[bytes]
    files: list[Path]


@pytest.fixture(scope="module")
def tried(run_once: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    try:
        sandbox.check()
    except JobError as error:
        pytest.skip(str(error))
    home = Path(os.environ["HOME"])
    other = home / "data" / "jobs" / "other-job"
    files = {
        "ssh": home / ".ssh" / "id_rsa",
        "netrc": home / ".netrc",
        "kaggle": home / ".kaggle" / "kaggle.json",
        "sign-ins": home / "data" / "signin.json",
        "secrets": home / ".config" / "haversack" / "secrets.toml",
        "hub": home / "data" / "embedded" / "hub.json",
        "drive": home / "data" / "hub" / "My Drive" / "letter.txt",
        "other job": other / "content" / "result.txt",
        "shared cache": home / "cache" / "libraries" / ".cache" / "huggingface" / "hub" / "model.bin",
        "environment": home / "cache" / "environments" / "key" / "tree" / "module.py",
        "temporary": tmp_path_factory.mktemp("others") / "file",
    }
    for file in files.values():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"token": SECRET, "kaggle_key": SECRET}) if file.suffix == ".json" else SECRET)
        file.chmod(0o600)
    victim = subprocess.Popen(["sleep", "600"], env={**os.environ, "VICTIM_TOKEN": SECRET})
    paths = json.dumps({name: str(path) for name, path in files.items()})
    tell = f"NAMESPACE = {NAMESPACE!r}\nPATHS = {paths}\nVICTIM = {victim.pid}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MY_TOKEN", SECRET)
        patch.setenv("HTTPS_PROXY", f"http://me:{SECRET}@127.0.0.1:9")
        patch.setenv("HAVERSACK_SECRET_MINE", SECRET)
        patch.setenv("HARMLESS", "harmless")
        (home / "data" / "signin.json").write_text(json.dumps({"kaggle": {"user": "me", "token": SECRET}}))
        (home / ".config" / "haversack" / "secrets.toml").write_text(f'MINE = "{SECRET}"')
        report = run_once(tell, TRIES, WORKS, SIGN_INS, MOUNT, trusted=False, address="https://example.org/x.ipynb")
    yield Tried(report, json.loads(notebooks.text(report.output, 1)), victim, list(files.values()))
    victim.kill()
    victim.wait()


def test_no_file_of_the_users_is_read_or_changed(tried: Tried) -> None:
    got = {name: value for name, value in tried.found.items() if name.startswith("read ")}
    assert set(got.values()) == {"FileNotFoundError"}
    assert tried.found["ssh"] == "FileNotFoundError"
    for file in tried.files:
        assert not file.exists() or SECRET in file.read_text() or file.suffix == ".json"


def test_no_process_of_the_users_is_seen_or_killed(tried: Tried) -> None:
    assert tried.victim.poll() is None
    assert tried.found["kill"] == "ProcessLookupError"
    assert tried.found["ptrace"] == "FileNotFoundError"
    assert "sleep 600" not in tried.found["processes"]
    assert "kernel_launcher" in tried.found["processes"]


def test_no_variable_holds_a_secret(tried: Tried) -> None:
    assert "HARMLESS=harmless" in tried.found["environments"]
    for name in ("MY_TOKEN", "VICTIM_TOKEN", "HTTPS_PROXY", "HAVERSACK_SECRET_MINE"):
        assert name not in tried.found["environments"]


def test_the_machine_is_not_changed(tried: Tried) -> None:
    assert tried.found["system"] == "OSError"
    assert tried.found["core pattern"] in ("OSError", "PermissionError")
    assert tried.found["writable"] == ""
    inside = tried.found["as root of a namespace"].splitlines()
    assert [line for line in inside if line.endswith(" 0") and not line.startswith("unshare")] == []
    assert len([line for line in inside if line.startswith("refused")]) == 3
    assert not Path("/usr/bin/haversack-was-here").exists()
    assert {line.split()[1] for line in tried.found["capabilities"]} == {"0000000000000000"}
    assert "disk" not in tried.found["devices"]
    ours = {Path(folder).parts[1] for folder in (sys.prefix, sys.base_prefix)}
    assert not {"home", "mnt", "srv", "opt", "boot"} & (set(tried.found["root"]) - ours)


def test_what_a_notebook_is_for_works(tried: Tried) -> None:
    assert notebooks.text(tried.report.output, 2).splitlines()[-1] == "/content harmless"
    assert Path(tried.report.job, "content", "made.txt").read_text() == "kept"
    assert [Path(path).read_text() for path in tried.report.downloads] == ["kept"]


def test_sign_ins_are_refused_with_a_sentence(tried: Tried) -> None:
    said = notebooks.text(tried.report.output, 3)
    assert "AuthorizationError This notebook is somebody else's program" in said
    assert "SecretNotFoundError This notebook is somebody else's program" in said
    assert said.count("--trust") == 2


def test_the_drive_is_refused_with_a_sentence(tried: Tried) -> None:
    assert tried.report.status == "failed"
    assert "so it gets no drive" in str(tried.report.error)
    assert "--trust" in str(tried.report.error)


def test_the_report_names_the_source_and_says_that_it_is_isolated(tried: Tried) -> None:
    told = tried.report.json()
    assert (told["notebook"], told["trusted"]) == ("https://example.org/x.ipynb", False)
    assert "source     https://example.org/x.ipynb (not trusted)" in tried.report.summary
    assert any("--trust" in notice and "isolated" in notice for notice in told["notices"])
    assert notebooks.read(tried.report.output).metadata["haversack"]["source"] == "https://example.org/x.ipynb"


def test_where_nothing_isolates_the_notebook_is_refused(run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JobError, match=r"bubblewrap.* is not installed") as raised:
        run("1", trusted=False, address="https://example.org/x.ipynb")
    assert "--trust" in raised.value.next_step
    assert not (Path(os.environ["HAVERSACK_DATA"]) / "jobs").exists()
