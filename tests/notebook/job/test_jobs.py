"""What is kept of jobs, and its removal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from haversack.errors import InputError, NotFound
from haversack.notebook.job import jobs
from tests.notebook import notebooks
from tests.notebook.conftest import Run
from tests.notebook.job.test_job import start, wait_for


def haversack(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "haversack", "jobs", *arguments], capture_output=True, text=True)
    return done.stdout + done.stderr


def test_jobs_say_whether_they_are_done(run: Run) -> None:
    run("1")
    run("1 / 0")
    done, failed = jobs.all_jobs()
    assert (done.state, done.sessions, done.said) == ("done", 1, "")
    assert (failed.state, failed.said) == ("can go on", "Cell 1 failed: ZeroDivisionError: division by zero.")
    assert done.size > 1000
    assert [job["name"] for job in json.loads(haversack("--json"))["jobs"]] == [done.name, failed.name]


def test_those_that_are_done_are_removed_with_their_trainings(run: Run, own_folders: Path) -> None:
    run("1")
    run("1 / 0")
    done, failed = jobs.all_jobs()
    for job in (done, failed):
        (own_folders / "data" / "runs" / f"{job.name}.cell-1.1").mkdir(parents=True)
    assert haversack("rm", "--done").startswith(f"Removed {done.name}, ")
    assert jobs.all_jobs() == [failed]
    assert [run.name for run in (own_folders / "data" / "runs").iterdir()] == [f"{failed.name}.cell-1.1"]


def test_a_job_that_is_being_executed_is_not_removed(tmp_path: Path, own_folders: Path) -> None:
    begun = tmp_path / "begun"
    notebook = notebooks.write(tmp_path / "nb.ipynb", f"open({str(begun)!r}, 'w'); import time; time.sleep(60)")
    process = start(notebook, "-o", str(tmp_path / "out.ipynb"))
    wait_for(begun)
    [job] = jobs.all_jobs()
    assert job.state == "running"
    with pytest.raises(InputError, match="is being executed"):
        jobs.remove([job.name])
    process.terminate()
    process.communicate()


def test_a_job_that_is_not_there_is_said_and_none_is_removed(run: Run) -> None:
    run("1")
    with pytest.raises(NotFound, match="no job other"):
        jobs.remove([*(job.name for job in jobs.all_jobs()), "other"])
    assert len(jobs.all_jobs()) == 1
    assert "No job is named" in haversack("rm")


@pytest.mark.parametrize("name", [".", "..", "", "../jobs"])
def test_what_is_no_job_is_not_removed_by_a_name_that_leads_elsewhere(run: Run, own_folders: Path, name: str) -> None:
    before = [job.name for job in jobs.all_jobs()]
    with pytest.raises(NotFound):
        jobs.remove([name])
    assert [job.name for job in jobs.all_jobs()] == before
