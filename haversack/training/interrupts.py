"""SIGINT and SIGTERM, held until the step that runs is done, so that what it reached can be saved first.

A machine that is taken away may or may not say so before, and a user who interrupts a cell does. Within the `with`
block the first signal is only noted; the training saves at its next step and lets the signal go its way. A second
SIGINT is let through at once. Python hands signals to the main thread alone, so elsewhere nothing is held.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

_HELD = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While it is entered, `received` is the signal that came, None before."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in _HELD:
                before = signal.getsignal(number)
                # One that is ignored stays so, and one that C code handles cannot be put back.
                if before not in (signal.SIG_IGN, None):
                    self._before[number] = before
                    signal.signal(number, self._hold)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._let_go()
        if self.received is not None and error is None:
            self.deliver()

    def deliver(self) -> None:
        """Let the signal that was held do what it would have done."""
        number, self.received = self.received, None
        self._let_go()
        if number is not None:
            os.kill(os.getpid(), number)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            self.deliver()
        self.received = number
        if number == signal.SIGINT:
            print("haversack: stopping after this step; interrupt again to stop at once", file=sys.stderr)

    def _let_go(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}
