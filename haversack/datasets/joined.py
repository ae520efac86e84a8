"""Several archives as one data set: the shards that `archive.writer` makes, or any archives with files of other names.

Names are those in the archives, and each archive is read where it lies. Of shards that say how many they are, all must
be there.
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
    """Raise `NotFound` where `names` are shards and one of them is missing."""
    there: dict[tuple[str, str], set[int]] = {}
    for name in names:
        if found := _SHARD.fullmatch(name):
            there.setdefault((found[1], found[3]), set()).add(int(found[2]))
    for (stem, total), numbers in there.items():
        missing = [number for number in range(int(total)) if number not in numbers]
        if missing:
            raise NotFound(
                f"Of the {int(total)} archives of {source}, {len(missing)} are missing.",
                f"The first is {stem}-{missing[0]:05}-of-{total}.zip: put them there, or make them anew.",
                status=404,
            )


@dataclass(frozen=True, slots=True)
class _Placed:
    """A file, and the number of the part that it is in."""

    name: str
    size: int
    part: int


class Joined:
    """The files of all `parts`, each an archive's contents by its name; `source` is what the user is told.

    Raises `InputError` where two of them have a file of one name.
    """

    def __init__(self, parts: Mapping[str, Contents], source: str) -> None:
        self._parts = list(parts.values())
        self._source = source
        self._files: dict[str, _Placed] = {}
        for number, (archive, part) in enumerate(parts.items()):
            for name, size in sizes_of(part.files):
                if name in self._files:
                    other = list(parts)[self._files[name].part]
                    raise InputError(f"{name} is both in {other} and in {archive}.", "Read them one by one.")
                self._files[name] = _Placed(name, size, number)

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
        return self._of(name).read(name)

    def open(self, name: str) -> BinaryIO:
        return self._of(name).open(name)

    def path(self, name: str) -> Path:
        return self._of(name).path(name)

    def write(self, name: str, target: Path) -> None:
        self._of(name).write(name, target)

    def is_at(self, name: str, path: Path) -> bool:
        return self._of(name).is_at(name, path)

    def want(self, names: Iterable[str]) -> None:
        self._each(names, lambda part, its: part.want(its))

    def fetch(self, names: Iterable[str]) -> None:
        self._each(names, lambda part, its: part.fetch(its))

    def complete(self) -> None:
        for part in self._parts:
            part.complete()

    def save(self, target: Path) -> None:
        save_packed(self, target, self._source)

    def info(self) -> dict[str, object]:
        told = [part.info() for part in self._parts]
        sums = {key: sum(int(str(one[key])) for one in told) for key in ("archive_size", "archive_here")}
        return {"archives": len(told), **sums}

    def close(self) -> None:
        for part in self._parts:
            part.close()

    def _of(self, name: str) -> Contents:
        return self._parts[self._files[name].part]

    def _each(self, names: Iterable[str], use: Callable[[Contents, Sequence[str]], None]) -> None:
        """Use every part that has some of the names, with those, in their order."""
        its: dict[int, list[str]] = {}
        for name in names:
            its.setdefault(self._files[name].part, []).append(name)
        for number, of_part in its.items():
            use(self._parts[number], of_part)
