"""The process that serves `/kaggle/input`: `python -m haversack.notebook.kaggle.serving`, started by `mount`.

It reads what to mount from standard input, as one line of JSON, and prints one line of JSON to standard output:
`{"ready": true}`, or `{"error": …}` with the record of `clients.failures`. It lives until its standard input closes, so
also if the process of `haversack run` dies, however it dies. Then it unmounts.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from haversack import settings
from haversack.drive.fuse.mountpoint import detach
from haversack.drive.fuse.serving import SWITCH_INTERVAL, start_fuse
from haversack.errors import HaversackError
from haversack.notebook.clients import failures
from haversack.notebook.kaggle import inputs
from haversack.notebook.kaggle.attachment import AttachedInput
from haversack.notebook.kaggle.inputs import InputFiles
from haversack.notebook.kaggle.operations import InputOperations


def main() -> None:
    """Read a request from standard input, answer on standard output, and serve the mount; exit with 1 on an error."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Ctrl-C is for the job, which closes the input when it is done with the mount.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    request = json.loads(sys.stdin.readline())
    output = os.dup(1)
    os.dup2(2, 1)  # what libraries print goes to the log

    def answer(values: dict[str, Any]) -> None:
        os.write(output, json.dumps(values).encode() + b"\n")

    try:
        attached = [AttachedInput(**one) for one in request["inputs"]]
        opened = [(one, inputs.reopen(one, request["hub"])) for one in attached]
        serve(opened, Path(request["mountpoint"]), request["newer"], lambda: answer({"ready": True}))
    except (HaversackError, OSError) as error:
        answer({"error": failures.encode(error)})
        sys.exit(1)
    # A read may still be waiting for a server. Nobody can see its answer.
    os._exit(0)


def serve(
    opened: Sequence[tuple[AttachedInput, InputFiles]], mountpoint: Path, newer: bool, on_ready: Callable[[], None]
) -> None:
    """Mount the inputs, call `on_ready`, and serve them until standard input closes or somebody unmounts.

    Raises `MountError` if FUSE refuses, and what `InputFiles.sizes` raises.
    """
    stopped = threading.Event()
    cache = settings.load().cache
    cache.mkdir(parents=True, exist_ok=True)
    # Not in /tmp, which may be memory: a spool can have gigabytes.
    with tempfile.TemporaryDirectory(prefix="inputs-", dir=cache) as spools:
        operations = InputOperations(opened, str(mountpoint), newer, Path(spools))
        fuse = start_fuse(operations, str(mountpoint), readonly=True, stopped=stopped)
        operations.kernel_cache.raise_read_ahead()
        on_ready()
        threading.Thread(target=_wait_for_end, args=(stopped,), daemon=True).start()
        stopped.wait()
        if fuse.is_alive():
            detach(mountpoint)
            fuse.join(1)


def _wait_for_end(stopped: threading.Event) -> None:
    """Run in a thread: wait until standard input closes."""
    while sys.stdin.readline():
        continue
    stopped.set()


if __name__ == "__main__":
    main()
