"""Points of a commit at which a test can kill the process: `HAVERSACK_FAILPOINT=name`, or `name:3` for the third pass.

The kill is a real SIGKILL, as a machine that vanishes deals it; `name:3:SIGSTOP` has the process sleep there instead,
until it is sent SIGCONT. With `HAVERSACK_FAILPOINT_TRAIL=file` each pass is noted there, as the process, its thread and
the point, so that a kill from outside can be told where it struck. Unset, a point costs two comparisons.
"""

from __future__ import annotations

import os
import signal
import threading

_NAME, _TURN, _SIGNAL, *_ = [*os.environ.get("HAVERSACK_FAILPOINT", "").split(":"), "", ""]
_TRAIL = os.environ.get("HAVERSACK_FAILPOINT_TRAIL")
_passed = 0


def failpoint(name: str) -> None:
    """Die or sleep here when the environment says so."""
    global _passed
    if _TRAIL:
        _note(name, _TRAIL)
    if name != _NAME:
        return
    _passed += 1
    if _passed == int(_TURN or 1):
        # Sent to the thread itself, so that it does not go on until another one has taken the signal.
        signal.pthread_kill(threading.get_ident(), signal.Signals[_SIGNAL or "SIGKILL"])


def _note(name: str, trail: str) -> None:
    with open(trail, "ab", buffering=0) as file:
        file.write(f"{os.getpid()} {threading.current_thread().name} {name}\n".encode())
