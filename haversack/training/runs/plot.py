"""The picture of a run: its loss over the epochs, where its sessions were killed, and what was trained twice.

An epoch's results stand where it ended, so epoch 3 is at 3, and a session that was killed in the middle of it, between
2 and 3. matplotlib draws, without a display and without touching what a notebook has chosen for its own figures.
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
    """The picture of `run`: a notebook shows it, `save` writes it, and `figure` is matplotlib's, to be changed."""

    run: Run

    @property
    def figure(self) -> Figure:
        """A new figure. Raises `ExtraMissing` without matplotlib."""
        return _drawn(self.run)

    def save(self, path: str | Path) -> Path:
        """Write it to `path`, whose ending names the format (`.png`, `.svg`, `.pdf`); returns `path`.

        Raises `InputError` for another ending, or where it cannot be written.
        """
        path = Path(path)
        form, figure = path.suffix.removeprefix(".").lower(), self.figure
        if form not in figure.canvas.get_supported_filetypes():
            raise InputError(f"{path.name} names no kind of picture.", "End it with .png, .svg or .pdf.")
        drawn = io.BytesIO()
        figure.savefig(drawn, format=form, dpi=_DPI)
        try:
            disk.write(path, drawn.getvalue(), durable=False)
        except OSError as error:
            raise InputError(
                f"{path} cannot be written: {error.strerror}.", "Name a file in a folder of yours."
            ) from None
        return path

    @property
    def png(self) -> bytes:
        """The picture as a notebook shows it."""
        shown = io.BytesIO()
        self.figure.savefig(shown, format="png", dpi=_DPI / 1.5)
        return shown.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png


def _drawn(run: Run) -> Figure:
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
        _mark(axes, session, following, run.steps)
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


def _mark(axes: Any, session: RunSession, following: RunSession, steps: int | None) -> None:
    """A line where `session` ended early, and the stretch that `following` trained again."""
    resumed = following.resumed or (0, 0)
    ended = session.reached or resumed
    killed = session.outcome == "killed"
    color = _RED if killed else _GRAY
    place, again = _along(ended, steps), _along(resumed, steps)
    axes.axvline(place, color=color, linestyle=":", linewidth=1.5, label=session.outcome)
    if again < place:
        axes.axvspan(again, place, color=color, alpha=0.12, linewidth=0, label="trained again")
    said = f"{session.outcome} at {in_words(ended)}" if session.reached else f"{session.outcome}, went on"
    axes.annotate(
        said,
        (place, 1),
        xycoords=("data", "axes fraction"),
        xytext=(4, -4),
        textcoords="offset points",
        va="top",
        rotation=90,
        fontsize=8,
        color=color,
    )


def _along(position: tuple[int, int], steps: int | None) -> float:
    """Where a position stands on the axis of epochs."""
    epoch, step = position
    return epoch + (step / steps if steps else 0.5 if step else 0.0)
