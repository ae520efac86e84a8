"""The command line itself: help, versions, errors. What the commands do is tested with the rooms that do it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperCommand, TyperGroup

from haversack import __version__, cli

ROOT = Path(__file__).parent.parent


def commands(group: TyperGroup | None = None, prefix: str = "haversack") -> list[tuple[str, TyperCommand]]:
    group = group or typer.main.get_group(cli.app)
    found: list[tuple[str, TyperCommand]] = []
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            found += commands(command, f"{prefix} {name}")
        else:
            found.append((f"{prefix} {name}", command))
    return found


def haversack(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "haversack", *arguments], capture_output=True, text=True)


@pytest.mark.parametrize(("name", "command"), commands(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_command_has_one_line_of_help_and_an_example(name: str, command: TyperCommand) -> None:
    assert command.help
    assert "\n" not in command.help.strip()
    assert command.help.endswith(".")
    assert name in (command.epilog or "")


@pytest.mark.parametrize(("name", "command"), commands(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_option_has_help(name: str, command: TyperCommand) -> None:
    for parameter in command.params:
        if not getattr(parameter, "hidden", False):
            assert getattr(parameter, "help", None), f"{name} {parameter.name}"


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_every_command_is_documented(name: str) -> None:
    assert f"\n## `{name}" in (ROOT / "docs" / "commands.md").read_text()


def test_help_has_a_line_for_every_command() -> None:
    shown = haversack("--help").stdout
    for name, _ in commands():
        assert f" {name.split()[1]} " in shown


def test_the_version_is_printed() -> None:
    assert haversack("--version").stdout == f"{__version__}\n"


def test_an_error_is_one_line_without_a_traceback(tmp_path: Path) -> None:
    done = haversack("hub", "--root", str(tmp_path / "hub"))
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "haversack: A hub needs a token. Set HAVERSACK_TOKEN, or give a file with --token-file."
    ]


def test_a_token_file_that_is_no_text_is_said(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"\xff\xfe")
    done = haversack("hub", "--root", str(tmp_path / "hub"), "--token-file", str(tmp_path / "token"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "is not a text file" in done.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = haversack("--debug", "hub", "--root", str(tmp_path / "hub"))
    assert "Traceback" in done.stderr
    assert done.returncode != 0


def test_the_hub_away_is_said_plainly() -> None:
    import os

    environment = {**os.environ, "HAVERSACK_TOKEN": "x" * 20, "HAVERSACK_HUB": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "haversack", "drive", "ls"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "does not answer" in done.stderr
    assert len(done.stderr.splitlines()) == 1
