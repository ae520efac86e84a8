"""Several archives as one data set: the shards of one set, or any archives without duplicate file names.

A set of shards is what `archive.writer` makes of a folder: `NAME-00000-of-00003.zip` and two more, all of which must be
there. Files keep the names that they have in their archives. Each archive is read in place.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from haversack.datasets.contents import Contents, DatasetFile, sizes_of
from haversack.datasets.subset import save_packed
from haversack.errors import InputError, NotFound

_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.zip")


def check_complete(names: Iterable[str], source: str) -> None:
    """Raise `NotFound` if `names`, the file names of archives, include some shards of a set and not all of them.

    A shard is named NAME-00000-of-00003.zip. `source` names the data set in the message.
    """
    found_numbers: dict[tuple[str, str], set[int]] = {}
    for name in names:
        if found := _SHARD.fullmatch(name):
            found_numbers.setdefault((found[1], found[3]), set()).add(int(found[2]))
    for (stem, total), numbers in found_numbers.items():
        missing = [number for number in range(int(total)) if number not in numbers]
        if missing:
            raise NotFound(
                f"Of the {int(total)} archives of {source}, {len(missing)} are missing.",
                f"The first is {stem}-{missing[0]:05}-of-{total}.zip: add them, or create the shards again.",
                status=404,
            )


@dataclass(frozen=True, slots=True)
class _JoinedFile:
    """A file: its name, its size in bytes, and `part`, the number of the archive that has it, from 0."""

    name: str
    size: int
    part: int


class Joined:
    """`Contents` of all archives in `parts`, which maps an archive's name, for messages, to its contents.

    The files are in the order of `parts`. `close` closes all parts. `source` names the data set in messages. Raises
    `InputError` if two archives have a file of the same name.
    """

    def __init__(self, parts: Mapping[str, Contents], source: str) -> None:
        self._parts = list(parts.values())
        self._source = source
        self._files: dict[str, _JoinedFile] = {}
        for number, (archive, part) in enumerate(parts.items()):
            for name, size in sizes_of(part.files):
                if name in self._files:
                    other = list(parts)[self._files[name].part]
                    raise InputError(
                        f"{name} is both in {other} and in {archive}.", "Open each archive as its own data set."
                    )
                self._files[name] = _JoinedFile(name, size, number)

    @property
    def files(self) -> Mapping[str, DatasetFile]:
        return self._files

    @cached_property
    def size(self) -> int:
        return sum(part.size for part in self._parts)

    @property
    def content(self) -> str:
        return hashlib.sha256(" ".join(part.content for part in self._parts).encode()).hexdigest()[:16]

    def read(self, name: str) -> bytes:
        return self._part_of(name).read(name)

    def open(self, name: str) -> BinaryIO:
        return self._part_of(name).open(name)

    def path(self, name: str) -> Path:
        return self._part_of(name).path(name)

    def write(self, name: str, target: Path) -> None:
        self._part_of(name).write(name, target)

    def matches(self, name: str, path: Path) -> bool:
        return self._part_of(name).matches(name, path)

    def prefetch(self, names: Iterable[str]) -> None:
        self._for_each_part(names, lambda part, own: part.prefetch(own))

    def fetch(self, names: Iterable[str]) -> None:
        self._for_each_part(names, lambda part, own: part.fetch(own))

    def complete(self) -> None:
        for part in self._parts:
            part.complete()

    def save(self, target: Path) -> None:
        save_packed(self, target, self._source)

    def info(self) -> dict[str, object]:
        infos = [part.info() for part in self._parts]
        sums = {key: sum(int(str(info[key])) for info in infos) for key in ("archive_size", "archive_here")}
        return {"archives": len(infos), **sums}

    def close(self) -> None:
        for part in self._parts:
            part.close()

    def _part_of(self, name: str) -> Contents:
        return self._parts[self._files[name].part]

    def _for_each_part(self, names: Iterable[str], call: Callable[[Contents, Sequence[str]], None]) -> None:
        """Group `names` by archive, in order, and call `call(contents, names)` for each archive that has some."""
        grouped: dict[int, list[str]] = {}
        for name in names:
            grouped.setdefault(self._files[name].part, []).append(name)
        for number, own in grouped.items():
            call(self._parts[number], own)
