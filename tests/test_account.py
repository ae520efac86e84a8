"""What `haversack login kaggle` takes, checks and keeps. The hub stands for Kaggle, as a mirror of it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

from haversack import account, cli, credentials, signin
from haversack.errors import InputError, SignInError
from haversack.hub.signin import KAGGLE_USERNAME, SignIn
from tests.conftest import RunningHub

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def kaggle(shared_hub: RunningHub, monkeypatch: pytest.MonkeyPatch) -> RunningHub:
    monkeypatch.setenv("HAVERSACK_KAGGLE", shared_hub.url)
    return shared_hub


@pytest.fixture
def key(kaggle: RunningHub) -> dict[str, str]:
    """What is in a kaggle.json."""
    return {"username": KAGGLE_USERNAME, "key": SignIn(kaggle.token).kaggle_key}


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([*map(str, arguments)])
    return int(ended.value.code or 0)


def test_a_tokens_file_is_checked_and_kept(kaggle: RunningHub, tmp_path: Path, capsys: Captured) -> None:
    assert run("login", "kaggle", "--with", written(tmp_path / "token", kaggle.token + "\n")) == 0
    shown = capsys.readouterr().out
    assert f"Signed in to Kaggle at {kaggle.url} as {KAGGLE_USERNAME}, by {tmp_path}/token." in shown
    server = credentials.kaggle()
    assert (server.source, server.authorization) == ("haversack login", f"Bearer {kaggle.token}")
    assert signin.path().stat().st_mode & 0o777 == 0o600
    assert kaggle.token not in shown + repr(server) + repr(signin.load())
    assert kaggle.token in signin.load().secrets()


def test_a_key_file_is_checked_and_kept(key: dict[str, str], tmp_path: Path) -> None:
    account.login("kaggle", way=str(written(tmp_path / "kaggle.json", json.dumps(key))))
    (tmp_path / "kaggle.json").unlink()
    assert credentials.kaggle().kaggle_login == (key["username"], key["key"])


@pytest.mark.parametrize(
    "text", ["wrong-token", '{"username": "haversack", "key": "00000000000000000000000000000000"}']
)
def test_what_kaggle_refuses_is_not_kept(tmp_path: Path, text: str) -> None:
    with pytest.raises(SignInError, match=r"refused the sign-in of .*given\. Make a new token at https://"):
        account.login("kaggle", way=str(written(tmp_path / "given", text)))
    assert signin.load().kaggle is None


@pytest.mark.parametrize("text", ["", "two words", "{", '{"username": "ada"}'])
def test_what_is_no_token_and_no_key_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(SignInError, match=r"given (holds no Kaggle token|is not a Kaggle key file)"):
        account.login("kaggle", way=str(written(tmp_path / "given", text)))


def test_a_file_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no file"):
        account.login("kaggle", way=str(tmp_path / "nothing"))


def test_a_sign_in_that_is_found_is_taken_and_not_copied(own_folders: Path, key: dict[str, str]) -> None:
    file = written(own_folders / ".kaggle" / "kaggle.json", json.dumps(key))
    signed_in = account.login("kaggle")
    assert (signed_in.user, signed_in.source) == (KAGGLE_USERNAME, str(file))
    assert signin.load().kaggle is None


def test_what_was_signed_in_with_comes_before_a_file_and_after_the_environment(
    kaggle: RunningHub, own_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(own_folders / ".kaggle" / "kaggle.json", '{"username": "ada", "key": "old"}')
    account.login("kaggle", way=str(written(tmp_path / "token", kaggle.token)))
    assert credentials.kaggle().source == "haversack login"
    monkeypatch.setenv("KAGGLE_API_TOKEN", "of the shell")
    assert credentials.kaggle().source == "KAGGLE_API_TOKEN"
    said = account.login("kaggle", way=str(tmp_path / "token"))
    assert "KAGGLE_API_TOKEN takes precedence" in str(said)


def test_in_a_job_the_notebooks_own_key_comes_first(
    kaggle: RunningHub, own_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.login("kaggle", way=str(written(tmp_path / "token", kaggle.token)))
    monkeypatch.setenv("HAVERSACK_JOB", str(tmp_path))
    assert credentials.kaggle().source == "haversack login"
    file = written(own_folders / ".kaggle" / "kaggle.json", '{"username": "ada", "key": "own"}')
    assert credentials.kaggle().source == str(file)


def test_whoami_tells_and_logout_forgets(kaggle: RunningHub, tmp_path: Path, hub: RunningHub, capsys: Captured) -> None:
    said = account.login("kaggle", way=str(written(tmp_path / "token", kaggle.token)))
    assert str(said).endswith(f"Data sets come from the hub {hub.url} as long as it is the default.")
    found = {one.service: one for one in account.whoami()}
    assert (found["Kaggle"].user, found["Kaggle"].source) == (KAGGLE_USERNAME, "haversack login")
    assert run("logout", "kaggle") == 0
    assert "Signed out of Kaggle here" in capsys.readouterr().out
    assert signin.load().kaggle is None
    assert credentials.own_kaggle() is None


def test_nobody_there_is_told() -> None:
    program = "from haversack.cli import main; main(['login', 'kaggle'])"
    done = subprocess.run([sys.executable, "-c", program], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Nobody can be asked to sign in" in done.stderr
    assert "--with kaggle.json" in done.stderr


def test_somebody_at_a_terminal_is_asked_and_not_echoed(kaggle: RunningHub) -> None:
    keyboard, screen = pty.openpty()
    program = "from haversack.cli import main; main(['login', 'kaggle', '--json'])"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=screen, stdout=subprocess.PIPE, stderr=screen, start_new_session=True
    )
    os.close(screen)
    shown = b""
    while b": " not in shown:
        shown += os.read(keyboard, 1000)
    os.write(keyboard, f"{kaggle.token}\n".encode())
    told = json.loads(process.communicate(timeout=60)[0])
    os.close(keyboard)
    assert b"Your token from https://www.kaggle.com/settings/api: " in shown
    assert (told["service"], told["user"]) == ("Kaggle", KAGGLE_USERNAME)
    assert signin.load().kaggle == {"user": KAGGLE_USERNAME, "token": kaggle.token}


@pytest.mark.parametrize("names", [("KAGGLE_API_TOKEN",), ("KAGGLE_USERNAME", "KAGGLE_KEY")])
def test_colabs_secrets_sign_in(
    kaggle: RunningHub, key: dict[str, str], monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    values = {
        "KAGGLE_API_TOKEN": kaggle.token,
        "KAGGLE_USERNAME": key["username"],
        "KAGGLE_KEY": key["key"],
    }
    for name in names:
        monkeypatch.setenv(f"HAVERSACK_SECRET_{name}", values[name])
    cell = (
        "from haversack.notebook.colab import finder; finder.install()\n"
        "from haversack import account; print(account.login('kaggle'))"
    )
    manager, client = start_new_kernel(kernel_name="python3", startup_timeout=60)
    shown: list[str] = []

    def show(message: dict[str, Any]) -> None:
        shown.append(str(message["content"].get("text", message["content"])))

    try:
        client.execute_interactive(cell, timeout=60, output_hook=show)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert f"as {KAGGLE_USERNAME}, by Colab's secret" in "".join(shown)
