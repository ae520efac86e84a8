"""Starts and ends the process that serves `/kaggle/input` (`serving`). Runs in the process of `haversack run`.

The mount is made where the parent sees it, before a kernel gets a mount namespace of its own, and bound into each
kernel's `/kaggle` from there. So one mount serves all sessions of a job, and a kernel that dies takes nothing along.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from haversack.drive.fuse.mountpoint import clear_stale, detach
from haversack.errors import MountError
from haversack.notebook.clients import failures, interpreter
from haversack.notebook.kaggle.attachment import AttachedInput

_SERVER = "haversack.notebook.kaggle.serving"
# Opening a data set asks its server, with retries, and reads its directory. In seconds.
_TIMEOUT = 600.0
_END_TIMEOUT = 20.0


class InputMount:
    """The mount of a job's inputs at an existing, empty folder. Owner: `KaggleFolder`.

    The constructor returns once the mount is usable. Raises what `inputs.reopen` raises, and `MountError` if FUSE
    refuses, or the process dies or does not answer within ten minutes.

    Args:
        inputs: the inputs to mount.
        mountpoint: the absolute path of the folder.
        hub: the job's hub, as in `haversack.dataset`.
        newer: whether listings have Kaggle's newer paths; see `tree`.
        log: the file that gets what the process logs.
    """

    def __init__(
        self, inputs: Sequence[AttachedInput], mountpoint: Path, hub: str | None, newer: bool, log: Path
    ) -> None:
        self._mountpoint = mountpoint
        # It belongs to the job as a whole: the end of a session, which kills all processes of the job, spares it.
        environment = {name: value for name, value in os.environ.items() if name != "HAVERSACK_JOB"}
        with open(log, "ab") as output:
            self._process = subprocess.Popen(
                interpreter.command(_SERVER),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=interpreter.environment(environment),
                cwd="/",
                start_new_session=True,
            )
        request = {"inputs": [asdict(one) for one in inputs], "mountpoint": str(mountpoint), "hub": hub, "newer": newer}
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # a process that died at once has no answer either
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        answer = self._answer()
        if "ready" not in answer:
            self.close()
            if "error" in answer:
                raise failures.decode(answer["error"])
            raise MountError(f"The inputs could not be mounted at {mountpoint}.", f"Read {log}.")

    @property
    def is_alive(self) -> bool:
        """Whether the process serves it still."""
        return self._process.poll() is None

    def close(self) -> None:
        """Unmount, and end the process. A process that does not end by itself is killed."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        clear_stale(self._mountpoint)
        if os.path.ismount(self._mountpoint):
            detach(self._mountpoint)

    def _answer(self) -> dict[str, Any]:
        """Return the process's answer; {} if it dies or does not answer in time."""
        assert self._process.stdout is not None
        ready = select.poll()
        ready.register(self._process.stdout, select.POLLIN)
        if not ready.poll(_TIMEOUT * 1000):
            return {}
        line = self._process.stdout.readline()
        return dict(json.loads(line)) if line else {}
