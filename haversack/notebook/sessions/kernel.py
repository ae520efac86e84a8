"""The job's kernel: a process of its own, in the job's environment, HOME and `/content`.

It is started from a kernelspec named `python3` in the job's folder, so the notebook's own metadata never chooses what
runs. Interrupts go as messages, since the process may be behind a wrapper. What it writes to its standard output and
error, rather than to a cell, goes masked to `kernel.log`. Its environment is handed over directly: it has secrets in it
that belong neither on a command line nor in a file.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager

from haversack.notebook.place.content import ContentFolder
from haversack.notebook.place.environment import Environment
from haversack.notebook.secrets.masking import Secrets

EXTENSION = "haversack.notebook"
# A socket's whole path has at most 107 bytes (unix(7)); this many leave room for our names behind it.
_LONGEST = 70


def write_spec(folder: Path, environment: Environment, content: ContentFolder) -> Path:
    """Write the kernelspec `python3` below `folder`, which can stand in JUPYTER_PATH; returns the folder of kernels."""
    command = [str(environment.python), "-m", "ipykernel_launcher", "-f", "{connection_file}", "--ext", EXTENSION]
    spec = {
        "argv": [*content.prefix, *command],
        "display_name": "Python 3 (haversack)",
        "language": "python",
        "interrupt_mode": "message",
    }
    kernels = folder / "kernels"
    (kernels / "python3").mkdir(parents=True)
    (kernels / "python3" / "kernel.json").write_text(json.dumps(spec, indent=1))
    return kernels


def socket_folder() -> Path:
    """A new folder that only this user may enter, with a path short enough for sockets in it."""
    usual = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="haversack-", dir=usual if len(os.fsencode(usual)) <= _LONGEST else "/tmp"))


def manager(kernels: Path, sockets: Path) -> AsyncKernelManager:
    """What starts and ends the process; `sockets` is a `socket_folder`.

    Through sockets in that folder nobody else on the machine can listen, as they could on a port.
    """
    specs = KernelSpecManager(kernel_dirs=[str(kernels)], ensure_native_kernel=False)
    return AsyncKernelManager(
        kernel_name="python3",
        kernel_spec_manager=specs,
        connection_file=str(sockets / "kernel.json"),
        transport="ipc",
        ip=str(sockets / "kernel"),
    )


def variables(inherited: Mapping[str, str], home: Path) -> dict[str, str]:
    """The user's environment variables without those that would lead a job back to the user's own folders."""
    private = ("XDG_", "JUPYTER_", "IPYTHON", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PYTHONHOME", "PYTHONUSERBASE")
    kept = {name: value for name, value in inherited.items() if not name.startswith(private)}
    return {**kept, "HOME": str(home)}


class KernelLog:
    """The file that the kernel's own output goes to: `pipe` is for the process, and every line of it is masked."""

    def __init__(self, path: Path, secrets: Secrets) -> None:
        self.path = path
        self._secrets = secrets
        reader, self.pipe = os.pipe()
        self._thread = threading.Thread(target=self._copy, args=(os.fdopen(reader, errors="replace"),), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close this process's end; what a process left behind still writes is read until this one ends."""
        os.close(self.pipe)
        self._thread.join(timeout=1)

    def _copy(self, reader: IO[str]) -> None:
        with reader, open(self.path, "a") as log:
            for line in reader:
                log.write(self._secrets.clean(line))
                log.flush()
