"""Signing in to Google's drive, against an OAuth server of the tests' own before a real hub."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import pty
import re
import secrets
import stat
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

from haversack import account, cli, credentials, google, signin
from haversack.drive.remote import upload as uploading
from haversack.drive.remote.api import DriveApi, File, ResumableUpload
from haversack.errors import InputError, SignInError
from haversack.http import wait
from tests.conftest import RunningHub
from tests.oauth import CLIENT, OAuth, serving


@pytest.fixture
def oauth(shared_hub: RunningHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[OAuth]:
    """Google, as far as this test can tell: its OAuth server and its drive."""
    with serving(shared_hub) as oauth:
        monkeypatch.setattr(google, "API", oauth.url)
        # oauthlib refuses endpoints without TLS; Google's have it, a test's on loopback need none.
        monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
        yield oauth


@pytest.fixture
def client(oauth: OAuth, tmp_path: Path) -> Path:
    file = tmp_path / "client_secret.json"
    file.write_text(json.dumps(oauth.client()))
    return file


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Somebody at a terminal; what is written to the descriptor is what they type."""
    keyboard, screen = pty.openpty()
    with os.fdopen(screen) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield keyboard
    os.close(keyboard)


@pytest.fixture
def browser(tmp_path: Path, terminal: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser on this machine whose user agrees to everything."""
    program = tmp_path / "browser"
    program.write_text(f"#!{sys.executable}\nimport sys, urllib.request\nurllib.request.urlopen(sys.argv[1])\n")
    program.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{program} %s")


def rclone(home: Path, oauth: OAuth, *, expires: float = -60, **options: str) -> Path:
    """A configuration of rclone whose token ends in so many seconds."""
    end = (datetime.now(UTC) + timedelta(seconds=expires)).isoformat()
    token = {**oauth.token(), "refresh_token": oauth.grant(), "expiry": end}
    options = {"type": "drive", "token": json.dumps(token), "token_url": f"{oauth.url}/token", **options}
    file = home / ".config" / "rclone" / "rclone.conf"
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(["[photos]", "type = s3", "", "[gdrive]", *(f"{name} = {options[name]}" for name in options)])
    file.write_text(text)
    return file


def run(arguments: list[str]) -> None:
    """The command, as in a process of its own."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 0


def api() -> DriveApi:
    return DriveApi(credentials.drive())


def test_the_browser_signs_in(oauth: OAuth, client: Path, browser: None) -> None:
    signed_in = account.login(way=str(client))
    assert (signed_in.user, signed_in.url) == ("haversack@localhost", oauth.url)
    assert oauth.asked[0]["code_challenge_method"] == "S256"
    assert wait(api().get("root")).is_folder


def test_what_is_kept_is_for_its_owner_alone_and_never_shown(
    client: Path, browser: None, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["login", "--with", str(client), "--json"])
    run(["whoami"])
    shown = "".join(capsys.readouterr()) + repr(credentials.drive()) + repr(signin.load())
    assert stat.S_IMODE(signin.path().stat().st_mode) == 0o600
    assert len(signin.load().secrets()) == 3
    assert not [secret for secret in signin.load().secrets() if secret in shown]


def last_page(address: str) -> str:
    """The address of the page that a browser on another machine ends at, which does not open there."""

    class Stops(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *arguments: Any) -> None:
            return None

    with pytest.raises(urllib.error.HTTPError) as redirect:
        urllib.request.build_opener(Stops).open(address)
    return str(redirect.value.headers["Location"])


def paste(keyboard: int, capfd: pytest.CaptureFixture[str], change: Any = lambda address: address) -> threading.Thread:
    """Open the address that is printed in a browser on another machine, and paste where that ended."""

    printed, before = io.StringIO(), sys.stderr
    sys.stderr = printed

    def run() -> None:
        while not (found := re.search(r"(http://\S+/auth\S+)\s", printed.getvalue())):
            time.sleep(0.01)
        sys.stderr = before
        os.write(keyboard, change(last_page(found[1])).encode() + b"\n")

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_the_address_of_the_page_that_failed_may_be_pasted(
    client: Path, terminal: int, capfd: pytest.CaptureFixture[str]
) -> None:
    pasting = paste(terminal, capfd)
    assert account.login(way=str(client), browser=False).user == "haversack@localhost"
    pasting.join()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda address: re.sub("state=[^&]+", "state=another", address), "does not belong to this sign-in"),
        (lambda address: re.sub("code=[^&]+", "", address), "holds no authorization code"),
        (lambda address: "4/0AeanS0", "does not belong to this sign-in"),
    ],
)
def test_an_address_that_is_no_answer_is_refused(
    client: Path, terminal: int, capfd: pytest.CaptureFixture[str], change: Any, said: str
) -> None:
    pasting = paste(terminal, capfd, change)
    with pytest.raises(SignInError, match=said):
        account.login(way=str(client), browser=False)
    pasting.join()
    assert signin.load().google is None


