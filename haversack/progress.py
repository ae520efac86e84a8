"""Progress bars for long work on standard error, in a terminal and in a notebook; silent elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec

from haversack import place

Advance = Callable[[int], None]
"""Called with the amount of work done since the last call, in the bar's unit; negative if work must be repeated."""
_hidden: ContextVar[bool] = ContextVar("hidden", default=False)


@contextmanager
def hidden() -> Iterator[None]:
    """Show no bars in the block, in this thread or asyncio task: for work in the background."""
    token = _hidden.set(True)
    try:
        yield
    finally:
        _hidden.reset(token)


@contextmanager
def bar(description: str, total: int | None, *, unit: str = "bytes") -> Iterator[Advance]:
    """Show a progress bar in the block, with rate and time left.

    Yields the function that advances it, which is called with the number of units done since its last call. `total` is
    the whole number of units, None if unknown; `unit` is its name.
    """
    if _hidden.get() or not (sys.stderr.isatty() or _kernel_draws()):
        yield lambda amount: None
        return
    from rich import progress
    from rich.console import Console

    columns: list[progress.ProgressColumn] = [progress.TextColumn("{task.description}"), progress.BarColumn()]
    if unit == "bytes":
        columns += [progress.DownloadColumn(), progress.TransferSpeedColumn()]
    else:
        columns += [progress.MofNCompleteColumn(), progress.TextColumn(unit)]
    columns.append(progress.TimeRemainingColumn(elapsed_when_finished=True))
    # In a notebook, rich redraws a bar only with ipywidgets; without them it prints the last state once.
    console = Console(stderr=True, force_jupyter=None if find_spec("ipywidgets") else False)
    with progress.Progress(*columns, console=console, transient=total is None) as shown:
        task = shown.add_task(description, total=total)
        yield lambda amount: shown.advance(task, amount)


def size(count: float) -> str:
    """`count` bytes in words for people, in decimal units: "1.5 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _kernel_draws() -> bool:
    """Whether this is a notebook's kernel in which rich can redraw a line."""
    return place.in_kernel() and find_spec("ipywidgets") is not None
