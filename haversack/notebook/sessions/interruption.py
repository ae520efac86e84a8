"""Ctrl-C and SIGTERM while a job runs: the first interrupts the running cell, a second one ends the job at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from haversack.notebook.sessions.execution import Execution


@contextmanager
def interruptible(running: Execution) -> Iterator[None]:
    """Interrupts go to the kernel of `running` as long as this lasts. Raises `KeyboardInterrupt` for a second one."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None

    def stop() -> None:
        if running.interrupted or running.kc is None:
            task.cancel()
        else:
            running.interrupt()

    handled = (signal.SIGINT, signal.SIGTERM)
    for number in handled:
        loop.add_signal_handler(number, stop)
    try:
        yield
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