def test_an_answer_that_nobody_asked_for_does_not_end_the_question(
    client: Path, terminal: int, capfd: pytest.CaptureFixture[str]
) -> None:
    def forged_first(address: str) -> str:
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(re.sub("state=[^&]+", "state=forged", address))
        return address

    pasting = paste(terminal, capfd, forged_first)
    assert account.login(way=str(client), browser=False).user
    pasting.join()


def test_declining_is_said(oauth: OAuth, client: Path, browser: None) -> None:
    oauth.declines = True
    with pytest.raises(SignInError, match=r"not granted \(access_denied\)"):
        account.login(way=str(client))


def test_a_box_that_was_not_ticked_is_said(oauth: OAuth, client: Path, browser: None) -> None:
    oauth.scope = "openid"
    with pytest.raises(SignInError, match="Google Drive ticked"):
        account.login(way=str(client))


def test_the_narrow_mode_asks_for_its_own_files_only(oauth: OAuth, client: Path, browser: None) -> None:
    assert "Only files that haversack made" in str(account.login(way=str(client), narrow=True))
    assert oauth.asked[0]["scope"].endswith("/auth/drive.file")


def test_without_anybody_there_one_sentence_is_said(
    client: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(SystemExit) as ended:
        cli.main(["login", "google", "--with", str(client)])
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert said.count("\n") == 1
    assert "Nobody can be asked to sign in" in said


def test_the_kept_client_is_asked_again(oauth: OAuth, client: Path, browser: None) -> None:
    account.login(way=str(client))
    client.unlink()
    oauth.grants.clear()
    oauth.expire()
    assert account.login().user
    assert len(oauth.asked) == 2


def test_who_is_signed_in_is_not_asked_again(oauth: OAuth, client: Path, browser: None) -> None:
    account.login(way=str(client))
    account.login()
    assert len(oauth.asked) == 1


def test_a_token_that_expires_in_the_middle_is_renewed_once(
    oauth: OAuth, client: Path, browser: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploading, "CHUNK", 4 << 20)
    account.login(way=str(client))
    drive = api()
    (tmp_path / "source").write_bytes(content := os.urandom(6 << 20))
    digest = hashlib.md5(content).hexdigest()

    async def operations(parent: str, number: int) -> File:
        """Twenty at once, one of them an upload in pieces."""
        new_id = await drive.new_id()
        large = ResumableUpload(tmp_path / "source", 6 << 20, digest, new_id, False, parent, f"{number}.bin", 1e9)
        large.moved = lambda position: oauth.expire() if number == 7 else None
        folders = [drive.create_folder(parent, f"{number} {other}") for other in range(9)]
        await asyncio.gather(*folders, *(drive.get(parent) for _ in range(10)), drive.upload(large))
        return await drive.get(new_id)

    async def ten_times() -> list[File]:
        parent = (await drive.create_folder((await drive.get("root")).id, secrets.token_hex(8))).id
        files = []
        for number in range(10):
            files.append(await operations(parent, number))
            if number in (2, 5):
                oauth.expire()
        assert len([file async for file in drive.list(parent)]) == 100
        return files

    assert [file.md5 for file in wait(ten_times())] == [digest] * 10
    assert oauth.refreshed == 3


def test_a_token_is_renewed_before_it_expires(oauth: OAuth, client: Path, browser: None) -> None:
    oauth.life = 2
    account.login(way=str(client))
    before = oauth.calls

    async def operations() -> None:
        for _ in range(14):
            await drive.get("root")
            await asyncio.sleep(0.25)

    drive = api()
    wait(operations())
    assert oauth.refreshed >= 1
    assert oauth.calls - before == 14


def test_a_renewed_token_is_kept_for_the_next_process(oauth: OAuth, client: Path, browser: None) -> None:
    account.login(way=str(client))
    oauth.expire()
    wait(api().get("root"))
    google._opened_sign_ins.clear()
    wait(api().get("root"))
    assert oauth.refreshed == 1


def test_a_revoked_sign_in_is_said(oauth: OAuth, client: Path, browser: None) -> None:
    account.login(way=str(client))
    oauth.grants.clear()
    oauth.expire()
    with pytest.raises(SignInError, match=r"invalid_grant.*haversack login google") as raised:
        wait(api().get("root"))
    assert not [secret for secret in signin.load().secrets() if secret in str(raised.value)]


def test_logging_out_forgets_and_revokes(oauth: OAuth, client: Path, browser: None) -> None:
    account.login(way=str(client))
    assert account.logout() == ["Signed out of Google, which has revoked the sign-in."]
    assert oauth.grants == set()
    assert (signin.load().google, signin.load().drive) == (None, None)


def test_rclones_configuration_signs_in_and_is_only_read(own_folders: Path, oauth: OAuth) -> None:
    file = rclone(own_folders, oauth, **CLIENT)
    before = file.read_bytes(), file.stat().st_mtime_ns
    assert account.login().source == "rclone's remote gdrive"
    assert wait(api().get("root")).is_folder
    assert oauth.refreshed == 1
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before


def test_rclones_own_client_is_used_while_its_token_lasts(own_folders: Path, oauth: OAuth) -> None:
    rclone(own_folders, oauth, expires=600)
    account.login()
    assert wait(api().get("root")).is_folder
    rclone(own_folders, oauth, expires=-1)
    google._opened_sign_ins.clear()
    with pytest.raises(SignInError, match="only rclone can renew it"):
        api()


def test_rclone_comes_before_a_client(own_folders: Path, oauth: OAuth, client: Path, browser: None) -> None:
    account.login(way=str(client))
    rclone(own_folders, oauth, **CLIENT)
    assert list(google.ways()) == ["rclone:gdrive", "client"]


@pytest.mark.parametrize(
    "text", ["# Encrypted rclone configuration File\n\nRCLONE_ENCRYPT_V0:\nx", "[a", "[gdrive]\ntype = drive"]
)
def test_a_configuration_of_rclone_without_a_token_is_passed_over(own_folders: Path, oauth: OAuth, text: str) -> None:
    rclone(own_folders, oauth).write_text(text)
    assert list(google.ways()) == []
    with pytest.raises(SignInError, match=r"No sign-in to Google .*docs/signin\.md"):
        account.login()


def service_account(folder: Path, oauth: OAuth) -> Path:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    oauth.certificate = public.decode()
    file = folder / "key.json"
    about = {"type": "service_account", "client_email": "robot@example.com", "private_key": private.decode()}
    file.write_text(json.dumps({**about, "private_key_id": "1", "token_uri": f"{oauth.url}/token"}))
    return file


def test_a_service_account_is_for_shared_drives(tmp_path: Path, oauth: OAuth) -> None:
    key = service_account(tmp_path, oauth)
    assert "no quota of its own: name a shared drive with --root" in str(account.login(way=str(key)))
    root = wait(api().get("root")).id
    assert account.login(way=str(key), root=root).note == ""
    assert credentials.drive().root == root


def test_a_key_may_be_named_in_the_environment(tmp_path: Path, oauth: OAuth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_HUB", "google")
    monkeypatch.setenv("HAVERSACK_GOOGLE", str(service_account(tmp_path, oauth)))
    assert wait(api().get("root")).is_folder


def test_the_application_default_signs_in(tmp_path: Path, oauth: OAuth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(service_account(tmp_path, oauth)))
    assert account.login().source == "Google's application default"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"installed": {"client_id": "x"}}', '{"type": "service_account"}'])
def test_a_file_that_is_no_client_and_no_key_is_bad_input(tmp_path: Path, text: str) -> None:
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(InputError):
        account.login(way=str(tmp_path / "file.json"))


def test_the_drive_is_the_one_that_was_signed_in_to_and_a_named_hub_wins(
    own_folders: Path, oauth: OAuth, shared_hub: RunningHub, capsys: pytest.CaptureFixture[str]
) -> None:
    (shared_hub.my_drive / "seen-through-google").touch()
    rclone(own_folders, oauth, **CLIENT)
    run(["login"])
    run(["drive", "ls"])
    assert "seen-through-google" in capsys.readouterr().out
    with pytest.raises(SignInError, match="There is no token for the hub"):
        credentials.drive("http://127.0.0.1:9")


def test_a_sign_in_that_only_lies_about_is_not_used(own_folders: Path, oauth: OAuth) -> None:
    rclone(own_folders, oauth, **CLIENT)
    assert credentials.drive().name == "embedded hub"


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no file system in memory here")
def test_a_sign_in_that_lies_about_is_used_where_the_disk_is_fleeting(
    own_folders: Path, oauth: OAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    rclone(own_folders, oauth, **CLIENT)
    monkeypatch.setenv("HAVERSACK_DATA", "/dev/shm/haversack")
    assert credentials.drive().name == "Google drive"


def test_a_hubs_token_is_kept(shared_hub: RunningHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "token").write_text(shared_hub.token)
    run(["login", "hub", shared_hub.url + "/", "--token-file", str(tmp_path / "token")])
    assert credentials.drive().url == shared_hub.url
    assert credentials.kaggle().url == shared_hub.url
    assert account.whoami()[0].user == "haversack@localhost"
    run(["logout", "hub"])
    assert shared_hub.token not in capsys.readouterr().out + signin.path().read_text()


def test_a_token_that_the_hub_refuses_is_not_kept(shared_hub: RunningHub) -> None:
    with pytest.raises(SignInError):
        account.login_hub(shared_hub.url, "wrong")
    assert signin.load().hubs == {}


def test_a_kept_file_that_is_broken_is_said(own_folders: Path) -> None:
    signin.path().parent.mkdir(parents=True, exist_ok=True)
    signin.path().write_text("{")
    with pytest.raises(SignInError, match="Delete it and sign in again"):
        credentials.drive()


def test_a_cell_asks_in_its_prompt(oauth: OAuth, client: Path) -> None:
    manager, kernel = start_new_kernel(kernel_name="python3", startup_timeout=60)
    cell = f"import haversack, haversack.google\nhaversack.google.API = {oauth.url!r}\n"
    cell += f"print(haversack.login(way={str(client)!r}, browser=False))"
    shown: list[str] = []

    def show(message: dict[str, Any]) -> None:
        shown.append(str(message["content"].get("text", message["content"])))

    def answer(asked: dict[str, Any]) -> None:
        # What was printed comes on another channel than the question, and may come after it.
        while not (address := re.search(r"http://\S+/auth\S+", "".join(shown))):
            show(kernel.get_iopub_msg(timeout=60))
        kernel.input(last_page(address[0]))

    try:
        kernel.execute_interactive(
            cell,
            timeout=60,
            allow_stdin=True,
            stdin_hook=answer,
            output_hook=show,
        )
    finally:
        kernel.stop_channels()
        manager.shutdown_kernel(now=True)
    assert "Signed in to Google drive" in "".join(shown)
    assert signin.load().drive == "google"
