"""`!kaggle` in a job: the official command, led to the hub where the data is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from haversack import credentials, signin
from haversack.datasets.publication import put
from haversack.notebook.place import kaggle_command
from tests.conftest import RunningHub
from tests.notebook import notebooks
from tests.notebook.conftest import Run

KEY = "0123456789abcdef0123456789abcdef"
PUT_IN_PLACE = '!mkdir ~/.kaggle && echo \'{"username":"other","key":"x"}\' > ~/.kaggle/kaggle.json'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small data set's files."""
    path = tmp_path / "files"
    path.mkdir()
    (path / "labels.csv").write_text("a,1\n")
    return path


def test_the_command_fetches_from_the_named_hub(run: Run, own_hub: RunningHub, folder: Path) -> None:
    put(folder, "kaggle:me/small")
    report = run("!kaggle datasets download -d me/small --unzip", "!cat labels.csv")
    assert notebooks.text(report.output, 1).split() == ["a,1"], notebooks.text(report.output, 0)


FOREIGN_KEY = """!mkdir -p ~/.kaggle
!echo '{"username":"lzy","key":"a9c058"}' > ~/.kaggle/kaggle.json
!chmod 600 ~/.kaggle/kaggle.json"""


@pytest.mark.parametrize("key", [FOREIGN_KEY, "pass"])
def test_the_named_hub_serves_all_of_kaggles_clients_whatever_key_the_file_holds(
    run: Run, own_hub: RunningHub, folder: Path, key: str
) -> None:
    put(folder, "kaggle:me/small")
    report = run(
        key,
        "!kaggle datasets download -d me/small --unzip -p one",
        "import kagglehub\nkagglehub.dataset_download('me/small', output_dir='two')",
        "import kaggle\nkaggle.api.dataset_download_files('me/small', 'three', unzip=True)",
        "!cat one/labels.csv two/labels.csv three/labels.csv",
    )
    assert report.status == "done", report.error
    assert notebooks.text(report.output, 4).split() == ["a,1"] * 3


def test_a_hub_that_was_logged_in_to_is_named_too(
    run: Run, own_hub: RunningHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, "kaggle:me/small")
    with signin.changing() as kept:
        kept.hubs[own_hub.url], kept.drive = own_hub.token, own_hub.url
    monkeypatch.delenv("HAVERSACK_HUB")
    monkeypatch.delenv("HAVERSACK_TOKEN")
    report = run(FOREIGN_KEY, "!kaggle datasets download -d me/small --unzip && cat labels.csv")
    assert notebooks.text(report.output, 1).split()[-1] == "a,1", notebooks.text(report.output, 1)


def test_without_a_named_hub_a_foreign_key_goes_to_kaggle_itself(
    tmp_path: Path, own_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_key(own_folders / ".kaggle", "lzy")
    report = tmp_path / "official"
    program = tmp_path / "kaggle"
    program.write_text(f"#!/bin/sh\nenv > {report}\n")
    program.chmod(0o755)
    command = [sys.executable, "-m", "haversack.notebook.place.kaggle_command"]
    environment = {**os.environ, "HAVERSACK_JOB": str(tmp_path / "job"), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(command, env=environment, check=True)
    assert "KAGGLE_API_ENVIRONMENT" not in report.read_text()
    assert "KAGGLE_API_TOKEN" not in report.read_text()


def test_the_embedded_hubs_key_leads_to_the_embedded_hub(run: Run, folder: Path) -> None:
    put(folder, "kaggle:me/small", hub="embedded")
    user, key = credentials.kaggle("embedded").kaggle_login or ("", "")
    write = "import os\nos.makedirs(os.path.expanduser('~/.kaggle'))\n"
    write += (
        f"open(os.path.expanduser('~/.kaggle/kaggle.json'), 'w').write('{json.dumps({'username': user, 'key': key})}')"
    )
    report = run(write, "!kaggle datasets download -d me/small --unzip", "!cat labels.csv", hub="embedded")
    assert notebooks.text(report.output, 2).split() == ["a,1"], notebooks.text(report.output, 1)
    assert key not in Path(report.output).read_text()


def test_the_users_own_sign_in_is_handed_on(run: Run, own_folders: Path) -> None:
    write_key(own_folders / ".kaggle", "me")
    report = run("!echo $KAGGLE_USERNAME $KAGGLE_KEY; ls -A ~")
    assert notebooks.text(report.output, 0).splitlines()[0] == "me ***"


def test_a_token_that_was_signed_in_with_is_handed_on_and_gives_way_too(run: Run) -> None:
    with signin.changing() as kept:
        kept.kaggle = {"user": "me", "token": KEY}
    report = run("!echo $KAGGLE_API_TOKEN", PUT_IN_PLACE, "!echo token: $KAGGLE_API_TOKEN")
    assert notebooks.text(report.output, 0).split() == ["***"]
    assert notebooks.text(report.output, 2).split() == ["token:"]


def test_a_notebooks_own_key_file_comes_before_it(run: Run, own_folders: Path) -> None:
    write_key(own_folders / ".kaggle", "me")
    report = run(PUT_IN_PLACE, "!echo user: $KAGGLE_USERNAME")
    assert notebooks.text(report.output, 1).split() == ["user:"]


def test_no_hub_gets_the_users_sign_in(run: Run, own_folders: Path, own_hub: RunningHub) -> None:
    write_key(own_folders / ".kaggle", "me")
    report = run("!echo user: $KAGGLE_USERNAME")
    assert notebooks.text(report.output, 0).split() == ["user:"]


def test_without_the_official_command_it_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAVERSACK_JOB", str(tmp_path))
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "bin"), "/usr/bin"]))
    with pytest.raises(SystemExit, match="!pip install -q kaggle"):
        kaggle_command.main()


def write_key(folder: Path, user: str) -> None:
    folder.mkdir()
    (folder / "kaggle.json").write_text(json.dumps({"username": user, "key": KEY}))
