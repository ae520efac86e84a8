"""The embedded hub: one for all processes, started when needed, gone with its last user."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from haversack import credentials, embedded
from tests.processes import command_lines

USER = """
import sys, time
from haversack import credentials
print(credentials.drive("embedded").url, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def let_go() -> Iterator[None]:
    yield
    embedded.detach()


def data() -> Path:
    return Path(os.environ["HAVERSACK_DATA"])


def start_user() -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen([sys.executable, "-c", USER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def answers(url: str) -> bool:
    import urllib.error
    import urllib.request

    try:
        urllib.request.urlopen(url, timeout=5)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def wait_until_gone(url: str) -> None:
    end = time.monotonic() + 60
    while answers(url):
        assert time.monotonic() < end, "the hub is still there"
        time.sleep(0.1)


def test_processes_share_one_and_the_last_one_killed_ends_it() -> None:
    first, url = start_user()
    second, same = start_user()
    assert url == same
    first.kill()
    first.wait()
    time.sleep(4)
    assert answers(url)
    second.kill()
    second.wait()
    wait_until_gone(url)


def test_many_starting_at_once_share_one() -> None:
    users = [start_user() for _ in range(4)]
    assert len({url for _, url in users}) == 1
    for process, _ in users:
        process.kill()
        process.wait()


def test_a_killed_hub_is_started_anew_over_the_same_files() -> None:
    hub = credentials.drive("embedded")
    assert hub.folder is not None
    (hub.folder / "note.txt").write_text("still here")
    [process] = [number for number, line in command_lines().items() if str(data() / "embedded" / "hub.json") in line]
    os.kill(process, signal.SIGKILL)
    wait_until_gone(hub.url)
    again = credentials.drive("embedded")
    assert answers(again.url)
    assert again.folder is not None
    assert (again.folder / "note.txt").read_text() == "still here"


def test_what_signs_in_is_readable_by_its_user_alone() -> None:
    credentials.drive("embedded")
    for name in ("token", "hub.json"):
        assert stat.S_IMODE((data() / "embedded" / name).stat().st_mode) == 0o600


def test_the_hubs_own_kaggle_key_means_the_hub(own_folders: Path) -> None:
    import json

    login = credentials.kaggle("embedded").kaggle_login
    assert login is not None
    (own_folders / ".kaggle").mkdir()
    (own_folders / ".kaggle" / "kaggle.json").write_text(json.dumps({"username": login[0], "key": login[1]}))
    # Nobody named a hub, and a Kaggle sign-in is there; its key tells whose it is.
    assert credentials.kaggle().name == "embedded hub"


@pytest.mark.parametrize("text", ["", "[]", '{"url": "http://127.0.0.1:9"}', '{"port": 1, "url": 2}'])
def test_what_another_version_wrote_of_its_hub_is_passed_over(text: str) -> None:
    (data() / "embedded").mkdir(parents=True)
    (data() / "embedded" / "hub.json").write_text(text)
    assert embedded.known_kaggle_key(data()) is None
    assert answers(credentials.drive("embedded").url)
