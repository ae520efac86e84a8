"""A kernel's pipe to a process of haversack's own Python: real processes, killed, forked and interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from haversack.errors import ConnectionFailed, MountpointInvalid, SignInError
from haversack.notebook.clients import client, interpreter
from haversack.notebook.clients.client import Client
from tests.conftest import RunningHub


@pytest.fixture
def running() -> Iterator[Client]:
    made = Client()
    yield made
    made.close()


def pid_of(running: Client) -> int:
    assert running._process is not None
    return running._process.pid


def wait_for_the_end_of(pid: int) -> None:
    """Until no such process runs; one that has ended may still be listed, as a zombie."""
    end = time.monotonic() + 60
    while (status := Path(f"/proc/{pid}/stat")).exists() and status.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < end, f"{pid} still runs"
        time.sleep(0.05)


def test_an_action_is_carried_out_in_another_process(running: Client, hub: RunningHub) -> None:
    assert running.ask("secrets") == [hub.token]
    assert pid_of(running) != os.getpid()


@pytest.mark.parametrize("apart", [False, True])
def test_an_error_is_the_same_in_this_process_and_in_another(
    apart: bool, monkeypatch: pytest.MonkeyPatch, hub: RunningHub
) -> None:
    if apart:
        monkeypatch.setenv(interpreter.VARIABLE, "process")
    with pytest.raises(MountpointInvalid, match="Mountpoint must not contain a space"):
        client.call("mount", mountpoint="a b", force_remount=False, readonly=False)


def test_the_process_sees_nothing_of_the_kernels_python(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hub: RunningHub
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong module')")
    (tmp_path / "haversack.py").write_text("raise SystemExit('the wrong module')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path))
    monkeypatch.setenv(interpreter.VARIABLE, "process")
    monkeypatch.chdir(tmp_path)
    assert client.call("secrets") == [hub.token]
    assert not {"PYTHONPATH", "VIRTUAL_ENV", interpreter.VARIABLE} & set(interpreter.environment(os.environ))


def test_a_package_that_is_not_installed_is_found_where_the_kernel_has_it_from(tmp_path: Path) -> None:
    """As a checkout in PYTHONPATH: a Python without our package imports it all the same."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    python, *rest = interpreter.command("haversack.notebook.clients.interpreter")
    assert python == sys.executable
    done = subprocess.run([tmp_path / "env" / "bin" / "python", *rest], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_call_whose_process_dies_says_so_and_the_next_has_another_one(running: Client, hub: RunningHub) -> None:
    running.ask("secrets")
    first = pid_of(running)
    os.kill(first, signal.SIGKILL)
    with pytest.raises(ConnectionFailed, match="'secrets' died before it answered"):
        running.ask("secrets")
    assert running.ask("secrets") == [hub.token]
    assert pid_of(running) != first


def test_an_interrupted_call_leaves_no_answer_for_the_next(running: Client, hub: RunningHub) -> None:
    running.ask("secrets")
    os.kill(pid_of(running), signal.SIGSTOP)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        running.ask("drive.exists", arguments=["a"], options={})
    assert running.ask("secrets") == [hub.token]


def test_threads_take_turns(running: Client, hub: RunningHub) -> None:
    with ThreadPoolExecutor(8) as threads:
        names = [f"no such {number}" for number in range(40)]
        calls = [threads.submit(running.ask, "drive.exists", arguments=[name], options={}) for name in names]
        assert [call.result() for call in calls] == [False] * 40


def test_the_process_ends_when_its_kernel_is_killed(hub: RunningHub) -> None:
    code = (
        "from haversack.notebook.clients.client import Client\n"
        "client = Client(); client.ask('secrets'); print(client._process.pid, flush=True); input()"
    )
    kernel = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert kernel.stdout is not None
    pid = int(kernel.stdout.readline())
    kernel.kill()
    kernel.communicate()
    wait_for_the_end_of(pid)


def test_a_fork_has_a_process_of_its_own_and_does_not_keep_this_one_alive(hub: RunningHub) -> None:
    code = """
import os, time
from haversack.notebook.clients import filesystem
client = filesystem._client
client.ask("secrets")
pid = client._process.pid
if os.fork() == 0:
    assert client.ask("secrets") and client._process.pid != pid
    client.close()
    print(pid, flush=True)
    time.sleep(30)
os.wait()
"""
    kernel = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert kernel.stdout is not None
    try:
        pid = int(kernel.stdout.readline())
        os.kill(kernel.pid, signal.SIGKILL)
        wait_for_the_end_of(pid)
    finally:
        os.killpg(kernel.pid, signal.SIGKILL)
        kernel.communicate()


def test_nobody_signed_in_is_the_drives_own_error(running: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_HUB", "http://127.0.0.1:9")
    with pytest.raises(SignInError, match="There is no token for the hub"):
        running.ask("secrets")


def served(action: str) -> subprocess.Popen[str]:
    """A serving process with this expression as its action "a", which it has been asked for."""
    code = (
        "import time\nfrom haversack.notebook.clients import actions, serving\n"
        f"actions.ACTIONS['a'] = lambda: {action}\nserving.main()"
    )
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert process.stdin is not None
    process.stdin.write('{"action": "a", "arguments": {}}\n')
    process.stdin.flush()
    return process


def test_what_a_library_prints_is_no_answer() -> None:
    process = served("print('noise') or 7")
    assert process.stdout is not None
    assert process.stdout.readline() == '{"result": 7}\n'
    assert process.communicate() == ("", "noise\n")


def test_it_ends_when_its_input_closes_whatever_it_is_doing() -> None:
    """A session that follows must not meet an upload of this one."""
    process = served("print('begun', flush=True) or time.sleep(60)")
    assert process.stderr is not None
    assert process.stderr.readline() == "begun\n"
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0
