"""What to write today, for errors that notebooks of other years and machines are known to meet.

One table: a pattern for the cell, one for the error, and the next step that both together call for. The original
exception stays as it is; the hint stands below its traceback and in the job's last line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Hint:
    """`cell` is searched in the cell's source, `error` in `Name: message`; `advice` may use the error's groups."""

    error: re.Pattern[str]
    advice: str
    cell: re.Pattern[str] = re.compile("")


_TPU = "Colab's old TPU addresses are gone: write haversack.distribute(), or keras.distribution, to use every core."
_HINTS = (
    Hint(re.compile("COLAB_TPU_ADDR"), _TPU),
    Hint(re.compile(""), _TPU, re.compile(r"COLAB_TPU_ADDR|tf\.contrib\.tpu|tensorflow\.contrib")),
    Hint(re.compile(r"has no attribute 'contrib'|No module named 'tensorflow\.contrib"), _TPU),
    Hint(
        re.compile(r"The filename must end in `?\.weights\.h5`?.*?filepath=(?P<path>\S+?)(?:\.h5)?$", re.DOTALL),
        "Keras 3 saves weights under another ending: write save_weights('{path}.weights.h5').",
    ),
    Hint(
        re.compile(r"The filename must end in `?\.weights\.h5`?"),
        "Keras 3 saves weights under another ending: write save_weights('x.weights.h5').",
    ),
    Hint(
        re.compile(r"^StdinNotImplementedError"),
        "Nobody can answer in a job: set the value with --param or userdata.get().",
    ),
    Hint(
        re.compile(r"^ModuleNotFoundError: No module named '(?P<name>[\w]+)"),
        "Add a cell before it: %pip install {name}",
    ),
)


def advice(source: str, error: str) -> str:
    """The next step for a cell's error, written `Name: message`; "" where none is known."""
    for hint in _HINTS:
        found = hint.error.search(error)
        if found and hint.cell.search(source):
            return hint.advice.format(**found.groupdict())
    return ""
