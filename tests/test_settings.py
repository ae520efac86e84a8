from __future__ import annotations

from pathlib import Path

import pytest

from haversack.errors import InputError
from haversack.settings import load


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('hub = "http://127.0.0.1:1"\ncache = "/from/file"\n')
    settings = load({"HAVERSACK_HUB": "http://127.0.0.1:2/"}, file)
    assert settings.hub == "http://127.0.0.1:2"
    assert settings.cache == Path("/from/file")


def test_without_a_file_the_defaults_stand(tmp_path: Path) -> None:
    settings = load({}, tmp_path / "none.toml")
    assert settings.hub is None
    assert settings.data.is_absolute()


def test_reading_settings_creates_nothing(tmp_path: Path) -> None:
    load({"HAVERSACK_DATA": str(tmp_path / "data")}, tmp_path / "none.toml")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("text", "said"), [("hub =", "is not TOML"), ("hubb = 1", "'hubb', which is not a setting")])
def test_a_bad_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=said):
        load({}, file)


@pytest.mark.parametrize("given", ["often", "0", "-1", "nan"])
def test_a_pace_that_is_none_is_refused(tmp_path: Path, given: str) -> None:
    assert load({"HAVERSACK_FOLLOW": "2.5"}, tmp_path / "none").follow == 2.5
    with pytest.raises(InputError, match="follow"):
        load({"HAVERSACK_FOLLOW": given}, tmp_path / "none")


@pytest.mark.parametrize("given", ["much", "-1", "nan"])
def test_what_goes_ahead_is_given_in_megabytes(tmp_path: Path, given: str) -> None:
    assert load({"HAVERSACK_AHEAD": "0"}, tmp_path / "none").ahead == 0
    assert load({"HAVERSACK_AHEAD": "1.5"}, tmp_path / "none").ahead == 1_500_000
    with pytest.raises(InputError, match="ahead"):
        load({"HAVERSACK_AHEAD": given}, tmp_path / "none")
