"""The picture of what `data.py` measured: until the files can be read, the disk, images per second, and the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from record import Record

OURS, OTHERS, AFTER, LIMIT = "#2563a8", "#a9b0b8", "#d9772b", "#6b6b6b"
IMAGES = "20,000 images"
LATER = "haversack, decoded before"


def drawn(record: Record, target: Path) -> Path:
    """Write the picture to `target`, a PNG; returns it."""
    figure = Figure(figsize=(10, 6.2), layout="constrained")
    (download, disk), (rate, cpu) = figure.subplots(2, 2)
    tools = record.get("download", IMAGES)["tools"]
    of_download(download, tools)
    used = {name: tool["disk"] for name, tool in tools.items() if name != "bare download"}
    used["haversack, an epoch"] = record.get("disk", IMAGES)["disk"]
    bars(disk, used, "disk at most, in archives' sizes")
    disk.axvline(1, color=LIMIT, linestyle=":", linewidth=1.2)
    loaders = {name: one for name, one in record.get("epochs", IMAGES)["loaders"].items() if name != LATER}
    bars(rate, {name: one["images/s"] for name, one in loaders.items()}, "images per second, first epoch")
    rate.axvline(loaders["decoding alone"]["images/s"], color=LIMIT, linestyle=":", linewidth=1.2)
    bars(cpu, {name: one["CPU / limit"] for name, one in loaders.items()}, "CPU per image ÷ decoding alone")
    cpu.axvline(1, color=LIMIT, linestyle=":", linewidth=1.2)
    figure.savefig(target, dpi=120)
    return target


def of_download(axes: Axes, tools: dict[str, dict[str, Any]]) -> None:
    bars(axes, {name: tool["seconds"] for name, tool in tools.items()}, "seconds until every file can be read")
    for place, tool in enumerate(tools.values()):
        axes.barh(place, tool["after"], left=tool["seconds"] - tool["after"], color=AFTER, height=0.7)
    axes.barh(0, 0, color=AFTER, label="after the last byte")
    axes.legend(frameon=False, fontsize=8, loc="upper right")


def bars(axes: Axes, values: dict[str, float], what: str) -> None:
    """A bar and a figure for each, the first on top."""
    colors = [OURS if name.startswith("haversack") else OTHERS for name in values]
    shown = axes.barh(range(len(values)), list(values.values()), color=colors, height=0.7)
    texts = [f"{value:,.0f}" if value >= 100 else f"{value:.2f}" for value in values.values()]
    axes.bar_label(shown, texts, padding=3, fontsize=8)
    axes.set_yticks(range(len(values)), list(values), fontsize=8.5)
    axes.invert_yaxis()
    axes.set_xlim(0, max(values.values()) * 1.15)
    axes.set_title(what, fontsize=10, loc="left")
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
