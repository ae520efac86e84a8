"""One progress bar for long work, in the terminal and in a notebook; silent where nobody is looking."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec

from haversack import place

Advance = Callable[[int], None]
"""Called with how much more is done, in the bar's unit; negative when work has to be repeated."""
_unseen: ContextVar[bool] = ContextVar("unseen", default=False)


@contextmanager
def unseen() -> Iterator[None]:
    """No bars meanwhile, in this thread: it works in the background, and the screen belongs to what is in front."""
    token = _unseen.set(True)
    try:
        yield
    finally:
        _unseen.reset(token)


@contextmanager
def bar(description: str, total: int | None, *, unit: str = "bytes") -> Iterator[Advance]:
    """A bar over `total` units (None when unknown) with rate and time left; yields what moves it on."""
    if _unseen.get() or not (sys.stderr.isatty() or _kernel_draws()):
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
    # Live bars in a notebook are rich's only with ipywidgets; without them its last state is printed, as in a file.
    console = Console(stderr=True, force_jupyter=None if find_spec("ipywidgets") else False)
    with progress.Progress(*columns, console=console, transient=total is None) as shown:
        task = shown.add_task(description, total=total)
        yield lambda amount: shown.advance(task, amount)


def size(count: float) -> str:
    """Bytes in the units people read: 1.5 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _kernel_draws() -> bool:
    """Whether this is a notebook's kernel, with what rich needs to redraw a line there."""
    return place.in_kernel() and find_spec("ipywidgets") is not None
