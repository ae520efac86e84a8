"""SIGINT and SIGTERM, held until the current training step ends, so that its result can be saved first.

A machine that is taken away may send SIGTERM first, and a user who interrupts a cell sends SIGINT. Inside the `with`
block, the handler only records the signal; the training saves at its next step and then delivers the signal. A SIGINT
that comes while a signal is held delivers the held signal at once. Python allows signal handlers in the main thread
alone, so in other threads no signal is held.
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
    """A context manager that holds SIGINT and SIGTERM in the main thread; in other threads it does nothing.

    At the exit of the block the previous handlers are restored, and a held signal is delivered unless the block raised.
    Signals that the process ignored before the block stay ignored.

    Attributes:
        received: the number of the held signal; None if there is none. Only this object assigns it.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous_handlers: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in _HELD:
                previous = signal.getsignal(number)
                # An ignored signal stays ignored, and a handler that was not set from Python cannot be restored.
                if previous not in (signal.SIG_IGN, None):
                    self._previous_handlers[number] = previous
                    signal.signal(number, self._hold)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Restore the previous handlers, and deliver a held signal unless the block raised."""
        self._restore_handlers()
        if self.received is not None and error is None:
            self.deliver()

    def deliver(self) -> None:
        """Restore the previous handlers and send the held signal, if any, to this process; later ones are not held."""
        number, self.received = self.received, None
        self._restore_handlers()
        if number is not None:
            os.kill(os.getpid(), number)

    def drop(self) -> None:
        """Forget the held signal, which is then never delivered; later ones are held."""
        self.received = None

    def _hold(self, number: int, frame: FrameType | None) -> None:
        """The signal handler: record the signal; for a SIGINT while one is held, deliver that one."""
        if self.received is not None and number == signal.SIGINT:
            self.deliver()
        self.received = number
        if number == signal.SIGINT:
            print("haversack: stopping after this step; interrupt again to stop at once", file=sys.stderr)

    def _restore_handlers(self) -> None:
        for number, previous in self._previous_handlers.items():
            signal.signal(number, previous)
        self._previous_handlers = {}
