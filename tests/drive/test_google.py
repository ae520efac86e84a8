"""Google's drive from sign-in to mount. A hub stands in its place, behind a proxy, with an authority of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import RunningHub, start_hub


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningHub]:
    """A hub that answers for Google; a key in the environment signs in to it."""
    hub = start_hub(tmp_path / "hub", None, "--tls")
    key = {"type": "authorized_user", "token": hub.token, "client_id": "x", "client_secret": "y", "refresh_token": "z"}
    (tmp_path / "key.json").write_text(json.dumps({**key, "expiry": "2999-01-01T00:00:00Z"}))
    monkeypatch.setenv("HAVERSACK_GOOGLE", str(tmp_path / "key.json"))
    monkeypatch.setenv("HAVERSACK_HUB", "google")
    monkeypatch.setenv("HAVERSACK_CA", hub.state["ca"])
    monkeypatch.setenv("HTTPS_PROXY", hub.state["proxy"])
    (hub.my_drive / "there").write_text("on the drive")
    yield hub
    hub.process.terminate()
    hub.process.wait(60)


def haversack(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "haversack", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_listed(google: RunningHub) -> None:
    assert "there" in haversack("drive", "ls")
    assert "Google drive at https://www.googleapis.com" in haversack("whoami")


@pytest.mark.fuse
def test_it_is_mounted(google: RunningHub, mountpoint: Path) -> None:
    haversack("mount", str(mountpoint))
    assert (mountpoint / "My Drive" / "there").read_text() == "on the drive"
    (mountpoint / "My Drive" / "new").write_text("written")
    haversack("unmount", str(mountpoint))
    assert (google.my_drive / "new").read_text() == "written"
