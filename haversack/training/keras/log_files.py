"""The files that callbacks append to while a model trains, cut back to where a checkpoint saw them.

What a session wrote after its last checkpoint is written again by the next one; without this, a CSVLogger's rows and
TensorBoard's points would be there twice. Before the callbacks open their files, each is cut to the length it had. A
CSV file is small and travels inside the checkpoint, so that it is whole on a new machine too; of TensorBoard's event
files only the length is kept, and those begun after the checkpoint are renamed, never removed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

_CARRIED = 16 << 20
_EVENTS = "*.tfevents.*"
_SET_ASIDE = ".repeated."


def take(callbacks: list[Any]) -> list[dict[str, Any]]:
    """How long the log files of `callbacks` are now, as a tree."""
    taken = []
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.CSVLogger):
            taken.append(_take_csv(Path(callback.filename)))
        elif isinstance(callback, keras.callbacks.TensorBoard):
            for writer in callback._writers.values():
                writer.flush()
            folder = Path(callback.log_dir)
            sizes = {str(file.relative_to(folder)): file.stat().st_size for file in sorted(folder.rglob(_EVENTS))}
            taken.append({"folder": str(folder), "sizes": sizes})
    return taken


@contextmanager
def continued(callbacks: list[Any], taken: list[dict[str, Any]], anew: bool = False) -> Iterator[None]:
    """Cut the files back to `taken`; callbacks that open theirs inside the block go on with them.

    With `anew` the run begins once more, since it was cut off before its first checkpoint: `taken` is what was there
    before it, and a CSVLogger that overwrites its file does so.
    """
    csv = [one for one in taken if "length" in one]
    events = [one for one in taken if "sizes" in one]
    given: list[tuple[Any, bool]] = []
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.CSVLogger) and csv:
            before = csv.pop(0)
            if anew and not callback.append:
                continue
            _cut_csv(Path(callback.filename), before)
            given.append((callback, callback.append))
            callback.append = True
        elif isinstance(callback, keras.callbacks.TensorBoard) and events:
            _cut_events(Path(callback.log_dir), events.pop(0)["sizes"])
    try:
        yield
    finally:
        for callback, append in given:
            callback.append = append


def close(callbacks: list[Any]) -> None:
    """Close the files of callbacks that were not told that the training ended, so that nothing is added to them."""
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.CSVLogger) and callback.csv_file is not None:
            callback.csv_file.close()
        elif isinstance(callback, keras.callbacks.TensorBoard):
            for writer in callback._writers.values():
                writer.close()


def lengths(callbacks: list[Any]) -> list[dict[str, Any]]:
    """What `take` returns, without the contents: JSON."""
    return [{key: value for key, value in one.items() if key != "content"} for one in take(callbacks)]


def _take_csv(file: Path) -> dict[str, Any]:
    length = file.stat().st_size if file.exists() else 0
    return {"length": length, "content": file.read_bytes() if 0 < length <= _CARRIED else b""}


def _cut_csv(file: Path, taken: dict[str, Any]) -> None:
    if file.exists() and file.stat().st_size >= taken["length"]:
        os.truncate(file, taken["length"])
    elif taken.get("content"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(taken["content"])


def _cut_events(folder: Path, sizes: dict[str, int]) -> None:
    for file in folder.rglob(_EVENTS):
        size = sizes.get(str(file.relative_to(folder)))
        if size is None:
            file.rename(file.with_name(file.name.replace(".tfevents.", _SET_ASIDE)))
        elif file.stat().st_size > size:
            os.truncate(file, size)
