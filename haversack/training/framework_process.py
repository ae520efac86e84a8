"""A framework asked for its devices in a process of its own, by the program `framework_devices`.

So it is not imported here, may be that of another Python, and may hang or crash.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

from haversack.training import clock, framework_devices

# Without these, JAX and TensorFlow reserve most of the memory of a GPU on which another process may be training.
_SPARING = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
_GRACE = 5.0  # seconds for a killed process to end; one that waits for a driver may not


class FrameworkProcess:
    """A process that asks one framework, from its start on; a context manager, which kills it at the end.

    What the framework prints is dropped.
    """

    def __init__(self, python: str, module: str, variables: Mapping[str, str]) -> None:
        """Start it.

        Args:
            python: the path of the Python that has the framework, or not.
            module: a key of `framework_devices.FRAMEWORKS`.
            variables: its environment variables.

        Raises `OSError` if it cannot be started.
        """
        # A file, because a pipe holds only so much, and a child of the framework could keep it open.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._process = subprocess.Popen(
            [python, framework_devices.__file__, module],
            env={**variables, **_SPARING},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a group of its own, to be killed with its children
        )

    def __enter__(self) -> FrameworkProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE)
        self._output.close()

    def answer(self, end: float, timeout: float) -> dict[str, Any]:
        """Return what `framework_devices.answer` returns, by the time `end` of `time.monotonic`.

        {"installed": True, "error": …} if it does not answer by then, `timeout` seconds after the start, or dies.
        """
        try:
            status = self._process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            return {"installed": True, "error": f"it did not answer within {clock.words(timeout)}."}
        self._output.seek(0)
        try:
            answer: dict[str, Any] = json.loads(self._output.read())
        except ValueError:
            how = f"signal {-status}, {signal.strsignal(-status)}" if status < 0 else f"status {status}"
            return {"installed": True, "error": f"its process ended with {how}."}
        return answer
