"""`haversack run`: what a job executes, keeps and reports."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from haversack.errors import CellFailed, InputError, JobError, KernelDied, SignInError
from haversack.notebook.job import job
from tests.notebook import notebooks
from tests.notebook.conftest import Run


@pytest.fixture(scope="module")
def report(run_once: Run, tmp_path_factory: pytest.TempPathFactory) -> job.JobReport:
    """A job that did a little of everything; each of the tests below looks at one cell."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
        return run_once(
            "a = 1",
            "print(a + 1)",
            "import os\nprint(os.getcwd(), os.path.expanduser('~'))\nopen('/content/a.txt', 'w').write('x')",
            "1 / 0",
            "print(os.environ['XLA_FLAGS'], os.environ['JAX_PLATFORMS'])",
            "from PIL import Image\nImage.new('RGB', (8, 8))",
            tags={3: ["raises-exception"]},
            cores=3,
            html=folder / "page.html",
        )


def test_cells_run_in_order_and_outputs_are_kept(report: job.JobReport) -> None:
    assert (report.status, report.cells, report.sessions) == ("done", 6, 1)
    assert notebooks.text(report.output, 1) == "2\n"


def test_cells_start_in_content_with_a_home_of_the_jobs_own(report: job.JobReport) -> None:
    assert notebooks.text(report.output, 2).splitlines()[0] == f"/content {report.job}/home"
    assert Path(report.job, "content", "a.txt").read_text() == "x"


def test_a_cell_tagged_raises_exception_may_raise(report: job.JobReport) -> None:
    assert "ZeroDivisionError" in notebooks.text(report.output, 3)


def test_cores_are_simulated_and_other_flags_kept(report: job.JobReport) -> None:
    flags = "--xla_cpu_enable_fast_math=false --xla_force_host_platform_device_count=3"
    assert notebooks.text(report.output, 4) == f"{flags} cpu\n"


def test_the_web_page_has_outputs_and_images(report: job.JobReport) -> None:
    page = Path(report.html or "").read_text()
    assert "ZeroDivisionError" in page
    assert "data:image/png;base64," in page


def test_empty_notebook_is_done(run: Run) -> None:
    assert run().status == "done"


def test_the_users_home_stays_untouched(run: Run, own_folders: Path) -> None:
    (own_folders / ".kaggle").mkdir()
    (own_folders / ".kaggle" / "kaggle.json").write_text('{"username":"u","key":"k"}')
    run("!mkdir -p ~/.kaggle && echo other > ~/.kaggle/kaggle.json && touch ~/mine /root/.haversack-test")
    kept = [path for path in own_folders.rglob("*") if path.is_file() and not path.is_relative_to(own_folders / "data")]
    assert [str(path.relative_to(own_folders)) for path in kept] == [".kaggle/kaggle.json"]
    assert (own_folders / ".kaggle" / "kaggle.json").read_text() == '{"username":"u","key":"k"}'


def test_a_raising_cell_stops_the_job_and_keeps_what_was_executed(run: Run) -> None:
    report = run("print('kept')", "1 / 0", "print('never')")
    assert isinstance(report.failure, CellFailed)
    assert (
        report.error == "Cell 2 failed: ZeroDivisionError: division by zero. The executed notebook has its traceback."
    )
    assert notebooks.text(report.output, 0) == "kept\n"
    assert "ZeroDivisionError" in notebooks.text(report.output, 1)
    assert notebooks.text(report.output, 2) == ""


def test_a_killed_kernel_is_told_and_what_was_executed_is_kept(run: Run) -> None:
    report = run("print('kept')", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "1")
    assert isinstance(report.failure, KernelDied)
    assert "killed in cell 2" in str(report.failure)
    assert notebooks.text(report.output, 0) == "kept\n"


def test_the_notebook_is_saved_after_every_cell(run: Run, tmp_path: Path) -> None:
    report = run("print('first')", f"print('first' in open({str(tmp_path / 'out.ipynb')!r}).read())")
    assert report.status == "done", report.error
    assert notebooks.text(report.output, 1) == "True\n"


def test_the_output_may_not_be_the_notebook(tmp_path: Path) -> None:
    notebook = notebooks.write(tmp_path / "nb.ipynb", "1")
    with pytest.raises(InputError, match="is the notebook itself"):
        job.run(notebook, notebook)


def test_an_output_that_cannot_be_written_is_refused_before_anything_runs(tmp_path: Path, own_folders: Path) -> None:
    notebook = notebooks.write(tmp_path / "nb.ipynb", "1")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        job.run(notebook, tmp_path / "file" / "out.ipynb")
    assert not (own_folders / "data" / "jobs").exists()


def test_a_named_hub_without_a_token_is_refused_before_anything_runs(tmp_path: Path, own_folders: Path) -> None:
    notebook = notebooks.write(tmp_path / "nb.ipynb", "1")
    with pytest.raises(SignInError, match="HAVERSACK_TOKEN"):
        job.run(notebook, tmp_path / "out.ipynb", hub="http://127.0.0.1:9")
    assert not (own_folders / "data" / "jobs").exists()


