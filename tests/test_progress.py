"""The progress bar, as a terminal gets it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from contextlib import suppress

import pytest

BAR = """if True:
    from contextlib import nullcontext
    from haversack import progress
    with {around}, progress.bar("pets", 10) as advance:
        advance(10)
"""


@pytest.mark.parametrize(("around", "shown"), [("nullcontext()", True), ("progress.hidden()", False)])
def test_bar_is_shown_unless_it_is_of_the_background(around: str, shown: bool) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", BAR.format(around=around)], stderr=theirs) as process:
        os.close(theirs)
        written = b""
        with suppress(OSError):  # which a pseudo-terminal says when nobody holds its other end any more
            while piece := os.read(ours, 1 << 16):
                written += piece
    os.close(ours)
    assert process.returncode == 0
    assert (b"pets" in written) == shown
