"""The trash, from the command line: looked into, put back, emptied."""

from __future__ import annotations

import io
import json

import pytest

from haversack import cli
from tests.conftest import RunningHub


@pytest.fixture
def said(own_hub: RunningHub, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Runs `haversack drive` with arguments; gives what it printed as JSON, or its error and exit status."""
    (own_hub.my_drive / "folder").mkdir()
    for number in range(3):
        (own_hub.my_drive / "folder" / f"{number}").write_bytes(b"in it")
    (own_hub.my_drive / "file").write_bytes(bytes(70))

    def run(*arguments: str) -> object:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main(["drive", *arguments, "--json"])
        out, err = capsys.readouterr()
        return json.loads(out) if ended.value.code == 0 else (ended.value.code, err)

    return run


def rm(*names: str) -> None:
    for name in names:
        with pytest.raises(SystemExit):
            cli.main(["drive", "rm", name, "--recursive"])


def test_it_is_listed_and_emptied(said, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    rm("folder", "file")
    listed = said("trash")
    assert [entry["name"] for entry in listed["entries"]] == ["file", "folder"]
    assert listed["size"] == 85
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert said("trash", "--empty")[0] == 2
    assert said("trash", "--empty", "--yes")["emptied"]
    assert said("quota")["used"] == 0


def test_a_folder_comes_back_with_what_was_in_it(said, own_hub: RunningHub) -> None:  # type: ignore[no-untyped-def]
    rm("folder")
    assert said("trash", "--restore", "folder") == {"restored": "folder"}
    assert sorted(path.name for path in (own_hub.my_drive / "folder").iterdir()) == ["0", "1", "2"]


def test_a_file_comes_back_to_where_it_was(said, own_hub: RunningHub) -> None:  # type: ignore[no-untyped-def]
    rm("folder/1")
    assert said("trash", "--restore", "1") == {"restored": "folder/1"}
    assert (own_hub.my_drive / "folder" / "1").read_bytes() == b"in it"


@pytest.mark.parametrize("by", ["id", "path"])
def test_of_several_of_one_name_the_id_or_the_path_says_which(  # type: ignore[no-untyped-def]
    said, own_hub: RunningHub, by: str
) -> None:
    (own_hub.my_drive / "folder" / "file").write_bytes(b"another")
    rm("file", "folder/file")
    code, error = said("trash", "--restore", "file")
    listed = {entry["size"]: entry["id"] for entry in said("trash")["entries"]}
    assert code == 2
    assert all(one in error for one in listed.values())
    said("trash", "--restore", listed[7] if by == "id" else "My Drive/folder/file")
    assert (own_hub.my_drive / "folder" / "file").read_bytes() == b"another"
    assert not (own_hub.my_drive / "file").exists()


def test_what_is_not_there_is_said(said) -> None:  # type: ignore[no-untyped-def]
    assert "There is no nothing in the trash" in said("trash", "--restore", "nothing")[1]