def test_any_name_of_a_notebook_will_do(tmp_path: Path) -> None:
    name = f"Lesson 1: $HOME's {'long' * 45}.ipynb"
    notebook = notebooks.write(tmp_path / name, "!pip --version")
    report = job.run(notebook, tmp_path / "out.ipynb")
    assert report.status == "done"
    assert notebooks.text(report.output, 0).startswith("pip ")


def test_a_long_path_of_the_temporary_folder_will_do(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    assert run("print(1)").status == "done"


def test_two_jobs_at_once_do_not_meet(tmp_path: Path) -> None:
    source = "import os, time\nopen('who', 'w').write(NAME)\ntime.sleep(1.5)\nprint(open('/content/who').read())"
    jobs = []
    for name in ("a", "b"):
        notebook = notebooks.write(tmp_path / f"{name}.ipynb", source.replace("NAME", repr(name)))
        jobs.append(start(notebook, "-o", str(tmp_path / f"{name}.out.ipynb")))
    assert [process.wait(300) for process in jobs] == [0, 0]
    assert [notebooks.text(tmp_path / f"{name}.out.ipynb", 0) for name in "ab"] == ["a\n", "b\n"]


def test_the_command_prints_one_json_object_last(tmp_path: Path) -> None:
    notebook = notebooks.write(tmp_path / "nb.ipynb", "print(1)")
    process = start(notebook, "-o", str(tmp_path / "out.ipynb"), "--json")
    printed, shown = process.communicate(timeout=300)
    report = json.loads(printed)
    assert (report["status"], report["cells"], report["sessions"]) == ("done", 1, 1)
    assert "[1/1] print(1)" in shown


def test_the_command_fails_when_a_cell_does(tmp_path: Path) -> None:
    notebook = notebooks.write(tmp_path / "nb.ipynb", "raise RuntimeError('no luck')")
    process = start(notebook, "-o", str(tmp_path / "out.ipynb"), "--json")
    printed, shown = process.communicate(timeout=300)
    assert process.returncode == 1
    assert json.loads(printed)["status"] == "failed"
    assert (
        shown.splitlines()[-1]
        == "haversack: Cell 1 failed: RuntimeError: no luck. The executed notebook has its traceback."
    )


@pytest.mark.parametrize("way", ["", "bubblewrap", "literals"])
def test_ctrl_c_interrupts_the_cell_and_keeps_what_was_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "bubblewrap" and shutil.which("bwrap") is None:
        pytest.skip("needs bubblewrap")
    monkeypatch.setenv("HAVERSACK_CONTENT", way)
    begun = tmp_path / "begun"
    notebook = notebooks.write(tmp_path / "nb.ipynb", "print('kept')", f"!touch {begun}; sleep 60")
    process = start(notebook, "-o", str(tmp_path / "out.ipynb"))
    wait_for(begun)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "interrupted in cell 2" in shown
    assert notebooks.text(tmp_path / "out.ipynb", 0) == "kept\n"


def test_a_killed_command_takes_its_kernel_with_it(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    cell = f"import os, time\nopen({str(begun)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)"
    process = start(notebooks.write(tmp_path / "nb.ipynb", cell), "-o", str(tmp_path / "out.ipynb"))
    wait_for(begun)
    kernel = int(begun.read_text())
    process.kill()
    process.communicate()
    end = time.monotonic() + 60
    while Path(f"/proc/{kernel}").exists():
        assert time.monotonic() < end, "the kernel outlived its job"
        time.sleep(0.1)


def test_no_command_line_shows_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_TOKEN", "a-token-nobody-may-see")
    cell = "listed = !ps axww\nprint('a-token-nobody' in str(listed))"
    process = start(notebooks.write(tmp_path / "nb.ipynb", cell), "-o", str(tmp_path / "out.ipynb"))
    process.communicate(timeout=300)
    assert notebooks.text(tmp_path / "out.ipynb", 0) == "False\n"


def test_a_kernel_that_cannot_start_is_an_error_of_ours(run: Run, own_folders: Path, tmp_path: Path) -> None:
    # IPython refuses to start when its own folder cannot be made.
    (tmp_path / "sitecustomize.py").write_text("import sys\nif 'ipykernel_launcher' in sys.argv: sys.exit(3)")
    (tmp_path / "ipykernel_launcher.py").write_text("raise SystemExit('broken')")
    os.environ["PYTHONPATH"] = str(tmp_path)
    try:
        report = run("1")
    finally:
        del os.environ["PYTHONPATH"]
    assert isinstance(report.failure, JobError)
    assert "did not start" in str(report.failure)


def test_a_jobs_kernel_has_no_debugger_and_a_cell_may_import_it(run: Run) -> None:
    report = run("import sys\nprint('debugpy' in sys.modules)\nimport debugpy\nprint(debugpy.__name__)")
    assert notebooks.text(report.output, 0) == "False\ndebugpy\n"


def start(notebook: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "haversack", "run", str(notebook), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path) -> None:
    end = time.monotonic() + 120
    while not (path.exists() and (path.stat().st_size or not path.suffix)):
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.05)
    time.sleep(0.2)
