"""The forms of `--input`, and what is recorded of one: opened again, it is the same or refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from haversack.datasets.publication import put
from haversack.errors import ArchiveInvalid, InputError, NotFound
from haversack.notebook.kaggle.inputs import attach, parse, reopen
from tests.conftest import RunningHub


@pytest.mark.parametrize(
    ("given", "name", "source"),
    [
        ("kaggle:ann/cats", "", "kaggle:ann/cats"),
        ("kaggle:ann/cats@3", "", "kaggle:ann/cats@3"),
        ("kaggle:ann/cats/versions/3", "", "kaggle:ann/cats@3"),
        ("https://www.kaggle.com/datasets/ann/cats", "", "kaggle:ann/cats"),
        ("kaggle:c/titanic", "", "kaggle:c/titanic"),
        ("c/titanic", "", "kaggle:c/titanic"),
        ("competitions/titanic", "", "kaggle:c/titanic"),
        ("drive:/My Drive/cats", "", "drive://My Drive/cats"),
        ("lions=kaggle:ann/cats", "lions", "kaggle:ann/cats"),
    ],
)
def test_an_input_is_named_in_many_forms(given: str, name: str, source: str) -> None:
    assert parse(given) == (name, source)


def test_a_name_without_kaggle_is_refused_with_the_right_one() -> None:
    with pytest.raises(InputError, match="--input kaggle:ann/cats"):
        parse("ann/cats")
    with pytest.raises(InputError, match=r"kaggle:c/competition"):
        parse("nothing.csv")
    with pytest.raises(InputError, match="may have no password"):
        parse("https://ann:secret@example.com/cats.zip")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "cats"
    (made / "deep").mkdir(parents=True)
    (made / "train.csv").write_text("id\n1\n")
    (made / "deep" / "a.txt").write_text("hello")
    return made


def test_a_folder_an_archive_and_a_single_file_are_inputs(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "dogs.zip", "w") as archive:
        archive.writestr("b.csv", "x\n")
    one, two, three = attach([str(folder), str(tmp_path / "dogs.zip"), f"mice={folder / 'train.csv'}"], None)
    assert [each.name for each in (one, two, three)] == ["cats", "dogs", "mice"]
    assert dict(reopen(one, None).sizes()) == {"deep/a.txt": 5, "train.csv": 5}
    assert dict(reopen(two, None).sizes()) == {"b.csv": 2}
    assert dict(reopen(three, None).sizes()) == {"train.csv": 5}
    assert reopen(three, None).read("train.csv") == b"id\n1\n"


def test_two_inputs_of_one_name_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"Two inputs are named cats: .*--input NAME=") as raised:
        attach([str(folder), f"cats={folder / 'deep'}"], None)
    assert str(folder / "deep") in str(raised.value)


def test_a_version_is_recorded_and_opened_again(own_hub: RunningHub, folder: Path) -> None:
    put(folder, "kaggle:ann/cats")
    [one] = attach(["kaggle:ann/cats"], None)
    assert one.source == "kaggle:ann/cats@1"
    (folder / "train.csv").write_text("id\n1\n2\n")
    put(folder, "kaggle:ann/cats")
    assert dict(reopen(one, None).sizes())["train.csv"] == 5


def test_a_competition_that_changed_is_refused(own_hub: RunningHub, folder: Path) -> None:
    put(folder, "kaggle:c/lions")
    [one] = attach(["kaggle:c/lions"], None)
    (folder / "train.csv").write_text("id\n1\n2\n")
    put(folder, "kaggle:c/lions")
    with pytest.raises(InputError, match=r"lions .*has changed since the job began"):
        reopen(one, None)


def test_what_is_gone_is_named(folder: Path, tmp_path: Path) -> None:
    [one] = attach([str(folder)], None)
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(NotFound, match="The input cats of this job is gone"):
        reopen(one, None)


def test_an_unknown_data_set_is_said_so(own_hub: RunningHub) -> None:
    with pytest.raises(NotFound, match="There is no data set ann/nothing"):
        attach(["kaggle:ann/nothing"], None)


def test_a_damaged_archive_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "bad.zip").write_bytes(b"PK\3\4 and nothing more")
    with pytest.raises(ArchiveInvalid, match=r"bad\.zip cannot be read"):
        attach([str(tmp_path / "bad.zip")], None)


def test_an_archive_whose_names_leave_it_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../../etc/evil", "x")
    with pytest.raises(ArchiveInvalid, match="would leave its folder"):
        attach([str(tmp_path / "evil.zip")], None)
