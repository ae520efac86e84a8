"""Points in the code at which a test can kill or suspend the process.

`HAVERSACK_FAILPOINT=NAME[:N[:SIGNAL]]` sends SIGNAL (SIGKILL if not given) at the Nth time (the first if not given)
that the point NAME is reached. SIGKILL ends the process as if its machine were lost; SIGSTOP suspends it until it
receives SIGCONT. `HAVERSACK_FAILPOINT_TRAIL=FILE` appends a line for every point that is reached: process id, thread
name, point. A test that kills the process from outside reads in it what the kill interrupted. Without these variables a
point costs two comparisons.
"""

from __future__ import annotations

import os
import signal
import threading

_NAME, _COUNT, _SIGNAL, *_ = [*os.environ.get("HAVERSACK_FAILPOINT", "").split(":"), "", ""]
_TRAIL = os.environ.get("HAVERSACK_FAILPOINT_TRAIL")
_reached = 0


def failpoint(name: str) -> None:
    """Mark the point `name` in the code: append it to the trail and signal this thread, if the environment asks so."""
    global _reached
    if _TRAIL:
        _append_to_trail(name, _TRAIL)
    if name != _NAME:
        return
    _reached += 1
    if _reached == int(_COUNT or 1):
        # Sent to this thread, so that it runs no further; another thread could be chosen to receive a process's signal.
        signal.pthread_kill(threading.get_ident(), signal.Signals[_SIGNAL or "SIGKILL"])


def _append_to_trail(name: str, trail: str) -> None:
    with open(trail, "ab", buffering=0) as file:
        file.write(f"{os.getpid()} {threading.current_thread().name} {name}\n".encode())
