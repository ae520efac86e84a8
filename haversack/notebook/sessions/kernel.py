"""How a job's kernel is started: its kernelspec, sockets, environment variables and log.

Runs in the process of `haversack run`. The kernel is started from a kernelspec named `python3` in the job's folder, so
the notebook's metadata cannot choose another one. It is interrupted by messages rather than signals, because a wrapper
such as `bwrap` may stand between the parent and it. What it writes to its own standard output and error, rather than to
a cell's, goes masked to `kernel.log`. Its environment variables hold secrets, so they are passed to the process
directly, never on a command line or in a file.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from pathlib import Path
from queue import Empty
from typing import IO, Any

import zmq.asyncio
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager

from haversack.notebook.clients import interpreter
from haversack.notebook.place.content import ContentFolder
from haversack.notebook.place.environment import Environment
from haversack.notebook.secrets.masking import Secrets

EXTENSION = "haversack.notebook"
_READY_POLL = 1.0  # seconds that a kernel has to answer before it is asked again
# The path of a Unix socket has at most 107 bytes (unix(7)). A temporary folder of at most 70 leaves room for our names.
_MAX_FOLDER_LENGTH = 70
# The most lines of a private key that are held back until its end: RSA with 16384 bits has 200.
_MAX_KEY_LINES = 250


def write_spec(folder: Path, environment: Environment, content: ContentFolder) -> Path:
    """Write the kernelspec `python3` to `folder/kernels`, and return that folder.

    Its command runs the environment's Python with haversack's extension, behind the prefix of `content`. Raises
    `OSError`.
    """
    launcher = interpreter.IMPORTED_FROM / "haversack" / "notebook" / "kernel_launcher.py"
    command = [str(environment.python), str(launcher), "-f", "{connection_file}", "--ext", EXTENSION]
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
    """Create a temporary folder that only this user may enter, with a path short enough for Unix sockets in it.

    The caller deletes it. Raises `OSError`.
    """
    usual = tempfile.gettempdir()
    parent = usual if len(os.fsencode(usual)) <= _MAX_FOLDER_LENGTH else "/tmp"
    return Path(tempfile.mkdtemp(prefix="haversack-", dir=parent))


def manager(kernels: Path, sockets: Path) -> AsyncKernelManager:
    """Return the manager of a kernel that is not started yet; it communicates by Unix sockets.

    `kernels` is the folder of kernelspecs that `write_spec` returned, `sockets` a `socket_folder` for the sockets and
    the connection file. Other users of the machine could connect to a loopback port, but not to a socket in that
    folder.
    """
    specs = KernelSpecManager(kernel_dirs=[str(kernels)], ensure_native_kernel=False)
    return AsyncKernelManager(
        kernel_name="python3",
        client_factory=_Client,
        kernel_spec_manager=specs,
        connection_file=str(sockets / "kernel.json"),
        transport="ipc",
        ip=str(sockets / "kernel"),
    )


class _Client(AsyncKernelClient):
    """A client whose sockets keep every message.

    ZeroMQ drops what a subscriber has not read beyond 1,000 messages (zmq_setsockopt(3), ZMQ_RCVHWM), the message that
    ends the cell included: a loop that flushes after every step sends them faster than they are processed here.
    """

    def _context_default(self) -> zmq.asyncio.Context:
        context: zmq.asyncio.Context = super()._context_default()
        context.setsockopt(zmq.RCVHWM, 0)
        return context

    async def wait_for_ready(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the base class's
        """Wait until the kernel answers and its outputs arrive here.

        The base class then waits 0.2 s for outputs that another client has asked for; a job's kernel has no other.
        Raises `RuntimeError` if the kernel ends, and if it does not answer within `timeout` seconds; None: no limit.
        """
        end = math.inf if timeout is None else time.monotonic() + timeout
        while time.monotonic() < end:
            self.kernel_info()
            if await _next(self.get_shell_msg(timeout=_READY_POLL)):
                # The answer's status is an output. Without it, the subscription was too late for it: ask again.
                if await _next(self.get_iopub_msg(timeout=_READY_POLL)):
                    return
            elif not await self.is_alive():
                raise RuntimeError("it ended before it answered")
        raise RuntimeError(f"it did not answer within {timeout:.0f} s")


async def _next(message: Awaitable[dict[str, Any]]) -> bool:
    """Wait for a message of a channel; return whether one came."""
    try:
        await message
    except Empty:
        return False
    return True


def variables(inherited: Mapping[str, str], home: Path) -> dict[str, str]:
    """Return the `inherited` environment variables with HOME set to `home`, and bash as the shell of `!` as on Colab.

    Those that name the user's own folders or change where packages go are left out: `XDG_*`, `JUPYTER_*`, `IPYTHON*`,
    `PYTHONHOME`, `PYTHONUSERBASE`, `PIP_TARGET`, `PIP_PREFIX` and `PIP_ROOT*`.
    """
    private = ("XDG_", "JUPYTER_", "IPYTHON", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PYTHONHOME", "PYTHONUSERBASE")
    kept = {name: value for name, value in inherited.items() if not name.startswith(private)}
    shell = shutil.which("bash")
    return {**kept, "HOME": str(home), **({"SHELL": shell} if shell else {})}


class KernelLog:
    """Copies the kernel's own output, masked line by line, from a pipe to the file `path`, in a thread.

    The lines of a private key are masked together, because one alone does not show what it is. `pipe` is the file
    descriptor of the pipe's write end, for the kernel's process.
    """

    def __init__(self, path: Path, secrets: Secrets) -> None:
        self.path = path
        self._secrets = secrets
        reader, self.pipe = os.pipe()
        self._thread = threading.Thread(target=self._copy, args=(os.fdopen(reader, errors="replace"),), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close the parent's write end, and wait at most 1 s for the thread to reach the end of the pipe.

        If a process of the kernel still holds the pipe open, the thread copies on until the parent exits.
        """
        os.close(self.pipe)
        self._thread.join(timeout=1)

    def _copy(self, reader: IO[str]) -> None:
        """Run in the thread: copy until all write ends are closed."""
        with reader, open(self.path, "a") as log:
            for lines in _with_whole_keys(reader):
                log.write(self._secrets.mask(lines))
                log.flush()


def _with_whole_keys(lines: Iterable[str]) -> Iterator[str]:
    """Yield each line, but those of a private key as one text."""
    held: list[str] = []
    for line in lines:
        held.append(line)
        is_key = "-----BEGIN " in held[0] and "PRIVATE KEY" in held[0]
        if not is_key or "-----END " in line or len(held) == _MAX_KEY_LINES:
            yield "".join(held)
            held.clear()
    if held:
        yield "".join(held)
