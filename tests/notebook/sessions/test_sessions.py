"""A job over several sessions: kernels that are ended, die and hang for real, and jobs that go on elsewhere."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from haversack.errors import InputError, JobError, KernelDied
from haversack.notebook.job import job
from haversack.notebook.sessions import exit_cause, processes
from tests.conftest import RunningHub
from tests.notebook import notebooks
from tests.notebook.conftest import Run
from tests.notebook.job.test_job import start, wait_for


def counted(folder: Path, name: str) -> str:
    """A cell's line that adds one character to a file for each time it is executed."""
    return f"open({str(folder / name)!r}, 'a').write('x')"


# A cell that trains so slowly that it is saved on its way, and one that trains the same without a break.
SLOWLY_AND_QUICKLY = (
    """
import hashlib, sys, time
sys.modules["sklearn"] = None  # Keras imports it where it is installed
import keras, numpy as np
from google.colab import files
epochs = int(*files.upload().values())
x = np.random.default_rng(0).random((320, 4)).astype("float32")
def train(pause):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.2), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    slow = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: time.sleep(pause))
    history = model.fit(x, x.sum(1), epochs=epochs, validation_split=0.2, callbacks=[slow], verbose=0).history
    print(hashlib.sha256(b"".join(value.tobytes() for value in model.get_weights())).hexdigest(), history)
""",
    "train(pause=0.06)",
    "train(pause=0)",
)


def command(*arguments: str) -> dict[str, Any]:
    """The report of a haversack command, executed in a process of its own."""
    return heard_command(*arguments)[1]


def heard_command(*arguments: str) -> tuple[str, dict[str, Any]]:
    """What a haversack command said on its way, and its report."""
    process = subprocess.run(
        [sys.executable, "-m", "haversack", *arguments, "--json"], capture_output=True, text=True, timeout=300
    )
    return process.stderr, json.loads(process.stdout)


def wait_for_checkpoint(my_drive: Path) -> None:
    """Until a checkpoint that was taken while a model trained is whole on the hub."""
    end = time.monotonic() + 120
    while not list(my_drive.glob("haversack/runs/*/*.safetensors")):
        assert time.monotonic() < end, "no checkpoint came to the hub"
        time.sleep(0.1)
    time.sleep(0.5)


@pytest.fixture
def small_memory(tmp_path: Path) -> Iterator[Path]:
    """A control group that has 600 MB; skips where none can be made."""
    name = f"haversack-{os.getpid()}"
    for parent, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(parent, name)
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(600_000_000))
            yield group
            return
        except OSError:
            continue
        finally:
            group.rmdir()
    pytest.skip("this machine lets nobody make a control group with little memory")


@pytest.fixture(scope="module")
def report(run_once: Run, tmp_path_factory: pytest.TempPathFactory) -> job.JobReport:
    """A job whose last cell outlasts its first session."""
    folder = tmp_path_factory.mktemp("counts")
    (folder / "given.txt").write_text("given")
    (folder / "first.txt").write_text("first")
    return run_once(
        "import os, time\nprint(os.path.exists('/content/old'), os.path.exists(os.path.expanduser('~/old')))\n"
        "open('/content/old', 'w').close()\nopen(os.path.expanduser('~/old'), 'w').close()",
        f"{counted(folder, 'once')}\nfrom google.colab import files\nfiles.upload_file('first.txt')",
        "from google.colab import files\nfiles.upload_file('x.txt')\nfiles.download('x.txt')",
        f"import subprocess\n{counted(folder, 'last')}\n"
        f"if os.path.getsize({str(folder / 'last')!r}) == 1:\n"
        f"    left = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        f"    open({str(folder / 'left')!r}, 'w').write(str(left.pid))\n    time.sleep(60)",
        f"left = open({str(folder / 'left')!r}).read()\n"
        f"print(os.path.getsize({str(folder / 'once')!r}))\n"
        f"print(os.popen(f'ps -o stat= -p {{left}}').read()[:1] in ('', 'Z'))",
        tags={1: ["once"]},
        uploads=[folder / "first.txt", folder / "given.txt"],
        session=20,
    )


