"""What a job has done, as `haversack run` prints it and `--json` shows it."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from haversack.errors import HaversackError
from haversack.notebook.job import inputs


@dataclass
class JobReport:
    """The result of a job. All paths are absolute; all texts are masked.

    Attributes:
        status: "done" or "failed".
        notebook, output: paths of the given and of the executed notebook. Of one that was fetched, `notebook` is the
            address, without secrets.
        trusted: whether the notebook ran like the user's own, and not isolated.
        job: the job's folder, whose name is the job's.
        html: path of the web page; None if none was written.
        sessions: number of sessions so far, those before a resume included.
        cells: number of the last cell that was executed or, in a session that ended early, finished. Cells count
            from 1, without empty and text cells.
        trainings: names of the job's trainings that the notebook gave no name, as `haversack runs` lists them.
        seconds: wall-clock time of this call of `run` or `resume`.
        environment: of the kernel's environment: `key`, the `requirements` that the notebook needs, the number of
            `packages`, `python`, `accelerator`, `from_store` and `seconds`; None with `--no-install`, and if the
            packages could not be installed.
        content: how `/content` was provided: "namespace", "bubblewrap", "folder" or "literals" (see
            `place.content`).
        downloads: paths of the copies of files that the notebook downloaded.
        inputs: the inputs below `/kaggle/input`: `name` and `source`, with the version, of each.
        outputs: the files that the notebook left in `/kaggle/working`: `name`, `path` and `size` in bytes of each.
        drive: where the mounted drive's bytes are, such as "the hub at URL"; None if no drive was mounted.
        shell_failures: the shell commands that failed without ending the job, or that ended it, in the last session:
            `cell`, `command` and `status` (the exit status; a signal's number is negative) of each.
        notices: sentences that the user should know, as printed.
        resumable: whether `--resume` can do more than fail in the same way: it cannot where the notebook is done, or
            where its packages contradict each other.
        error: the error's message; None if `status` is "done".
        failure: the error itself; None if `status` is "done".
    """

    status: Literal["done", "failed"]
    notebook: str
    output: str
    job: str
    html: str | None = None
    sessions: int = 1
    cells: int = 0
    trainings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    environment: dict[str, Any] | None = None
    content: str = ""
    downloads: list[str] = field(default_factory=list)
    inputs: list[dict[str, str]] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)
    drive: str | None = None
    trusted: bool = True
    shell_failures: list[dict[str, Any]] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    resumable: bool = False
    error: str | None = None
    failure: HaversackError | None = field(default=None, repr=False)

    def json(self) -> dict[str, Any]:
        """Return all fields but `failure` as a JSON object."""
        return {name: value for name, value in asdict(self).items() if name != "failure"}

    @property
    def summary(self) -> str:
        """The report as text: the outcome in one line, then one line for each path, download and training."""
        cells = f"{self.cells} cell{'' if self.cells == 1 else 's'}"
        over = f", over {self.sessions} sessions" if self.sessions > 1 else ""
        lines = [f"{'Done' if self.status == 'done' else 'Failed'}: {cells} in {self.seconds:.0f} s{over}."]
        lines.append(f"  notebook   {self.output}")
        if not os.path.isabs(self.notebook):
            lines.append(f"  source     {self.notebook}{'' if self.trusted else ' (not trusted)'}")
        if self.html:
            lines.append(f"  web page   {self.html}")
        lines += [f"  download   {path}" for path in self.downloads]
        lines += [f"  output     {text}" for text in inputs.shown_outputs(self.outputs)]
        lines += [f"  training   {name}" for name in self.trainings]
        if self.drive:
            lines.append(f"  drive      {self.drive}")
        lines.append(f"  job        {self.job}")
        if self.resumable:
            lines.append(f"  resume     haversack run --resume {Path(self.job).name}")
        return "\n".join(lines)
