"""Points of a commit at which a test can kill the process: `HAVERSACK_FAILPOINT=name`, or `name:3` for the third pass.

The kill is a real SIGKILL, as a machine that vanishes deals it. With `HAVERSACK_FAILPOINT_TRAIL=file` each pass is
noted there, as the process, its thread and the point, so that a kill from outside can be told where it struck. Unset, a
point costs two comparisons.
"""

from __future__ import annotations

import os
import signal
import threading

_NAME, _, _TURN = os.environ.get("HAVERSACK_FAILPOINT", "").partition(":")
_TRAIL = os.environ.get("HAVERSACK_FAILPOINT_TRAIL")
_passed = 0


def failpoint(name: str) -> None:
    """Die here when the environment says so."""
    global _passed
    if _TRAIL:
        _note(name, _TRAIL)
    if name != _NAME:
        return
    _passed += 1
    if _passed >= int(_TURN or 1):
        os.kill(os.getpid(), signal.SIGKILL)


def _note(name: str, trail: str) -> None:
    with open(trail, "ab", buffering=0) as file:
        file.write(f"{os.getpid()} {threading.current_thread().name} {name}\n".encode())