def test_a_session_that_is_over_is_followed_by_another(report: job.JobReport) -> None:
    assert (report.status, report.sessions, report.cells) == ("done", 2, 5)


def test_each_session_begins_on_a_fresh_machine(report: job.JobReport) -> None:
    assert notebooks.text(report.output, 0).startswith("False False")


def test_a_cell_tagged_once_is_not_repeated(report: job.JobReport) -> None:
    assert notebooks.text(report.output, 4).split()[0] == "1"


def test_a_session_takes_all_its_processes_with_it(report: job.JobReport) -> None:
    assert notebooks.text(report.output, 4).split()[1] == "True"


def test_uploads_come_again_but_for_those_of_cells_that_do_not_and_downloads_stay_single(report: job.JobReport) -> None:
    assert report.downloads == [f"{report.job}/downloads/x.txt"]
    assert Path(report.downloads[0]).read_text() == "given"


def test_the_executed_notebook_tells_of_its_sessions(report: job.JobReport) -> None:
    sessions = notebooks.read(report.output).metadata.haversack.sessions
    assert [(one.why, one.cells) for one in sessions] == [("limit", 3), ("done", 5)]
    assert sessions[0].said == "The session reached its limit of 20 s in cell 4."
    assert sessions[0].start < sessions[0].end <= sessions[1].start


def test_a_kernel_that_died_is_started_again(run: Run, tmp_path: Path) -> None:
    count = str(tmp_path / "n")
    die = f"import os\n{counted(tmp_path, 'n')}\nif os.path.getsize({count!r}) == 1: os.kill(os.getpid(), 11)"
    report = run(die)
    assert (report.status, report.sessions) == ("done", 2)
    said = notebooks.read(report.output).metadata.haversack.sessions[0]
    assert (said.why, "by SIGSEGV" in said.said) == ("died", True)


def test_a_hung_cell_is_an_error_that_names_it_when_two_sessions_came_no_further(run: Run) -> None:
    report = run("import time", "time.sleep(600)", cell_timeout=2)
    assert report.sessions == 3
    assert type(report.failure) is JobError
    assert "There was no output and no training step for 2 s in cell 2" in str(report.failure)
    assert "two sessions in a row made no progress" in str(report.failure)


def test_a_rehearsal_without_a_training_is_an_error(run: Run) -> None:
    report = run("1", rehearse=True)
    assert report.status == "failed"
    assert "no training in it could be killed" in str(report.failure)


def test_a_cell_that_is_heard_of_is_not_hung(run: Run) -> None:
    report = run("import time\nfor n in range(12):\n    print(n)\n    time.sleep(0.5)", cell_timeout=4)
    assert (report.status, report.sessions) == ("done", 1)


def test_a_kernel_that_ran_out_of_memory_is_told_from_one_that_was_killed(tmp_path: Path, small_memory: Path) -> None:
    fill = f"{counted(tmp_path, 'n')}\nif os.path.getsize({str(tmp_path / 'n')!r}) == 1: x = b'x' * 2**30"
    kill = f"{counted(tmp_path, 'm')}\nif os.path.getsize({str(tmp_path / 'm')!r}) == 1: os.kill(os.getpid(), 9)"
    notebook = notebooks.write(tmp_path / "nb.ipynb", f"import os\n{fill}", kill, "1")
    enter = f"echo $$ > {small_memory}/cgroup.procs && exec "
    arguments = [sys.executable, "-m", "haversack", "run", str(notebook), "-o", str(tmp_path / "out.ipynb"), "--json"]
    done = subprocess.run(["/bin/sh", "-c", enter + shlex.join(arguments)], capture_output=True, text=True, timeout=300)
    assert json.loads(done.stdout)["status"] == "done"
    sessions = notebooks.read(tmp_path / "out.ipynb").metadata.haversack.sessions
    assert [one.why for one in sessions] == ["memory", "died", "done"]
    assert sessions[0].said == "The kernel ran out of memory and was killed in cell 1."


