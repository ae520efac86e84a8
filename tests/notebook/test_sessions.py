"""A job over several sessions: kernels that are ended, die and hang for real, and jobs that go on elsewhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from haversack.errors import InputError, JobError, KernelDied
from haversack.notebook import death, job
from tests.conftest import RunningHub
from tests.notebook import notebooks
from tests.notebook.conftest import Run
from tests.notebook.test_job import start, wait_for


def counted(folder: Path, name: str) -> str:
    """A cell's line that adds one character to a file for each time it is executed."""
    return f"open({str(folder / name)!r}, 'a').write('x')"


def command(*arguments: str) -> dict[str, Any]:
    """The report of a haversack command, executed in a process of its own."""
    process = subprocess.run(
        [sys.executable, "-m", "haversack", *arguments, "--json"], capture_output=True, text=True, timeout=100
    )
    report: dict[str, Any] = json.loads(process.stdout)
    return report


@pytest.fixture(scope="module")
def report(run_once: Run, tmp_path_factory: pytest.TempPathFactory) -> job.Report:
    """A job whose last cell outlasts its first session."""
    folder = tmp_path_factory.mktemp("counts")
    (folder / "given.txt").write_text("given")
    return run_once(
        "import os, time\nprint(os.path.exists('/content/old'), os.path.exists(os.path.expanduser('~/old')))\n"
        "open('/content/old', 'w').close()\nopen(os.path.expanduser('~/old'), 'w').close()",
        counted(folder, "once"),
        "from google.colab import files\nfiles.upload_file('x.txt')\nfiles.download('x.txt')",
        f"import subprocess\n{counted(folder, 'last')}\n"
        f"if os.path.getsize({str(folder / 'last')!r}) == 1:\n"
        f"    left = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        f"    open({str(folder / 'left')!r}, 'w').write(str(left.pid))\n    time.sleep(60)",
        f"left = open({str(folder / 'left')!r}).read()\n"
        f"print(os.path.getsize({str(folder / 'once')!r}))\n"
        f"print(os.popen(f'ps -o stat= -p {{left}}').read()[:1] in ('', 'Z'))",
        tags={1: ["once"]},
        uploads=[folder / "given.txt"],
        session=7,
    )


def test_a_session_that_is_over_is_followed_by_another(report: job.Report) -> None:
    assert (report.status, report.sessions, report.cells) == ("done", 2, 5)


def test_each_session_begins_on_a_fresh_machine(report: job.Report) -> None:
    assert notebooks.text(report.output, 0).startswith("False False")


def test_a_cell_tagged_once_is_not_repeated(report: job.Report) -> None:
    assert notebooks.text(report.output, 4).split()[0] == "1"


def test_a_session_takes_all_its_processes_with_it(report: job.Report) -> None:
    assert notebooks.text(report.output, 4).split()[1] == "True"


def test_uploads_come_again_and_downloads_stay_single(report: job.Report) -> None:
    assert report.downloads == [f"{report.job}/downloads/x.txt"]
    assert Path(report.downloads[0]).read_text() == "given"


def test_the_executed_notebook_tells_of_its_sessions(report: job.Report) -> None:
    sessions = notebooks.read(report.output).metadata.haversack.sessions
    assert [(one.why, one.cells) for one in sessions] == [("limit", 3), ("done", 5)]
    assert sessions[0].said == "The session came to its limit of 7 s in cell 4."
    assert sessions[0].start < sessions[0].end <= sessions[1].start


def test_a_kernel_that_died_is_started_again(run: Run, tmp_path: Path) -> None:
    count = str(tmp_path / "n")
    die = f"import os\n{counted(tmp_path, 'n')}\nif os.path.getsize({count!r}) == 1: os.kill(os.getpid(), 11)"
    report = run(die)
    assert (report.status, report.sessions) == ("done", 2)
    said = notebooks.read(report.output).metadata.haversack.sessions[0]
    assert (said.why, "by SIGSEGV" in said.said) == ("died", True)


def test_a_hung_cell_is_an_error_that_names_it_when_two_sessions_came_no_further(run: Run) -> None:
    report = run("import time", "time.sleep(600)", cell_timeout=0.5)
    assert report.sessions == 3
    assert type(report.failure) is JobError
    assert "Nothing was heard for 0.5 s in cell 2" in str(report.failure)
    assert "two sessions in a row came no further" in str(report.failure)


def test_a_cell_that_is_heard_of_is_not_hung(run: Run) -> None:
    report = run("import time\nfor n in range(8):\n    print(n)\n    time.sleep(0.5)", cell_timeout=2)
    assert (report.status, report.sessions) == ("done", 1)


