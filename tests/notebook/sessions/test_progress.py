"""What keeps a job going over several sessions, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from haversack.drive.fuse import mount
from haversack.errors import InputError, KernelDied
from haversack.notebook.job import job
from haversack.notebook.record.store import JobSession
from haversack.notebook.sessions.progress import JobProgress, Moved
from tests.conftest import RunningHub
from tests.drive.conftest import kill
from tests.notebook import notebooks
from tests.notebook.conftest import Run

MOUNT = "from google.colab import drive\ndrive.mount('/content/drive')"
# A loop that keeps its own checkpoint in a file, and gets one step further in each session.
OWN_CHECKPOINT = """
import os
path = {path!r}
step = int(open(path).read()) if os.path.exists(path) else 0
with open(path, 'w') as file:
    file.write(str(step + 1))
if step + 1 < {steps}:
    os._exit(1)
print('trained', step + 1)
"""
# A training that saves one more step in each session, in a process of the job `owner`.
TRAINING = """
import os, subprocess, sys
code = '''
from haversack import Checkpoints
with Checkpoints("other", take_over=True) as checkpoints:
    last = checkpoints.latest
    checkpoints.save(last.step + 1 if last else 0, {{"x": 1}}, wait=True)
    print(checkpoints.latest.step)
'''
owner = {owner!r} or os.environ['HAVERSACK_JOB']
done = subprocess.run([sys.executable, '-c', code], env=os.environ | {{'HAVERSACK_JOB': owner}}, capture_output=True)
assert not done.returncode, done.stderr.decode()
if int(done.stdout) < 4:
    os._exit(1)
"""


def own_checkpoint(steps: int, path: str = "/content/drive/MyDrive/own_checkpoint.txt") -> str:
    return OWN_CHECKPOINT.format(path=path, steps=steps)


def test_a_notebook_that_keeps_its_own_checkpoints_on_the_drive_comes_to_its_end(run: Run, own_hub: RunningHub) -> None:
    report = run(MOUNT, own_checkpoint(5))
    assert (report.status, report.sessions) == ("done", 5), report.error
    assert notebooks.text(report.output, 1) == "trained 5\n"
    [said] = [notice for notice in report.notices if "only files of the job changed" in notice]
    assert "own_checkpoint.txt" in said
    assert "at most 100 sessions" in said


def test_also_over_sessions_that_reach_their_limit(run: Run, own_hub: RunningHub) -> None:
    loop = """
import os, time
p = '/content/drive/MyDrive/own_checkpoint.txt'
step = int(open(p).read()) if os.path.exists(p) else 0
while step < 64:
    time.sleep(0.25); step += 1
    with open(p, 'w') as f: f.write(str(step))
print('trained', step)
"""
    report = run(MOUNT, loop, session=15.0)
    assert report.status == "done", report.error
    assert report.sessions > 1
    assert notebooks.text(report.output, 1) == "trained 64\n"


def test_also_where_the_drive_is_a_link(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_FUSE", "off")
    report = run(MOUNT, own_checkpoint(5), hub="embedded")
    assert (report.status, report.sessions) == ("done", 5), report.error


def test_a_file_counts_also_if_another_process_uploads_it(
    own_hub: RunningHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, mountpoint = tmp_path / "job", tmp_path / "drive"
    folder.mkdir()
    monkeypatch.setenv("HAVERSACK_JOB", str(folder))
    mount.mount(mountpoint)
    (mountpoint / "My Drive" / "a.txt").write_text("kept")
    kill(mountpoint)
    monkeypatch.delenv("HAVERSACK_JOB")
    progress = JobProgress(folder, tmp_path / "runs", tmp_path / "none")
    mount.unmount(mountpoint)
    assert progress.of(JobSession(0.0), linked=False) == Moved(cells=False, steps=False, files=["a.txt"])
    assert (own_hub.my_drive / "a.txt").read_text() == "kept"
    assert not progress.of(JobSession(0.0), linked=False).is_progress


def test_a_file_with_the_same_content_is_no_progress(run: Run, own_hub: RunningHub) -> None:
    write = "open('/content/drive/MyDrive/log.txt', 'w').write('begun')\nimport os; os._exit(1)"
    report = run(MOUNT, write)
    assert (report.status, report.sessions) == ("failed", 3)
    assert "two sessions in a row made no progress" in str(report.failure)


def test_the_files_of_others_are_no_progress(run: Run, own_hub: RunningHub) -> None:
    path = str(own_hub.my_drive / "others.txt")
    report = run(MOUNT, own_checkpoint(5, path))
    assert (report.status, report.sessions) == ("failed", 3)


def test_a_training_of_the_jobs_is_progress(run: Run) -> None:
    report = run("1", TRAINING.format(owner=""), unseeded=True)  # else the kept random streams are a notice
    assert (report.status, report.sessions) == ("done", 5), report.error
    assert report.notices == []


def test_a_training_of_another_job_is_none(run: Run) -> None:
    report = run("1", TRAINING.format(owner="/elsewhere/jobs/other"))
    assert (report.status, report.sessions) == ("failed", 3)
    assert "two sessions in a row made no progress" in str(report.failure)


@pytest.mark.parametrize(("owner", "sessions"), [("", 1), ("/elsewhere/jobs/other", 3)])
def test_only_the_jobs_own_training_steps_keep_a_silent_cell_from_being_hung(
    run: Run, own_folders: Path, owner: str, sessions: int
) -> None:
    beat = (
        "import time\nfrom pathlib import Path\nfrom haversack.training.runs.log import RunLog\n"
        f"log = RunLog(Path({str(own_folders / 'data' / 'runs' / 'beating')!r}))\n"
        "for step in range(20):\n    log.beat(0.0, 0, step)\n    time.sleep(0.3)"
    )
    cell = (
        f"import os, subprocess, sys\nowner = {owner!r} or os.environ['HAVERSACK_JOB']\n"
        f"subprocess.run([sys.executable, '-c', {beat!r}], env=os.environ | {{'HAVERSACK_JOB': owner}}); None"
    )
    report = run("1", cell, cell_timeout=4)
    assert report.sessions == sessions
    assert report.status == ("done" if sessions == 1 else "failed")


def test_a_job_is_given_up_after_the_most_sessions(run: Run, own_hub: RunningHub) -> None:
    report = run(MOUNT, own_checkpoint(5), max_sessions=2)
    assert (report.status, report.sessions) == ("failed", 2)
    assert isinstance(report.failure, KernelDied)
    assert "those were the 2 sessions that --max-sessions allows" in str(report.failure)
    assert "--max-sessions N" in report.failure.next_step
    report = job.resume(Path(report.job).name, max_sessions=1)
    assert (report.status, report.sessions) == ("failed", 3)
    report = job.resume(Path(report.job).name, max_sessions=100)
    assert (report.status, report.sessions) == ("done", 5), report.error


def test_the_most_sessions_are_at_least_one(run: Run) -> None:
    with pytest.raises(InputError, match="0 sessions"):
        run("1", max_sessions=0)


def test_a_download_with_other_content_is_progress(run: Run, tmp_path: Path) -> None:
    count = str(tmp_path / "count")
    report = run(
        f"import os\nfrom google.colab import files\nopen({count!r}, 'a').write('x')\nn = os.path.getsize({count!r})\n"
        "open('n.txt', 'w').write(str(n))\nfiles.download('n.txt')\nif n < 4: os._exit(1)"
    )
    assert (report.status, report.sessions) == ("done", 4), report.error
