from __future__ import annotations

import json
from pathlib import Path

import pytest

from haversack import credentials
from haversack.errors import InputError, SignInError

HUB = "http://127.0.0.1:8080"


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_TOKEN", "the-token-of-the-hub")


def write_kaggle_json(home: Path, text: str) -> None:
    (home / ".kaggle").mkdir()
    (home / ".kaggle" / "kaggle.json").write_text(text)


def test_a_named_hub_serves_drive_and_kaggle(own_folders: Path) -> None:
    write_kaggle_json(own_folders, json.dumps({"username": "ada", "key": "0" * 32}))
    assert credentials.drive(HUB).url == credentials.kaggle(HUB).url == HUB


def test_the_hub_may_be_named_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_HUB", HUB)
    assert credentials.drive().url == HUB


def test_a_kaggle_sign_in_means_kaggle_itself(own_folders: Path) -> None:
    write_kaggle_json(own_folders, json.dumps({"username": "ada", "key": "0" * 32}))
    server = credentials.kaggle()
    assert server.url == credentials.KAGGLE
    assert server.source.endswith("kaggle.json")


def test_a_token_comes_before_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_1234567890")
    monkeypatch.setenv("KAGGLE_USERNAME", "ada")
    monkeypatch.setenv("KAGGLE_KEY", "0" * 32)
    assert credentials.kaggle().source == "KAGGLE_API_TOKEN"


def test_a_token_may_be_long_or_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", "x" * 2000)
    assert credentials.kaggle().secrets == ("x" * 2000,)
    (tmp_path / "token").write_text("KGAT_1234567890\n")
    monkeypatch.setenv("KAGGLE_API_TOKEN", str(tmp_path / "token"))
    assert credentials.kaggle().secrets == ("KGAT_1234567890",)


def test_a_token_read_from_a_file_may_end_with_a_line_break(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_TOKEN", "the-token-of-the-hub\n")
    assert credentials.drive(HUB).authorization == "Bearer the-token-of-the-hub"


@pytest.mark.parametrize("text", ["not json", "[]", '{"username": "ada"}'])
def test_a_bad_kaggle_json_is_named(own_folders: Path, text: str) -> None:
    write_kaggle_json(own_folders, text)
    with pytest.raises(SignInError, match=r"kaggle\.json is not a Kaggle key file"):
        credentials.kaggle()


def test_secrets_are_in_no_repr() -> None:
    assert "the-token-of-the-hub" not in repr(credentials.drive(HUB))


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://127.0.0.1", "http://", "nonsense"])
def test_an_address_that_is_none_is_bad_input(url: str) -> None:
    with pytest.raises(InputError, match="is not a hub's address"):
        credentials.drive(url)


def test_a_hub_without_a_token_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HAVERSACK_TOKEN")
    with pytest.raises(SignInError, match="HAVERSACK_TOKEN"):
        credentials.drive(HUB)


def test_the_embedded_hub_must_be_asked_for_where_the_disk_is_fleeting(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("no file system in memory here")
    monkeypatch.setenv("HAVERSACK_DATA", "/dev/shm/haversack")
    with pytest.raises(SignInError, match="--hub embedded"):
        credentials.drive()
    assert not Path("/dev/shm/haversack").exists()


def test_kaggles_tokens_are_found_in_the_order_of_its_own_clients(
    own_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = own_folders / ".kaggle" / "access_token"
    kept.parent.mkdir()
    kept.write_text("kept\n")
    assert (credentials.kaggle().source, credentials.kaggle().secrets) == (str(kept), ("kept",))
    monkeypatch.setenv("KAGGLE_API_TOKEN", "given")
    assert (credentials.kaggle().source, credentials.kaggle().secrets) == ("KAGGLE_API_TOKEN", ("given",))
    (own_folders / "token").write_text("of a notebook")
    monkeypatch.setenv("KAGGLE_API_V1_TOKEN", str(own_folders / "token"))
    assert credentials.kaggle().authorization == "Bearer of a notebook"


def test_a_mirror_of_kaggle_is_reached_with_its_sign_in_or_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_KAGGLE", "https://mirror.example")
    assert (credentials.kaggle().url, credentials.kaggle().authorization) == ("https://mirror.example", None)
    monkeypatch.setenv("KAGGLE_API_TOKEN", "given")
    assert (credentials.kaggle().url, credentials.kaggle().authorization) == ("https://mirror.example", "Bearer given")
