"""Say when a cell replaced a package that this kernel has imported, as Colab does. Runs in the kernel.

Python keeps an imported module, so the new version is used by a new kernel only, and mixing the files of both versions
can fail in odd ways. What pip and uv changed is read from the record that `packages.pip_command` keeps.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haversack.packages.pip_command import CHANGES


def install(ipython: Any, environment: Path = Path(sys.prefix)) -> None:
    """Print the notes after each cell of this kernel from now on. `environment` is the folder of its environment."""
    record = _Record(environment / CHANGES)

    def after_cell(result: Any) -> None:
        for note in notes(record.new_changes()):
            print(note)

    ipython.events.register("post_run_cell", after_cell)


def notes(changes: Iterable[PackageChange]) -> list[str]:
    """Return a note for each changed project whose old version this kernel has imported."""
    return [_note(change) for change in changes if any(map(change.is_imported, _modules(change.project)))]


@dataclass(frozen=True)
class PackageChange:
    """A project that was replaced, or removed if `new` is None."""

    project: str
    old: str
    new: str | None

    def is_imported(self, name: str) -> bool:
        """Whether the module `name` of this project was imported before the change.

        A module's own version may have fewer parts than its project's (`cv2` 4.10.0 of opencv-python 4.10.0.84).
        """
        module = sys.modules.get(name)
        if module is None or self.old == self.new:
            return False
        imported = str(getattr(module, "__version__", self.old))
        return self.old.startswith(imported) and not (self.new or "").startswith(imported)


def _note(change: PackageChange) -> str:
    if change.new is None:
        return f"haversack: {change.project} {change.old} is uninstalled, but this kernel has imported it and keeps it."
    return (
        f"haversack: You must restart the runtime to use {change.project} {change.new}: this kernel has imported "
        f"{change.old}. In a job, install it in a cell before its first import."
    )


def _modules(project: str) -> set[str]:
    """The first names of the modules that the installed project has; of a removed one its own name."""
    try:
        distribution = importlib.metadata.distribution(project)
    except importlib.metadata.PackageNotFoundError:
        return {project.replace("-", "_")}
    tops = {Path(str(file)).parts[0].partition(".")[0] for file in distribution.files or ()}
    return tops | {project.replace("-", "_")}


class _Record:
    """The environment's record of changes, read from where it ended the last time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = path.stat().st_size if path.exists() else 0

    def new_changes(self) -> list[PackageChange]:
        """Return what was replaced or removed since the last call. What is new cannot have been imported before."""
        return [change for line in self._new_lines() for change in _changes(json.loads(line))]

    def _new_lines(self) -> list[str]:
        if not self._path.exists() or self._path.stat().st_size == self._position:
            return []
        with open(self._path) as file:
            file.seek(self._position)
            lines = file.readlines()
            self._position = file.tell()
        return lines


def _changes(entry: Mapping[str, dict[str, str]]) -> Iterator[PackageChange]:
    for project, old in entry["removed"].items():
        yield PackageChange(project, old, entry["installed"].get(project))
