"""The plot of a run: its loss over the epochs, the ends of all sessions but the last, and what was trained twice.

The results of an epoch are drawn at its end: those of epoch 3 at 3. A session that was killed in the middle of epoch 3
is marked between 2 and 3. matplotlib draws without a display, and without a change to a notebook's figure settings.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haversack import disk
from haversack.errors import ExtraMissing, InputError
from haversack.training.runs.report import Run, RunSession, in_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 144
_BLUE, _ORANGE, _RED, _GRAY = "#2563a8", "#d9772b", "#c62828", "#6b6b6b"
_SERIES = (("loss", "o-", _BLUE, "training"), ("val_loss", "s--", _ORANGE, "validation"))


@dataclass(frozen=True)
class Plot:
    """The plot of `run`, drawn with matplotlib when a notebook displays it, and by `save`, `png` and `figure`."""

    run: Run

    @property
    def figure(self) -> Figure:
        """A new matplotlib figure, which the caller may change. Raises `ExtraMissing` without matplotlib."""
        return _draw(self.run)

    def save(self, path: str | Path) -> Path:
        """Write the plot to `path` by atomic replace, and return `path` as a `Path`.

        The suffix decides the format: `.png`, `.svg`, `.pdf` or another that matplotlib writes. Raises `InputError`
        for an unknown suffix and if the file cannot be written, and `ExtraMissing` without matplotlib.
        """
        path = Path(path)
        image_format, figure = path.suffix.removeprefix(".").lower(), self.figure
        if image_format not in figure.canvas.get_supported_filetypes():
            raise InputError(
                f"{path.name} has no suffix of an image format.", "Use a name that ends in .png, .svg or .pdf."
            )
        content = io.BytesIO()
        figure.savefig(content, format=image_format, dpi=_DPI)
        try:
            disk.write(path, content.getvalue(), durable=False)
        except OSError as error:
            raise InputError(
                f"{path} cannot be written: {error.strerror}.", "Choose a file in a folder that you may write to."
            ) from None
        return path

    @property
    def png(self) -> bytes:
        """The plot as a PNG file, in the size for a notebook. Raises `ExtraMissing` without matplotlib."""
        content = io.BytesIO()
        self.figure.savefig(content, format="png", dpi=_DPI / 1.5)
        return content.getvalue()

    def _repr_png_(self) -> bytes:
        """IPython's hook for display."""
        return self.png


def _draw(run: Run) -> Figure:
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise ExtraMissing("Plots need matplotlib.", 'Install it with pip install "haversack[train]".') from error
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel="loss")
    count = len(run.sessions)
    axes.set_title(f"{run.name}: {count} session{'' if count == 1 else 's'}", fontsize=11)
    for metric, style, color, label in _SERIES:
        points = [(epoch.number + 1, epoch.logs[metric]) for epoch in run.epochs if metric in epoch.logs]
        if points:
            axes.plot(*zip(*points, strict=True), style, color=color, label=label, markersize=4, linewidth=1.5)
    for session, following in pairwise(run.sessions):
        _mark_end(axes, session, following, run.steps)
    axes.set_xlim(left=0)
    if all(epoch.logs.get(metric, 0.0) >= 0 for epoch in run.epochs for metric, *_ in _SERIES):
        axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    labelled = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    if labelled:
        axes.legend(labelled.values(), labelled.keys(), frameon=False)
    return figure


def _mark_end(axes: Any, session: RunSession, following: RunSession, steps: int | None) -> None:
    """Draw a line where `session` ended, and a band over the steps that `following` repeated."""
    resumed = following.resumed or (0, 0)
    ended = session.reached or resumed
    color = _RED if session.outcome == "killed" else _GRAY
    end_x, resumed_x = _epoch_axis(ended, steps), _epoch_axis(resumed, steps)
    axes.axvline(end_x, color=color, linestyle=":", linewidth=1.5, label=session.outcome)
    if resumed_x < end_x:
        axes.axvspan(resumed_x, end_x, color=color, alpha=0.12, linewidth=0, label="trained again")
    text = f"{session.outcome} at {in_words(ended)}" if session.reached else f"{session.outcome}, then resumed"
    axes.annotate(
        text,
        (end_x, 1),
        xycoords=("data", "axes fraction"),
        xytext=(4, -4),
        textcoords="offset points",
        va="top",
        rotation=90,
        fontsize=8,
        color=color,
    )


def _epoch_axis(position: tuple[int, int], steps: int | None) -> float:
    """The coordinate of (epoch, step) on the axis of epochs.

    If `steps`, the number of steps in an epoch, is unknown, every step but the first counts as half an epoch.
    """
    epoch, step = position
    return epoch + (step / steps if steps else 0.5 if step else 0.0)
