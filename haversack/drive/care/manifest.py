"""What a spread does to a folder, written down before it is done: the rule, the subfolders, and every file that moves.

A manifest is compressed JSON, kept on this machine and beside the files on the drive, so that any machine can go on or
undo. Read back, it is data and nothing more: whoever uses it compares each file with the drive first.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

from haversack.drive.remote.calls import File
from haversack.errors import InputError

_FORMAT = 1
_LONGEST_HINT = 40


@dataclass(frozen=True)
class Rule:
    """Which subfolder a name belongs to.

    By `hash`: the MD5 of the name in UTF-8, as a number, modulo the number of `parts`; any program can compute it. By
    `name`: ranges of names in the order of their code points; range i begins with `starts[i]`.
    """

    by: str
    parts: int
    starts: tuple[str, ...] = ()

    @classmethod
    def of(cls, by: str, names: Sequence[str], size: int) -> Rule:
        """The rule that gives subfolders of about `size` (by hash) or at most so many different names (by name)."""
        parts = -(-len(names) // size)
        if by == "hash":
            return cls(by, parts)
        starts = tuple(sorted(set(names))[::size])
        return cls(by, len(starts), starts)

    def place(self, name: str) -> str:
        """The name of the subfolder for files of that name."""
        if self.by == "hash":
            number = int(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest(), 16) % self.parts
            return self._numbered(number)
        number = max(0, bisect_right(self.starts, name) - 1)
        return f"{self._numbered(number)} from {self.starts[number][:_LONGEST_HINT].strip()}"

    def _numbered(self, number: int) -> str:
        return f"{number:0{len(str(self.parts - 1))}}"

    def __str__(self) -> str:
        if self.by == "hash":
            width = len(str(self.parts - 1))
            return f"int(hashlib.md5(name.encode()).hexdigest(), 16) % {self.parts}, written with {width} digits"
        return "sorted names, a range to each subfolder"


@dataclass(frozen=True, slots=True)
class SpreadEntry:
    """A file as it was before it moved. `size` in bytes; `md5` is "" without bytes."""

    id: str
    name: str
    size: int
    md5: str
    version: int

    @classmethod
    def of(cls, file: File) -> SpreadEntry:
        return cls(file.id, file.name, file.size, file.md5, file.version)

    def is_like(self, file: File) -> bool:
        """Whether the file is still the one that was written down.

        A drive's version moves with every change, also those that nobody sees; where it did, name and bytes decide.
        """
        return file.id == self.id and (
            file.version == self.version or (file.name, file.size, file.md5) == (self.name, self.size, self.md5)
        )


@dataclass(frozen=True)
class SpreadManifest:
    """One folder's spread. `own` is the manifest's file on the drive, `subfolders` the ids by name."""

    folder: str
    own: str
    rule: Rule
    subfolders: dict[str, str]
    files: dict[str, SpreadEntry]

    def target(self, entry: SpreadEntry) -> str:
        """The id of the subfolder that a file belongs to."""
        return self.subfolders[self.rule.place(entry.name)]

    def encoded(self) -> bytes:
        """The same manifest gives the same bytes."""
        whole = {
            "haversack spread": _FORMAT,
            "folder": self.folder,
            "own": self.own,
            "rule": asdict(self.rule),
            "subfolders": self.subfolders,
            "files": [[file.id, file.name, file.size, file.md5, file.version] for file in self.files.values()],
        }
        return gzip.compress(json.dumps(whole, ensure_ascii=False).encode(), compresslevel=6, mtime=0)

    @classmethod
    def decoded(cls, content: bytes) -> SpreadManifest:
        """Raises `InputError` for bytes that are no manifest, or one of a later version."""
        try:
            whole = json.loads(gzip.decompress(content))
            if whole["haversack spread"] != _FORMAT:
                raise InputError("The folder was spread by another version of haversack.", "Use that version.")
            rule = Rule(str(whole["rule"]["by"]), int(whole["rule"]["parts"]), tuple(map(str, whole["rule"]["starts"])))
            entries = [
                SpreadEntry(str(row[0]), str(row[1]), int(row[2]), str(row[3]), int(row[4])) for row in whole["files"]
            ]
            subfolders = {str(name): str(file_id) for name, file_id in whole["subfolders"].items()}
            made = cls(str(whole["folder"]), str(whole["own"]), rule, subfolders, {one.id: one for one in entries})
            made._check()
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError("The folder's spread manifest is damaged.", "Use another machine's copy of it.") from error
        return made

    def _check(self) -> None:
        rule = self.rule
        fits = rule.by == "hash" or (rule.by == "name" and len(rule.starts) == rule.parts)
        if not fits or rule.parts < 1 or any(before >= after for before, after in pairwise(rule.starts)):
            raise ValueError("the rule does not fit together")
        if any(rule.place(entry.name) not in self.subfolders for entry in self.files.values()):
            raise ValueError("a file has no subfolder")
