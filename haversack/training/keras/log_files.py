"""The log files of callbacks (CSVLogger, TensorBoard), truncated to their lengths at a checkpoint.

A session that resumes repeats the steps after the last checkpoint, and its callbacks log them again. So that no CSV
row and no TensorBoard point appears twice, each file is truncated to its length at the checkpoint before the callbacks
open it. A CSV file of up to 16 MiB is saved in the checkpoint, so that it is complete on a new machine. For
TensorBoard's event files only the lengths are saved; files newer than the checkpoint are renamed, never deleted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

_LARGEST_SAVED = 16 << 20
_EVENTS = "*.tfevents.*"
_REPEATED = ".repeated."
"""Replaces `.tfevents.` in the name of an event file, which hides it from TensorBoard."""


def capture(callbacks: list[Any]) -> list[dict[str, Any]]:
    """Return the current lengths of the log files of `callbacks`, as a tree for a checkpoint.

    It has a dict for each CSVLogger, with the content of a file of up to 16 MiB, and for each TensorBoard, whose
    writers are flushed first.
    """
    captured = []
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.CSVLogger):
            captured.append(_capture_csv(Path(callback.filename)))
        elif isinstance(callback, keras.callbacks.TensorBoard):
            for writer in callback._writers.values():
                writer.flush()
            folder = Path(callback.log_dir)
            sizes = {str(file.relative_to(folder)): file.stat().st_size for file in sorted(folder.rglob(_EVENTS))}
            captured.append({"folder": str(folder), "sizes": sizes})
    return captured


def lengths(callbacks: list[Any]) -> list[dict[str, Any]]:
    """Return the current lengths of the log files of `callbacks` as JSON: `capture` without contents."""
    return [{key: value for key, value in one.items() if key != "content"} for one in capture(callbacks)]


@contextmanager
def truncated(callbacks: list[Any], captured: list[dict[str, Any]], first_start: bool = False) -> Iterator[None]:
    """Truncate the log files to the lengths in `captured`; CSVLoggers that begin inside the block append to theirs.

    `captured` is a result of `capture` or `lengths`, paired with `callbacks` by kind, in order. A CSV file that is
    missing or too short is written from the captured content, if there is one. An event file that `captured` does not
    have is renamed, so that TensorBoard ignores it.

    `first_start` is whether the run starts from its first step, perhaps again because a session ended before its first
    checkpoint. Then `captured` has the lengths before the run, and a CSVLogger with `append=False` overwrites its file.
    """
    csv = [one for one in captured if "length" in one]
    events = [one for one in captured if "sizes" in one]
    append_settings: list[tuple[Any, bool]] = []
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.CSVLogger) and csv:
            before = csv.pop(0)
            if first_start and not callback.append:
                continue
            _truncate_csv(Path(callback.filename), before)
            append_settings.append((callback, callback.append))
            callback.append = True
        elif isinstance(callback, keras.callbacks.TensorBoard) and events:
            _truncate_events(Path(callback.log_dir), events.pop(0)["sizes"])
    try:
        yield
    finally:
        for callback, append in append_settings:
            callback.append = append


def close(callbacks: list[Any]) -> None:
    """Close the log files of `callbacks` after `model.fit` raised: Keras does not call `on_train_end` then."""
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.CSVLogger) and callback.csv_file is not None:
            callback.csv_file.close()
        elif isinstance(callback, keras.callbacks.TensorBoard):
            for writer in callback._writers.values():
                writer.close()


def _capture_csv(file: Path) -> dict[str, Any]:
    length = file.stat().st_size if file.exists() else 0
    return {"length": length, "content": file.read_bytes() if 0 < length <= _LARGEST_SAVED else b""}


def _truncate_csv(file: Path, captured: dict[str, Any]) -> None:
    """Truncate `file`; if it is missing or too short, write the captured content instead."""
    if file.exists() and file.stat().st_size >= captured["length"]:
        os.truncate(file, captured["length"])
    elif captured.get("content"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(captured["content"])


def _truncate_events(folder: Path, sizes: dict[str, int]) -> None:
    """Truncate the event files in `folder` to `sizes` (bytes by relative path), and rename those without a size."""
    for file in folder.rglob(_EVENTS):
        size = sizes.get(str(file.relative_to(folder)))
        if size is None:
            file.rename(file.with_name(file.name.replace(".tfevents.", _REPEATED)))
        elif file.stat().st_size > size:
            os.truncate(file, size)
