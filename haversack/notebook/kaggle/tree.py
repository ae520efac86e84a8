"""The folders and files below `/kaggle/input`, by path: built once from the names in the inputs' directories.

    /NAME/…                           every input, by its name: Kaggle's older form
    /datasets/OWNER/NAME/…            a data set, and
    /competitions/NAME/…              a competition: Kaggle's newer form
    /…                                the files of a single input: Kaggle's oldest form

All forms lead to the same files, whichever a notebook uses. Only one of them is listed, so that a walk finds each file
once. The tree never changes. A name that is both a file and a folder in an archive is the folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from haversack.notebook.kaggle.attachment import AttachedInput
from haversack.notebook.kaggle.inputs import InputFiles


@dataclass
class InputFolder:
    """A folder: its entries by name, a file as its size in bytes.

    Attributes:
        entries: the files and folders that a listing has.
        unlisted: those that only a path reaches.
        root_of: the position of the input whose files begin here; None for any other folder.
    """

    entries: dict[str, InputFolder | int] = field(default_factory=dict)
    unlisted: dict[str, InputFolder | int] = field(default_factory=dict)
    root_of: int | None = None

    def folder(self, name: str) -> InputFolder:
        """Return the folder `name`, made if it is missing or a file."""
        found = self.entries.get(name)
        if not isinstance(found, InputFolder):
            found = self.entries[name] = InputFolder()
        return found


@dataclass(frozen=True, slots=True)
class InputPath:
    """What is at a path of the mount.

    Attributes:
        entry: the folder, or the file's size in bytes.
        number: the position of the input that it belongs to; -1 for the folders above the inputs.
        name: the file's or folder's name in the input.
    """

    entry: InputFolder | int
    number: int
    name: str


class InputTree:
    """The tree of `inputs` with their `files`; with `newer`, listings have Kaggle's newer form.

    Thread-safe, since it does not change. Raises what `InputFiles.sizes` raises.
    """

    def __init__(self, inputs: Iterable[tuple[AttachedInput, InputFiles]], newer: bool = False) -> None:
        self._root = InputFolder()
        # The input, if there is a single one.
        self._only: InputFolder | None = None
        for number, (one, files) in enumerate(inputs):
            folder = _folder_of(files, number)
            self._root.entries[one.name] = folder
            self._add_newer(one, folder, newer)
            self._only = None if number else folder

    def _add_newer(self, one: AttachedInput, folder: InputFolder, newer: bool) -> None:
        """Make the newer path of an input lead to its folder; with `newer`, hide its older one from listings."""
        path = one.newer_path
        if not path:
            return
        entries = self._root.entries if newer else self._root.unlisted
        for name in path[:-1]:
            next_folder = entries.get(name)
            if not isinstance(next_folder, InputFolder):
                next_folder = entries[name] = InputFolder()
            entries = next_folder.entries
        entries[path[-1]] = folder
        if newer:
            self._root.unlisted[one.name] = self._root.entries.pop(one.name)

    def find(self, path: str) -> InputPath | None:
        """Return what is at `path`, from `/`; None if there is nothing."""
        parts = path.strip("/").split("/") if path != "/" else []
        found = _at(self._root, -1, parts)
        return found if found is not None or self._only is None else _at(self._only, 0, parts)


def _at(folder: InputFolder, number: int, parts: Sequence[str]) -> InputPath | None:
    """Return what the names `parts` lead to from `folder`, which is of the input `number`; None if there is nothing."""
    entry: InputFolder | int = folder
    start = 0
    for position, name in enumerate(parts, 1):
        if not isinstance(entry, InputFolder):
            return None
        found = entry.entries.get(name, entry.unlisted.get(name))
        if found is None:
            return None
        entry = found
        if isinstance(entry, InputFolder) and entry.root_of is not None:
            number, start = entry.root_of, position
    return InputPath(entry, number, "/".join(parts[start:]))


def _folder_of(files: InputFiles, number: int) -> InputFolder:
    """Return the folder of one input, at the position `number`."""
    root = InputFolder(root_of=number)
    folders = {"": root}
    for name, size in files.sizes():
        above, _, base = name.rpartition("/")
        folder = folders.get(above)
        if folder is None:
            folder = _made(root, folders, above)
        if not isinstance(folder.entries.get(base), InputFolder):
            folder.entries[base] = size
    return root


def _made(root: InputFolder, folders: dict[str, InputFolder], path: str) -> InputFolder:
    """Return the folder at `path` below `root`, made with those above it, and remember it in `folders`."""
    folder = root
    for name in path.split("/"):
        folder = folder.folder(name)
    folders[path] = folder
    return folder
