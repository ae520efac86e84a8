"""A summary at the end of a job's web page: a table of its sessions, and plots of the trainings that were resumed.

Only the web page has it. The executed notebook has the same cells as the given one; programs find the sessions in its
metadata.
"""

from __future__ import annotations

import base64
import copy
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from haversack import runs
from haversack.notebook.record.schema import nbformat
from haversack.notebook.record.store import JobSession
from haversack.training import clock


def with_summary(notebook: Any, sessions: Sequence[JobSession], runs_of_job: Sequence[str]) -> Any:
    """Return a copy of `notebook` with the summary appended as Markdown cells; `notebook` itself for a single session.

    `sessions` are all sessions of the job, oldest first; `runs_of_job` are the names of the trainings (see `plainfit`)
    of which those that resumed are plotted. There are plots only if Matplotlib is installed.
    """
    if len(sessions) < 2:
        return notebook
    longer = copy.deepcopy(notebook)
    longer.cells.append(nbformat.v4.new_markdown_cell(_table(sessions)))
    if find_spec("matplotlib") is not None:
        resumed = [name for name in runs_of_job if len(runs.show(name).sessions) > 1]
        longer.cells += [nbformat.v4.new_markdown_cell(_plot(name)) for name in resumed]
    return longer


def _table(sessions: Sequence[JobSession]) -> str:
    """Return a heading and a Markdown table with one row per session."""
    rows = ["| session | start | duration | end | resumed |", "|---|---|---|---|---|"]
    for number, session in enumerate(sessions, start=1):
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(session.began))
        duration = "" if session.ended is None else clock.words(session.ended - session.began)
        end = "The notebook is done." if session.why == "done" else session.said or "Killed; no end was recorded."
        cells = [str(number), began, duration, end, "; ".join(session.resumed)]
        rows.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join([f"## Executed over {len(sessions)} sessions", "", *rows])


def _plot(name: str) -> str:
    """Return a Markdown image with the plot of a run, embedded as base64."""
    return f"![The loss of {name}](data:image/png;base64,{base64.b64encode(runs.plot(name).png).decode()})"
