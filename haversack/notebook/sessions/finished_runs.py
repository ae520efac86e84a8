"""Delete the checkpoints of a job that is done, in a process of haversack's own Python.

Runs in the process of `haversack run`, where the kernel cannot do it: its clients are apart, or its last cell ended it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

from haversack.notebook import plainfit
from haversack.notebook.clients import interpreter

_TIMEOUT = 60  # seconds


def delete_checkpoints(variables: Mapping[str, str]) -> str:
    """Delete the job's checkpoints in a process of its own; return the last line of an error, "" if there was none.

    `variables` is the environment of the job's kernels. Raises `TimeoutError` after 60 s.
    """
    command = [sys.executable, "-c", plainfit.DELETE_CHECKPOINTS]
    own = {name: value for name, value in variables.items() if name != interpreter.VARIABLE}
    try:
        done = subprocess.run(
            command, env=own, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"The checkpoints were not deleted within {_TIMEOUT} s.") from None
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""
