"""What lies beside a notebook and is used by it comes along in its job, and an environment page is run first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from haversack import settings
from haversack.errors import InputError
from haversack.notebook.job import job
from haversack.notebook.record import beside
from tests.conftest import RunningHub
from tests.notebook import notebooks
from tests.notebook.conftest import Run

PAGE = 'import haversack\nhaversack.environment(env={"SEED": "7"}, run=["echo made > made.txt"])'


def write_page(path: Path, *sources: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    return notebooks.write(path, *sources)


def test_modules_scripts_and_packages_that_it_uses_come_along(tmp_path: Path, run: Run) -> None:
    (tmp_path / "helper.py").write_text("from shapes.square import area\n")
    (tmp_path / "shapes" / "data").mkdir(parents=True)
    (tmp_path / "shapes" / "__init__.py").write_text("")
    (tmp_path / "shapes" / "square.py").write_text("def area(side):\n    return side * side\n")
    (tmp_path / "shapes" / "data" / "sides.txt").write_text("3")
    (tmp_path / "later.py").write_text("print(int(open('shapes/data/sides.txt').read()) + 1)\n")
    (tmp_path / "unused.py").write_text("")
    report = run(
        "import helper, os\nprint(helper.area(3))",
        "%run later.py",
        "print(sorted(name for name in os.listdir('/content') if name != '__pycache__'))",
    )
    assert [notebooks.text(report.output, cell) for cell in (0, 1)] == ["9\n", "4\n"]
    assert notebooks.text(report.output, 2) == "['helper.py', 'later.py', 'sample_data', 'shapes']\n"


def test_a_folder_without_init_is_a_package_too(tmp_path: Path, run: Run) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "prices.py").write_text("total = 7\n")
    report = run("from shop.prices import total\nprint(total)")
    assert (report.status, notebooks.text(report.output, 0)) == ("done", "7\n")


def test_a_cell_that_changes_one_changes_the_copy_only(tmp_path: Path, run: Run) -> None:
    (tmp_path / "helper.py").write_text("value = 1\n")
    run("import helper\nopen('helper.py', 'w').write('value = 2')")
    assert (tmp_path / "helper.py").read_text() == "value = 1\n"


def test_what_is_too_large_is_refused_before_there_is_a_job(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "_MAX_BYTES", 10)
    (tmp_path / "helper.py").write_text("value = 123456789\n")
    with pytest.raises(InputError, match="too much to come along"):
        run("import helper")
    assert not list((settings.load().data / "jobs").glob("*"))


def test_a_notebook_outside_the_notebooks_folder_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    outer = write_page(tmp_path / "notebook.ipynb", "prepared = 1")
    before = outer.read_bytes()
    source = notebooks.write(tmp_path / "inner" / "source.ipynb", "%run ../notebook.ipynb")
    report = job.run(source, tmp_path / "out.ipynb")
    folder = Path(report.job)
    assert report.status == "failed"
    assert notebooks.read(folder / "notebook.ipynb").cells[0].source == "%run ../notebook.ipynb"
    assert not (folder / "beside").exists()
    assert outer.read_bytes() == before
    assert "Not copied into the job, because it is outside the notebook's folder: ../notebook.ipynb." in report.notices


def test_a_notebook_that_is_run_by_its_absolute_path_is_read_where_it_is(tmp_path: Path, run: Run) -> None:
    page = write_page(tmp_path / "pages" / "setup.ipynb", "prepared = 1")
    report = run(f"%run {page}", "print(prepared)")
    assert notebooks.text(report.output, 1) == "1\n"
    assert not (Path(report.job) / "beside").exists()


def test_a_page_is_run_before_the_first_cell(tmp_path: Path, run: Run) -> None:
    page = write_page(tmp_path / "pages" / "setup.ipynb", PAGE, "prepared = 1")
    report = run("import os\nprint(os.environ['SEED'], open('made.txt').read().strip(), prepared)", page=page)
    cells = json.loads(Path(report.output).read_text())["cells"]
    assert "".join(cells[0]["source"]) == "%run setup.ipynb"
    assert notebooks.text(report.output, 1) == "7 made 1\n"


def test_a_cell_that_runs_the_page_beside_it_does_the_same(tmp_path: Path, run: Run) -> None:
    write_page(tmp_path / "setup.ipynb", PAGE)
    report = run("%run setup.ipynb", "import os\nprint(os.environ['SEED'], os.path.exists('made.txt'))")
    assert notebooks.text(report.output, 1) == "7 True\n"


def test_a_command_of_the_page_that_fails_fails_the_job(tmp_path: Path, run: Run) -> None:
    page = write_page(tmp_path / "setup.ipynb", 'import haversack\nhaversack.environment(run=["exit 3"])')
    report = run("a = 1", page=page)
    assert report.status == "failed"
    assert "'exit 3' of haversack.environment ended with status 3" in str(report.error)


def test_a_page_that_is_no_notebook_is_refused(tmp_path: Path, run: Run) -> None:
    (tmp_path / "setup.ipynb").write_text("{}")
    with pytest.raises(InputError):
        run("1", page=tmp_path / "setup.ipynb")


def test_on_another_machine_they_come_from_the_drive(
    tmp_path: Path, run: Run, shared_hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "helper.py").write_text("value = 5\n")
    monkeypatch.setenv("HAVERSACK_HUB", shared_hub.url)
    monkeypatch.setenv("HAVERSACK_TOKEN", shared_hub.token)
    first = run("import helper\nraise ValueError(helper.value)")
    assert first.status == "failed"
    monkeypatch.setenv("HAVERSACK_DATA", str(tmp_path / "elsewhere"))
    job.resume(Path(first.job).name, tmp_path / "resumed.ipynb")
    kept = tmp_path / "elsewhere" / "jobs" / Path(first.job).name / "beside" / "helper.py"
    assert kept.read_text() == "value = 5\n"