def test_what_python_wrote_when_it_crashed_is_told(tmp_path: Path) -> None:
    log = tmp_path / "kernel.log"
    log.write_text("Fatal Python error: of the session before\n")
    cause = exit_cause.ExitCauseFinder(log)
    assert cause.find(-9, "in cell 1").why == "died"
    log.write_text(log.read_text() + "Fatal Python error: Bus error\n")
    assert "by SIGBUS: Bus error" in cause.find(-7, "in cell 1").how


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
    with pytest.raises(InputError, match=r"kaggle\.json was not stored on the drive"):
        job.resume(name)
    key = own_folders / "data" / "jobs" / name / "uploads" / "1" / "kaggle.json"
    shutil.copy(tmp_path / "kaggle.json", key)
    report = command("run", "--resume", name, "-o", str(tmp_path / "second.ipynb"))
    assert (report["status"], report["sessions"]) == ("done", 2)
    assert notebooks.text(report["output"], 0).endswith("['given.txt', 'kaggle.json']\n")
    assert notebooks.text(report["output"], 3) == "5\n"


def test_a_job_that_another_machine_took_further_goes_on_from_there(
    tmp_path: Path, own_folders: Path, own_hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = notebooks.write(
        tmp_path / "nb.ipynb",
        counted(tmp_path, "first"),
        f"open({str(tmp_path / 'luck')!r}).close()",
        f"open({str(tmp_path / 'more luck')!r}).close()",
        tags={0: ["once"], 1: ["once"]},
    )
    name = Path(command("run", str(notebook), "-o", str(tmp_path / "out.ipynb"))["job"]).name
    (tmp_path / "luck").touch()
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("HAVERSACK_DATA", str(tmp_path / "other machine"))
        command("run", "--resume", name)
    (tmp_path / "luck").unlink()
    (tmp_path / "more luck").touch()
    report = command("run", "--resume", name)
    assert (report["status"], report["sessions"]) == ("done", 3)
    assert (tmp_path / "first").read_text() == "x"


def test_a_killed_machine_is_replaced_by_another_with_the_same_bits(
    tmp_path: Path, own_folders: Path, own_hub: RunningHub
) -> None:
    (tmp_path / "epochs.txt").write_text("16")
    notebook = notebooks.write(tmp_path / "nb.ipynb", *SLOWLY_AND_QUICKLY)
    process = start(notebook, "-o", str(tmp_path / "out.ipynb"), "--upload", str(tmp_path / "epochs.txt"))
    try:
        wait_for_checkpoint(own_hub.my_drive)
    finally:
        process.kill()
        process.communicate()
        [folder] = (own_folders / "data" / "jobs").iterdir()
        processes.kill(folder)
    for name in ("data", "cache"):
        shutil.rmtree(own_folders / name)
    said, report = heard_command("run", "--resume", folder.name, "-o", str(tmp_path / "second.ipynb"))
    assert said.startswith(f"Resuming {folder.name}. Its notebook and 1 upload were downloaded from the drive.")
    assert re.search(r"cell-2\.1: resumed at epoch \d+, step \d+", said)
    assert (report["status"], report["sessions"]) == ("done", 2)
    killed, whole = (re.findall(r"^[0-9a-f]{64} .+", notebooks.text(report["output"], index), re.M) for index in (1, 2))
    assert killed == whole != []


def test_a_job_that_nobody_knows_is_refused(own_hub: RunningHub) -> None:
    with pytest.raises(InputError, match="on this machine or on the drive"):
        job.resume("nb-20200101-000000")


def test_what_is_open_on_the_drive_when_the_session_is_over_is_closed_and_kept(run: Run, own_hub: RunningHub) -> None:
    report = run(
        "from google.colab import drive\ndrive.mount('/content/drive')",
        "import os, time\nbefore = os.path.exists('/content/drive/MyDrive/a.txt')\n"
        "open('/content/drive/MyDrive/a.txt', 'w').write('kept')\nif not before: time.sleep(60)",
        session=20,
    )
    assert (report.status, report.sessions) == ("done", 2)
    assert (own_hub.my_drive / "a.txt").read_text() == "kept"


def test_a_kernel_that_keeps_dying_is_an_error_of_its_own(run: Run) -> None:
    report = run("import os\nos._exit(7)")
    assert isinstance(report.failure, KernelDied)
    assert "with exit status 7" in str(report.failure)
