"""What the web page of a job over several sessions says at its end: when each ended and of what, and how its trainings
went through them.

The executed notebook itself stays as it was given, with outputs; its metadata has the same in a form for programs.
"""

from __future__ import annotations

import base64
import copy
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from nbformat.v4 import new_markdown_cell

from haversack import runs
from haversack.notebook.record.store import JobSession
from haversack.training import clock


def added(notebook: Any, sessions: Sequence[JobSession], trainings: Sequence[str]) -> Any:
    """`notebook` with these cells at its end; itself where one session was enough."""
    if len(sessions) < 2:
        return notebook
    longer = copy.deepcopy(notebook)
    longer.cells.append(new_markdown_cell(_table(sessions)))
    if find_spec("matplotlib") is not None:
        resumed = [name for name in trainings if len(runs.show(name).sessions) > 1]
        longer.cells += [new_markdown_cell(_picture(name)) for name in resumed]
    return longer


def _table(sessions: Sequence[JobSession]) -> str:
    rows = ["| session | began | lasted | ended | went on |", "|---|---|---|---|---|"]
    for number, session in enumerate(sessions, start=1):
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(session.began))
        lasted = "" if session.ended is None else clock.words(session.ended - session.began)
        ended = "The notebook was done." if session.why == "done" else session.said or "Cut off, without a word."
        cells = [str(number), began, lasted, ended, "; ".join(session.resumed)]
        rows.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join([f"## Executed over {len(sessions)} sessions", "", *rows])


def _picture(name: str) -> str:
    return f"![The loss of {name}](data:image/png;base64,{base64.b64encode(runs.plot(name).png).decode()})"
