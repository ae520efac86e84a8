"""Points of a commit at which a test can kill the process: `HAVERSACK_FAILPOINT=name`, or `name:3` for the third pass.

The kill is a real SIGKILL, as a machine that vanishes deals it. Unset, a point costs one comparison.
"""

from __future__ import annotations

import os
import signal

_NAME, _, _TURN = os.environ.get("HAVERSACK_FAILPOINT", "").partition(":")
_passed = 0


def failpoint(name: str) -> None:
    """Die here when the environment says so."""
    global _passed
    if name != _NAME:
        return
    _passed += 1
    if _passed >= int(_TURN or 1):
        os.kill(os.getpid(), signal.SIGKILL)
