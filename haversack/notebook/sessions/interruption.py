"""SIGINT (Ctrl-C) and SIGTERM while a job runs: the first interrupts the running cell, the second ends the job at once.

Runs in the process of `haversack run`.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from haversack.notebook.sessions.execution import Execution


@contextmanager
def handle_signals(running: Execution) -> Iterator[None]:
    """Handle SIGINT and SIGTERM in the block, which must run in a task of the event loop on the main thread.

    The first signal interrupts the running cell of `running`, whose `execute_one` then raises `Interrupted`. The second
    one, or the first before the kernel has answered, cancels the task, and the block raises `KeyboardInterrupt`.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None

    def on_signal() -> None:
        if running.interrupted or not running.is_ready:
            task.cancel()
        else:
            running.interrupt()

    handled = (signal.SIGINT, signal.SIGTERM)
    for number in handled:
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
