"""`--rehearse=compare`: the notebook also runs unbroken, and the trainings of both must end the same.

That a killed training goes on does not show that it goes on right: state that no checkpoint holds is lost in silence.
So a copy of the notebook runs first, in a data folder of its own with a copy of the embedded drive, and is not killed.
Then the job runs, on the same random streams, and is killed once. Compared is what each training logged at its end: a
hash of its weights, its optimizer and other state, and the history. Files that the notebook writes are not compared:
many hold the time at which they were written.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from haversack import settings
from haversack.errors import InputError, JobError
from haversack.notebook import streams
from haversack.notebook.job.report import JobReport
from haversack.training.runs import report as run_report
from haversack.training.runs.log import LOG


@dataclass(frozen=True)
class Ends:
    """What the trainings of a job ended with: `runs` by their names, without the job's own name before them."""

    runs: dict[str, run_report.Run]


def rehearse(
    notebook: Path, arguments: Sequence[str], run: Callable[..., JobReport], *, hub: str | None, trusted: bool
) -> JobReport:
    """Run `notebook` unbroken, then call `run` for the rehearsed job, and return its report.

    Args:
        notebook: the notebook.
        arguments: the arguments of `haversack run` for the unbroken copy, without those about output and rehearsal.
        run: runs the rehearsed job; its argument `random_streams` is that of `job.run`.
        hub: the job's hub, which must be the embedded one or None: a copy on another hub would write its drive twice.
        trusted: whether the notebook is run like the user's own. The copy is, so it must be.

    Its status is "failed" if a training ended otherwise than in the copy. Raises `InputError` for another hub or a
    notebook that is not trusted, and `JobError` if the copy fails; all before the job is run.
    """
    if not trusted:
        raise InputError(
            "--rehearse=compare runs a copy of the notebook, and that copy would not be isolated.",
            "Read the notebook, and if you trust it, add --trust; or rehearse without =compare.",
        )
    if hub not in (None, "embedded"):
        raise InputError(
            "--rehearse=compare runs the notebook twice, and both would write the hub's drive.",
            "Leave out --hub, or rehearse without =compare.",
        )
    data = settings.load().data
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(prefix="unbroken-", dir=data) as folder:
        job = _run_unbroken(notebook, arguments, Path(folder), data)
        unbroken = _ends(job.name, Path(folder) / "data" / "runs")
        rehearsed = run(random_streams=job / streams.FILE)
    if rehearsed.failure is not None:
        return rehearsed
    found = differences(unbroken, _ends(Path(rehearsed.job).name, data / "runs"))
    if found:
        failure = JobError(
            f"The rehearsed notebook ended otherwise than one that was not killed: {'; '.join(found)}.",
            "Seed what the notebook draws, or keep state where a checkpoint has it; docs/training.md says where.",
        )
        return replace(rehearsed, status="failed", error=str(failure), failure=failure)
    rehearsed.notices += _same(unbroken)
    return rehearsed


def differences(unbroken: Ends, rehearsed: Ends) -> list[str]:
    """Describe what the trainings of the rehearsed job ended with that those of the unbroken one did not."""
    found = []
    for name, whole in unbroken.runs.items():
        killed = rehearsed.runs.get(name)
        if killed is None or (whole.finished and not killed.finished):
            found.append(f"{name} did not finish")
        elif [repr(epoch.logs) for epoch in killed.epochs] != [repr(epoch.logs) for epoch in whole.epochs]:
            found.append(f"{name} has another history")
        elif killed.digest != whole.digest:
            found.append(f"{name} has other weights, or another state of its optimizers")
    return found


def _same(unbroken: Ends) -> list[str]:
    """Return the sentences about trainings that ended the same. A loop without `epochs` has no hash of its end."""
    hashed = [name for name, run in unbroken.runs.items() if run.digest]
    others = [name for name, run in unbroken.runs.items() if not run.digest]
    found = []
    if hashed or not others:
        found.append(f"Ended as without a kill, to the bit: {', '.join(hashed) or 'no training'}.")
    if others:
        found.append(f"Of {', '.join(others)} only the history was compared: write `for epoch in run.epochs(…):`.")
    return found


def _run_unbroken(notebook: Path, arguments: Sequence[str], folder: Path, data: Path) -> Path:
    """Run the copy with `folder/data` as data folder, and return its job's folder. Raises `JobError` if it fails."""
    own = folder / "data"
    drive = data / "hub"
    if drive.is_dir():
        shutil.copytree(drive, own / "hub", symlinks=True)
    environment = {**os.environ, "HAVERSACK_DATA": str(own), "HAVERSACK_CACHE": str(settings.load().cache)}
    command = [sys.executable, "-m", "haversack", "run", str(notebook), "-o", str(folder / "unbroken.ipynb")]
    done = subprocess.run([*command, *arguments, "--json"], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        report = json.loads(done.stdout)
    except ValueError:
        report = {"error": "it did not start."}
    if done.returncode or report["error"]:
        raise JobError(f"The notebook fails without a kill too: {report['error']}", "Correct it, then rehearse.")
    return Path(report["job"])


def _ends(job: str, runs: Path) -> Ends:
    logs = sorted(runs.glob(f"[!.]*/{LOG}"))
    read = [run_report.read(log.parent) for log in logs]
    return Ends({run.name.removeprefix(f"{job}."): run for run in read})
