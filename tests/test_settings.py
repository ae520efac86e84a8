from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from haversack import settings
from haversack.errors import InputError
from haversack.settings import Settings, load

ROOT = Path(__file__).parent.parent


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


@pytest.mark.parametrize("given", ["shared", "-1", "0", "nan"])
def test_the_shared_caches_have_a_size_in_gigabytes(tmp_path: Path, given: str) -> None:
    assert load({}, tmp_path / "none").caches is None
    assert load({"HAVERSACK_CACHES": "0.5"}, tmp_path / "none").caches == 500_000_000
    assert load({"HAVERSACK_CACHES": "private"}, tmp_path / "none").caches == 0
    with pytest.raises(InputError, match="caches"):
        load({"HAVERSACK_CACHES": given}, tmp_path / "none")


def test_the_page_is_made_from_the_module() -> None:
    made = subprocess.run([sys.executable, ROOT / "scripts" / "settings"], capture_output=True, text=True, check=True)
    assert (ROOT / "docs" / "settings.md").read_text() == made.stdout, "Run scripts/settings > docs/settings.md"


def test_the_docstring_has_every_setting_and_its_default() -> None:
    rows = re.findall(r"^    HAVERSACK_([A-Z]+) +([a-z]+) +(.+)$", settings.__doc__ or "", re.MULTILINE)
    assert [variable.lower() for variable, _, _ in rows] == [name for _, name, _ in rows]
    assert {name for _, name, _ in rows} == {field.name for field in fields(Settings)}
    meanings = {name: meaning for _, name, meaning in rows}
    assert meanings["follow"].endswith(f"({Settings.follow:.0f})")
    assert meanings["ahead"].endswith(f"({Settings.ahead / 10**6:.0f})")
    assert meanings["streams"].endswith(f"({Settings.streams})")


def test_the_page_shows_every_setting() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    for field in fields(Settings):
        assert f"| `HAVERSACK_{field.name.upper()}` | `{field.name}` |" in page


def test_the_pages_example_is_a_settings_file(tmp_path: Path) -> None:
    found = re.search(r"^```toml\n(.*?)^```", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    (tmp_path / "settings.toml").write_text(found[1])
    assert load({}, tmp_path / "settings.toml").streams == 8


@pytest.mark.parametrize("given", ["all", "0", "0.01", "-1", "nan"])
def test_how_much_output_is_kept_is_given_in_megabytes(tmp_path: Path, given: str) -> None:
    assert load({}, tmp_path / "none").output == 10_000_000
    assert load({"HAVERSACK_OUTPUT": "0.5"}, tmp_path / "none").output == 500_000
    with pytest.raises(InputError, match=r"output .* at least 0\.1"):
        load({"HAVERSACK_OUTPUT": given}, tmp_path / "none")


def test_a_job_is_told_where_the_users_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And needs the standard library alone to read it."""
    (tmp_path / "mine.toml").write_text("streams = 3\n")
    monkeypatch.setenv("HAVERSACK_SETTINGS", str(tmp_path / "mine.toml"))
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    assert settings.load().streams == 3
