"""The user's secrets file, and `haversack secrets`, which changes it."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import sys
import termios
import time
import tomllib
from pathlib import Path

import pytest

from haversack.errors import InputError
from haversack.notebook.secrets import change, file


def command(*arguments: str, value: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "haversack", "secrets", *arguments], input=value, capture_output=True, text=True
    )


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The secrets file of the test, which does not exist yet."""
    path = tmp_path / "folder" / "secrets.toml"
    monkeypatch.setenv("HAVERSACK_SECRETS", str(path))
    return path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)


def test_set_ls_and_rm(toml: Path) -> None:
    done = command("set", "HF_TOKEN", value="hunter-two\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert stat.S_IMODE(toml.stat().st_mode) == 0o600
    assert file.value("HF_TOKEN") == "hunter-two"
    command("set", "A", "--json", value="x y")
    listed = command("ls", "--json")
    assert json.loads(listed.stdout) == {"names": ["A", "HF_TOKEN"], "file": str(toml)}
    assert "hunter" not in done.stdout + command("ls").stdout
    assert command("rm", "HF_TOKEN").returncode == 0
    assert tomllib.loads(toml.read_text()) == {"A": "x y"}


def test_without_a_file_the_list_is_empty(toml: Path) -> None:
    assert command("ls").stdout == "There are no secrets yet.\n"
    assert not toml.parent.exists()


def test_a_secret_that_is_not_there_cannot_be_removed(toml: Path) -> None:
    done = command("rm", "NONE")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"haversack: There is no secret NONE in {toml}. List them: haversack secrets ls\n"


def test_an_empty_value_is_refused(toml: Path) -> None:
    done = command("set", "A", value="\n")
    assert done.returncode == 2
    assert not toml.exists()


def test_a_value_typed_at_a_terminal_is_not_shown(toml: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "haversack", "secrets", "set", "HF_TOKEN"])
    end = time.monotonic() + 120
    # Once the terminal shows no input, what was typed before is discarded.
    while termios.tcgetattr(terminal)[3] & termios.ECHO:
        assert time.monotonic() < end, "it did not ask"
        time.sleep(0.05)
    os.write(terminal, b"hunter-two\n")
    shown = b""
    try:
        while piece := os.read(terminal, 1000):
            shown += piece
    except OSError:
        pass  # on Linux the end of a terminal is EIO
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert b"hunter" not in shown
    assert file.value("HF_TOKEN") == "hunter-two"


@pytest.mark.parametrize(
    "value", ['a"b\\c', "two\nlines\n", "Schlüssel 🔑", "\x7f\x00\t", "'''" + '"""', "# no comment"]
)
@pytest.mark.parametrize("key", ["KEY", "with space", 'qu"ote', "a.b"])
def test_any_value_and_name_comes_back(toml: Path, key: str, value: str) -> None:
    change.store("OTHER", "1")
    change.store(key, value)
    change.store(key, value)
    assert file.stored() == {"OTHER": "1", key: value}
    change.remove(key)
    assert file.stored() == {"OTHER": "1"}


def test_other_lines_and_comments_stay(toml: Path) -> None:
    write(toml, '# mine\nA = "1"  # first\n"B" = """\ntwo\nlines"""\nC = \'3\'')
    change.store("B", "2")
    change.store("D", "4")
    assert toml.read_text() == '# mine\nA = "1"  # first\nB = "2"\nC = \'3\'\nD = "4"\n'
    change.remove("C")
    assert toml.read_text() == '# mine\nA = "1"  # first\nB = "2"\nD = "4"\n'


def test_a_new_secret_does_not_fall_into_a_table(toml: Path) -> None:
    write(toml, '[table]\nA = "1"\n')
    change.store("A", "2")
    assert tomllib.loads(toml.read_text()) == {"A": "2", "table": {"A": "1"}}


def test_a_symbolic_link_stays_one(toml: Path, tmp_path: Path) -> None:
    write(tmp_path / "real.toml", "")
    toml.parent.mkdir()
    toml.symlink_to(tmp_path / "real.toml")
    change.store("A", "1")
    assert toml.is_symlink()
    assert tomllib.loads((tmp_path / "real.toml").read_text()) == {"A": "1"}


def test_a_file_that_others_may_read_is_refused(toml: Path) -> None:
    write(toml, 'A = "1"\n')
    toml.chmod(0o644)
    done = command("set", "B", value="2")
    assert done.returncode == 1
    assert "chmod 600" in done.stderr
    assert toml.read_text() == 'A = "1"\n'


def test_a_file_that_is_not_toml_is_refused_without_quoting_it(toml: Path) -> None:
    write(toml, "A = hunter-two\n")
    with pytest.raises(InputError, match="is not TOML") as raised:
        change.store("B", "2")
    assert "hunter" not in str(raised.value)


def test_a_definition_that_cannot_be_told_apart_is_left_to_the_user(toml: Path) -> None:
    write(toml, 'A . b = "1"\n')
    with pytest.raises(InputError, match="by hand"):
        change.store("A", "2")
    assert toml.read_text() == 'A . b = "1"\n'


def test_two_at_once_lose_nothing(toml: Path) -> None:
    code = (
        "import sys\nfrom haversack.notebook.secrets import change, file\n"
        "for n in range(20): change.store(f'{sys.argv[1]}{n}', 'x')"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, name]) for name in "ab"]
    assert [one.wait(120) for one in running] == [0, 0]
    assert len(file.stored()) == 40
