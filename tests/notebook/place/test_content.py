"""The job's `/content`, by every way that this machine allows."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from haversack.errors import InputError, JobError
from haversack.notebook.place import content as content_
from haversack.notebook.place.content import ContentFolder, prepare
from tests.notebook import notebooks
from tests.notebook.conftest import Run


def literals(source: str) -> str:
    return ContentFolder("literals", Path("/jobs/c"), Path("/jobs/h")).rewrite(source)


@pytest.mark.parametrize(
    ("source", "executed"),
    [
        ("open('/content/a.txt')", "open('/jobs/c/a.txt')"),
        ('path = "/content"', 'path = "/jobs/c"'),
        ("f'/content/{name}'", "f'/jobs/c/{name}'"),
        ("!ls /content/drive", "!ls /jobs/c/drive"),
        ("%cd /content", "%cd /jobs/c"),
        ("x = !ls /content", "x = !ls /jobs/c"),
        ("!cp a \\\n  /content/b", "!cp a \\\n  /jobs/c/b"),
        ("%%bash\nls /content", "%%bash\nls /jobs/c"),
        ("%%time\nopen('/content')\ncontent / 2", "%%time\nopen('/jobs/c')\ncontent / 2"),
        ("'''\n/content/x\n'''", "'''\n/jobs/c/x\n'''"),
        ("# see /content", "# see /content"),
        ("a = b /content", "a = b /content"),
        ("'/my/content/a'", "'/my/content/a'"),
        ("'/contents'", "'/contents'"),
        ("'https://x.org/content/a'", "'https://x.org/content/a'"),
        ("open('/root/.kaggle/kaggle.json')", "open('/jobs/h/.kaggle/kaggle.json')"),
        ("open('/root/project')", "open('/root/project')"),
        ("def f(:\n  '/content'", "def f(:\n  '/jobs/c'"),
    ],
)
def test_literals_are_replaced_and_nothing_else(source: str, executed: str) -> None:
    assert literals(source) == executed


@pytest.mark.parametrize(
    ("source", "executed"),
    [
        ("open('/kaggle/input/x/a.csv')", "open('/jobs/k/input/x/a.csv')"),
        ("!unzip /kaggle/input/x.zip -d /kaggle/working", "!unzip /jobs/k/input/x.zip -d /jobs/k/working"),
        ("'~/.kaggle/kaggle.json'", "'~/.kaggle/kaggle.json'"),
        ("'https://www.kaggle.com/kaggle/input'", "'https://www.kaggle.com/kaggle/input'"),
        ("'../input/x'", "'../input/x'"),
    ],
)
def test_paths_of_kaggle_are_replaced_in_a_job_that_has_them(source: str, executed: str) -> None:
    plan = ContentFolder("literals", Path("/jobs/c"), Path("/jobs/h"), kaggle=Path("/jobs/k"))
    assert plan.rewrite(source) == executed
    assert literals(source) == source


def test_a_folder_under_literals_is_used_with_a_notice(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_CONTENT", "literals")
    report = run("open('/content/a.txt', 'w').write('x')", "!ls /content")
    assert report.content == "literals"
    assert report.notices
    assert Path(report.job, "content", "a.txt").read_text() == "x"
    assert notebooks.text(report.output, 1).split() == ["a.txt", "sample_data"]
    assert notebooks.read(report.output).cells[1].source == "!ls /content"


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")
def test_bubblewrap_gives_a_content(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_CONTENT", "bubblewrap")
    report = run("import os\nopen('/content/a.txt', 'w').write('x')\nprint(os.getcwd())")
    assert report.content == "bubblewrap"
    assert notebooks.text(report.output, 0) == "/content\n"
    assert Path(report.job, "content", "a.txt").read_text() == "x"


@pytest.fixture
def own_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another folder than the machine's /content, which jobs of other tests use at the same time."""
    monkeypatch.setattr(content_, "CONTENT", tmp_path / "content")
    monkeypatch.setattr(content_, "_LOCK", tmp_path / "lock")
    (tmp_path / "content").mkdir()
    return tmp_path / "content"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_link_as_content_is_gone_when_the_job_is(
    own_content: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAVERSACK_CONTENT", "folder")
    prepared = prepare(tmp_path, tmp_path)
    assert own_content.resolve() == tmp_path
    prepared.release()
    assert (own_content.is_dir(), own_content.is_symlink()) == (True, False)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_links_as_content_and_kaggle_restore_what_was_there(
    own_content: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAVERSACK_CONTENT", "folder")
    monkeypatch.setattr(content_, "KAGGLE", tmp_path / "kaggle")
    (tmp_path / "own").mkdir()
    prepared = prepare(tmp_path, tmp_path, tmp_path / "own", works_in_kaggle=True)
    assert (tmp_path / "kaggle").resolve() == tmp_path / "own"
    assert prepared.cwd == tmp_path / "own" / "working"
    prepared.release()
    assert not os.path.lexists(tmp_path / "kaggle")
    (tmp_path / "kaggle").mkdir()
    (tmp_path / "kaggle" / "somebody's").touch()
    with pytest.raises(JobError):
        prepare(tmp_path, tmp_path, tmp_path / "own")
    assert (own_content.is_dir(), own_content.is_symlink()) == (True, False)
    assert (tmp_path / "kaggle" / "somebody's").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_content_that_another_job_has_mounted_is_not_replaced_by_a_link(
    own_content: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAVERSACK_CONTENT", "namespace")
    try:
        mounted = prepare(tmp_path, tmp_path)
    except JobError:
        pytest.skip("this machine allows no mount namespaces")
    monkeypatch.setenv("HAVERSACK_CONTENT", "folder")
    with pytest.raises(JobError):
        prepare(tmp_path, tmp_path)
    mounted.release()
    linked = prepare(tmp_path, tmp_path)
    monkeypatch.setenv("HAVERSACK_CONTENT", "namespace")
    with pytest.raises(JobError):
        prepare(tmp_path, tmp_path)
    linked.release()


def test_an_unknown_way_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_CONTENT", "magic")
    with pytest.raises(InputError, match="namespace, bubblewrap, folder, literals"):
        prepare(tmp_path, tmp_path)


def test_the_method_is_foretold_without_changing_anything(tmp_path: Path) -> None:
    before = sorted(Path("/").iterdir())
    foretold = content_.method()
    assert sorted(Path("/").iterdir()) == before
    for name in ("content", "home"):
        (tmp_path / name).mkdir()
    prepared = prepare(tmp_path / "content", tmp_path / "home")
    prepared.release()
    assert foretold == prepared.kind


def test_without_programs_the_method_is_the_last_that_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert content_.method() == ("folder" if os.geteuid() == 0 else "literals")
    monkeypatch.setenv("HAVERSACK_CONTENT", "bubblewrap")
    assert content_.method() == "bubblewrap"
    monkeypatch.setenv("HAVERSACK_CONTENT", "magic")
    with pytest.raises(InputError, match="HAVERSACK_CONTENT"):
        content_.method()
