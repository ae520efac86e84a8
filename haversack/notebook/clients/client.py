"""The kernel's end of the pipe to a process of haversack's own Python: `call` for one action, `Client` for many.

A request and its answer are one line of JSON each (`serving` has their form). The process ends when its standard input
closes, so also when the kernel dies, however it dies. It has a session of its own, so that Ctrl-C does not reach it.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from typing import Any

from haversack.errors import ConnectionFailed
from haversack.notebook import channel
from haversack.notebook.clients import failures, interpreter

_SERVER = "haversack.notebook.clients.serving"


def call(action: str, **arguments: Any) -> Any:
    """Carry out one of `actions.ACTIONS`, in a process of its own if clients are apart, else in this process.

    `arguments` are JSON values, as is what is returned. Raises what the action raises (`failures.decode` says how it
    arrives), `ConnectionFailed` if the process dies before it has answered, and `SignInError` in the job of a notebook
    that is somebody else's.
    """
    channel.check_trusted("drive and no sign-in of yours")
    if not interpreter.is_apart():
        from haversack.notebook.clients import actions

        return actions.ACTIONS[action](**arguments)
    client = Client()
    try:
        return client.ask(action, **arguments)
    finally:
        client.close()


class Client:
    """A process of haversack's own Python that carries out actions one after the other. Thread-safe.

    | state | `_process` | event | next state |
    |---|---|---|---|
    | idle | None | `ask` starts the process | running |
    | running | the process | `close` | idle |
    | | | the process dies, or `ask` is interrupted: the answer is lost, so the process is killed | idle |

    `_process` is guarded by `_lock`, which is held while a request is carried out. A forked child starts from idle,
    with a process of its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, action: str, **arguments: Any) -> Any:
        """Carry out an action as `call` does, by this client's process, started if there is none.

        The process keeps the environment variables and the working directory that it was started with. Raises
        `ConnectionFailed` if it died, and what the action raises; the next call after a death starts another one. In
        the job of a notebook that is somebody else's, raises `SignInError`.
        """
        channel.check_trusted("drive and no sign-in of yours")
        with self._lock:
            if self._process is None:
                self._process = _start()
            try:
                answer = _exchange(self._process, {"action": action, "arguments": arguments})
            except BaseException:
                self._stop()
                raise
        if "error" in answer:
            raise failures.decode(answer["error"])
        return answer["result"]

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._stop()

    def forget(self) -> None:
        """Leave the process to the one that started it. For a forked child, in which nothing else runs yet.

        Its copies of the pipe's ends are closed, so that the process still ends with its owner.
        """
        self._lock = threading.Lock()
        if self._process is not None and self._process.stdin and self._process.stdout:
            self._process.stdin.close()
            self._process.stdout.close()
        self._process = None

    def _stop(self) -> None:
        """Kill the process and close the pipe. The caller holds `_lock`."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _start() -> subprocess.Popen[bytes]:
    # Without buffers: a child that is forked during a call must not find bytes in them, or their locks held.
    return subprocess.Popen(
        interpreter.command(_SERVER),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=interpreter.environment(os.environ),
        start_new_session=True,
        bufsize=0,
    )


def _exchange(process: subprocess.Popen[bytes], request: dict[str, Any]) -> dict[str, Any]:
    """Send a request and return the answer. Raises `ConnectionFailed` if the process dies before its answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    data = memoryview(json.dumps(request).encode() + b"\n")
    line = b""
    try:
        while data:
            data = data[process.stdin.write(data) :]
        # One answer for one request, so nothing follows its line.
        while not line.endswith(b"\n") and (piece := process.stdout.read(1 << 16)):
            line += piece
    except BrokenPipeError:
        line = b""
    if not line.endswith(b"\n"):
        raise ConnectionFailed(
            f"haversack's process for {request['action']!r} died before it answered.",
            "Try again; the next call starts another one.",
        )
    return dict(json.loads(line))
