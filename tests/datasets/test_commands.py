"""`haversack data …` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from haversack.cli import main
from tests.blocks.test_sparse import small_disk  # noqa: F401 - a fixture
from tests.conftest import RunningHub

Captured = pytest.CaptureFixture[str]


def run(*arguments: object) -> int:
    """The command's exit status."""
    with pytest.raises(SystemExit) as ended:
        main(["data", *map(str, arguments)])
    return int(ended.value.code or 0)


def test_ls_shows_sizes_and_names(published: str, capsys: Captured) -> None:
    assert run("ls", published) == 0
    assert "    3.0 MB  noise.bin" in capsys.readouterr().out.splitlines()


def test_ls_as_json(published: str, files: dict[str, bytes], capsys: Captured) -> None:
    assert run("ls", published, "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert {row["name"]: row["size"] for row in listed["files"]} == {name: len(files[name]) for name in files}


def test_get_keeps_the_archive(published: str, archive: Path, tmp_path: Path, capsys: Captured) -> None:
    assert run("get", published, "--to", tmp_path / "to") == 0
    saved = Path(capsys.readouterr().out.strip())
    assert saved.parent == tmp_path / "to"
    assert saved.read_bytes() == archive.read_bytes()


def test_get_extracts(published: str, files: dict[str, bytes], tmp_path: Path, capsys: Captured) -> None:
    assert run("get", published, "--to", tmp_path / "to", "--extract", "--json") == 0
    assert json.loads(capsys.readouterr().out)["files"] == len(files)
    assert (tmp_path / "to" / "images" / "0.png").read_bytes() == files["images/0.png"]


def test_put_publishes_and_then_counts_versions(hub: RunningHub, archive: Path, capsys: Captured) -> None:
    for version in (1, 2):
        assert run("put", archive, "kaggle:haversack/by-command", "--json") == 0
        published = json.loads(capsys.readouterr().out)
        assert published["source"] == f"kaggle:haversack/by-command@{version}"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["ls", "kaggle:haversack/not-there"], 1, "There is no data set haversack/not-there"),
        (["get", "kaggle:half"], 2, "names no data set"),
        (["get", "gopher:a/b"], 2, "is no data set"),
        (["rm"], 2, "No data set is named"),
        (["rm", "--all", "kaggle:a/b"], 2, "Both a data set and --all"),
        (["put", "nowhere", "kaggle:haversack/x"], 2, "There is no"),
        (["put", ".", "drive:/x"], 2, "with --shard 2GB"),
        (["put", ".", "drive:/x", "--shard", "2GB", "--public"], 2, "Leave them out"),
        (["put", ".", "drive:/x", "--shard", "much"], 2, "--shard does not accept 'much'"),
    ],
)
def test_errors_are_one_line(hub: RunningHub, capsys: Captured, arguments: list[str], status: int, said: str) -> None:
    assert run(*arguments) == status
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.err.count("\n") == 1
    assert not shown.out


def test_full_disk_is_one_line_and_leaves_nothing(
    published: str,
    small_disk: Path,  # noqa: F811
    capsys: Captured,
) -> None:
    assert run("get", published, "--to", small_disk) == 1
    assert "is full" in capsys.readouterr().err
    assert not list(small_disk.iterdir())


def test_full_cache_is_told_before_anything_is_fetched(
    published: str,
    small_disk: Path,  # noqa: F811
    tmp_path: Path,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HAVERSACK_CACHE", str(small_disk))
    assert run("get", published, "--to", tmp_path / "to") == 1
    assert "is full" in capsys.readouterr().err
    assert not (tmp_path / "to").exists()


def test_info_tells_size_version_licence_and_sign_in(hub: RunningHub, archive: Path, capsys: Captured) -> None:
    assert run("put", archive, "kaggle:haversack/told", "--licence", "CC0-1.0", "--title", "Told", "--public") == 0
    capsys.readouterr()
    assert run("info", "kaggle:haversack/told", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["title"], told["licence"], told["version"], told["private"]) == ("Told", "CC0-1.0", 1, False)
    assert (told["files"], told["signed_in_by"]) == (42, "HAVERSACK_TOKEN")
    assert run("info", "kaggle:haversack/told") == 0
    assert "licence:        CC0-1.0" in capsys.readouterr().out.splitlines()


def test_rm_tells_what_it_would_free_and_frees_it(published: str, capsys: Captured) -> None:
    run("ls", published)
    capsys.readouterr()
    assert run("rm", published, "--dry-run") == 0
    assert "would be freed" in capsys.readouterr().out
    assert run("ls", "--json") == 0
    assert f"{published}@1" in [one["source"] for one in json.loads(capsys.readouterr().out)["kept"]]
    assert run("rm", published, "--json") == 0
    assert json.loads(capsys.readouterr().out)["freed"] > 0
    assert run("rm", "--all") == run("rm", "--all", "--json") == 0
    capsys.readouterr()
    assert run("rm", "--all") == 0
    assert capsys.readouterr().out == "Nothing to remove: none of it is cached.\n"


def test_get_fetches_a_folder(published: str, files: dict[str, bytes], tmp_path: Path, capsys: Captured) -> None:
    assert run("get", f"{published}/images", "--to", tmp_path / "to", "--extract") == 0
    assert (tmp_path / "to" / "0.png").read_bytes() == files["images/0.png"]


def test_words_of_a_new_set_are_refused_for_a_version(hub: RunningHub, archive: Path, capsys: Captured) -> None:
    assert run("put", archive, "kaggle:haversack/worded", "--notes", "first") == 0
    capsys.readouterr()
    assert run("put", archive, "kaggle:haversack/worded", "--title", "x", "--public") == 2
    assert "does not change its title and visibility" in capsys.readouterr().err
