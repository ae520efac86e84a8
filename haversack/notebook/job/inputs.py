"""What a job has of Kaggle: the inputs that are attached, the notebook's dialect, and the folder `/kaggle`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from haversack import place, progress
from haversack.notebook.kaggle import proposal
from haversack.notebook.kaggle.attachment import AttachedInput
from haversack.notebook.kaggle.dialect import Dialect, dialect_of
from haversack.notebook.kaggle.folder import KaggleFolder
from haversack.notebook.record.store import JobRecord

_MAX_SHOWN_OUTPUTS = 10


def attached(given: Sequence[str], hub: str | None) -> list[AttachedInput]:
    """Return the records of the inputs `given` as `--input`. Raises what `kaggle.inputs.attach` raises."""
    if not given:
        return []  # the clients of data sets take a third of a second to import
    from haversack.notebook.kaggle.inputs import attach

    return attach(given, hub)


def dialect(notebook: Any, inputs: Sequence[AttachedInput]) -> Dialect:
    """Return the dialect of a notebook. On Kaggle itself, a job without inputs sees the machine's own `/kaggle`."""
    if place.here() == "kaggle" and not inputs:
        return Dialect()
    return dialect_of(notebook, bool(inputs))


def proposed(notebook: Any, record: JobRecord) -> str:
    """Return a sentence about inputs that the notebook reads and that are not attached; "" if there are none."""
    if not record.dialect.has_kaggle:
        return ""

    def lookup(name: str) -> list[str]:
        from haversack.notebook.kaggle.inputs import sources_named

        return sources_named(name, record.options.hub)

    missing = proposal.missing_inputs(notebook, [one.name for one in record.inputs])
    return proposal.sentence(notebook, missing, lookup)


def folder_of(job: Path, record: JobRecord, notify: Callable[[str], None]) -> KaggleFolder | None:
    """Return the `/kaggle` of the job in the folder `job`, made and without its inputs; None if the job has none.

    `notify` gets sentences for the user. Raises `OSError`.
    """
    if not record.dialect.has_kaggle:
        return None
    folder = KaggleFolder(job, record.inputs, record.options.hub, record.dialect.names_new_paths, notify)
    folder.make()
    return folder


def shown_outputs(outputs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each of the first outputs, with its size, and one for the number of the others."""
    shown = [f"{one['path']}, {progress.size(one['size'])}" for one in outputs[:_MAX_SHOWN_OUTPUTS]]
    more = len(outputs) - len(shown)
    return [*shown, f"and {more} more files in /kaggle/working"] if more else shown