def test_what_python_wrote_when_it_crashed_is_told(tmp_path: Path) -> None:
    log = tmp_path / "kernel.log"
    log.write_text("Fatal Python error: of the session before\n")
    witness = death.Witness(log)
    assert witness.tell(-9, "in cell 1").why == "died"
    log.write_text(log.read_text() + "Fatal Python error: Bus error\n")
    assert "by SIGBUS: Bus error" in witness.tell(-7, "in cell 1").how


def test_a_job_whose_command_was_killed_is_resumed(tmp_path: Path, own_folders: Path) -> None:
    begun = tmp_path / "begun"
    notebook = notebooks.write(
        tmp_path / "my nb.ipynb",
        f"print('once'); {counted(tmp_path, 'once')};",
        f"import os, time\nfirst = not os.path.exists({str(begun)!r})\nopen({str(begun)!r}, 'w').write('x')\n"
        "if first: time.sleep(600)\nprint('second')",
        tags={0: ["once"]},
    )
    process = start(notebook, "-o", str(tmp_path / "out.ipynb"))
    wait_for(begun)
    process.kill()
    process.communicate()
    [folder] = (own_folders / "data" / "jobs").iterdir()
    report = job.resume(str(folder))
    assert (report.status, report.sessions, report.output) == ("done", 2, str(tmp_path / "out.ipynb"))
    assert (tmp_path / "once").read_text() == "x"
    assert [notebooks.text(report.output, index) for index in (0, 1)] == ["once\n", "second\n"]
    with pytest.raises(InputError, match="is done"):
        job.resume(folder.name)


def test_a_job_goes_on_where_only_the_hub_is_left(tmp_path: Path, own_folders: Path, own_hub: RunningHub) -> None:
    (tmp_path / "given.txt").write_text("given")
    (tmp_path / "kaggle.json").write_text('{"username": "u", "key": "0123456789abcdef0123456789abcdef"}')
    notebook = notebooks.write(
        tmp_path / "nb.ipynb",
        "from google.colab import files\nprint(list(files.upload()))",
        f"open({str(tmp_path / 'luck')!r}).close()",
        "epochs = 1",
        "print(epochs)",
    )
    uploads = ["--upload", str(tmp_path / "given.txt"), "--upload", str(tmp_path / "kaggle.json")]
    report = command("run", str(notebook), "-o", str(tmp_path / "out.ipynb"), *uploads, "--param", "epochs=5")
    name = Path(report["job"]).name
    kept = own_hub.my_drive / "haversack" / "jobs" / name
    assert "0123456789abcdef" not in "".join(path.read_text() for path in kept.rglob("*") if path.is_file())
    assert (kept / "executed.ipynb").exists()
    shutil.rmtree(own_folders / "data")
    (tmp_path / "luck").touch()
    with pytest.raises(InputError, match=r"kaggle\.json was not kept on the drive"):
        job.resume(name)
    key = own_folders / "data" / "jobs" / name / "uploads" / "1" / "kaggle.json"
    shutil.copy(tmp_path / "kaggle.json", key)
    report = command("run", "--resume", name, "-o", str(tmp_path / "second.ipynb"))
    assert (report["status"], report["sessions"]) == ("done", 2)
    assert notebooks.text(report["output"], 0).endswith("['given.txt', 'kaggle.json']\n")
    assert notebooks.text(report["output"], 3) == "5\n"


def test_a_job_that_nobody_knows_is_refused(own_hub: RunningHub) -> None:
    with pytest.raises(InputError, match="neither here nor on the drive"):
        job.resume("nb-20200101-000000")


def test_what_is_open_on_the_drive_when_the_session_is_over_is_closed_and_kept(run: Run, own_hub: RunningHub) -> None:
    report = run(
        "from google.colab import drive\ndrive.mount('/content/drive')",
        "import os, time\nbefore = os.path.exists('/content/drive/MyDrive/a.txt')\n"
        "open('/content/drive/MyDrive/a.txt', 'w').write('kept')\nif not before: time.sleep(60)",
        session=8,
    )
    assert (report.status, report.sessions) == ("done", 2)
    assert (own_hub.my_drive / "a.txt").read_text() == "kept"


def test_a_kernel_that_keeps_dying_is_an_error_of_its_own(run: Run) -> None:
    report = run("import os\nos._exit(7)")
    assert isinstance(report.failure, KernelDied)
    assert "with exit status 7" in str(report.failure)
