"""The manifest of a spread, which moves the files of a crowded folder into subfolders (`spread`): its plan.

It has the rule, the subfolders, and every file that moves, and is written before any file moves. A manifest is
gzip-compressed JSON. One copy is on this machine and one in the folder on the drive, so any machine can resume or undo
the spread. The spread does not trust a manifest: it compares each file with the drive before it moves it.
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
    """How a file's name determines its subfolder.

    Attributes:
        by: "hash": the subfolder's number is the MD5 of the name in UTF-8, as a number, modulo `parts`, so that any
            program can compute it. "name": names in code point order are divided into `parts` ranges.
        parts: The number of subfolders.
        starts: The first name of each range, in order; empty for "hash".
    """

    by: str
    parts: int
    starts: tuple[str, ...] = ()

    @classmethod
    def of(cls, by: str, names: Sequence[str], size: int) -> Rule:
        """Return a rule whose subfolders get about `size` files each (hash), or at most `size` different names (name).

        `names` are those of the files to spread; it must not be empty.
        """
        parts = -(-len(names) // size)
        if by == "hash":
            return cls(by, parts)
        starts = tuple(sorted(set(names))[::size])
        return cls(by, len(starts), starts)

    def subfolder(self, name: str) -> str:
        """Return the name of the subfolder for a file called `name`, which need not be one of the original files."""
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
        return "sorted names, one range per subfolder"


@dataclass(frozen=True, slots=True)
class SpreadEntry:
    """A file that moves, as it was before: its id, name, size in bytes, MD5, and the drive's version number of it.

    `md5` is in hex, "" for a file without bytes.
    """

    id: str
    name: str
    size: int
    md5: str
    version: int

    @classmethod
    def of(cls, file: File) -> SpreadEntry:
        return cls(file.id, file.name, file.size, file.md5, file.version)

    def matches(self, file: File) -> bool:
        """Whether `file` is unchanged: the same id, and the same version or the same name, size and MD5.

        Drive bumps a file's version for invisible changes too, so a new version alone does not count as a change.
        """
        return file.id == self.id and (
            file.version == self.version or (file.name, file.size, file.md5) == (self.name, self.size, self.md5)
        )


@dataclass(frozen=True)
class SpreadManifest:
    """The plan of the spread of one folder.

    | field | meaning |
    |---|---|
    | `folder` | the id of the folder that is spread |
    | `file_id` | the id of the manifest's own file on the drive |
    | `rule` | which file goes to which subfolder |
    | `subfolders` | subfolder name → id |
    | `files` | file id → the file as it was before it moved |
    """

    folder: str
    file_id: str
    rule: Rule
    subfolders: dict[str, str]
    files: dict[str, SpreadEntry]

    def target(self, entry: SpreadEntry) -> str:
        """Return the id of the subfolder that the rule gives to a file of the manifest."""
        return self.subfolders[self.rule.subfolder(entry.name)]

    def encoded(self) -> bytes:
        """Return the manifest as gzip-compressed JSON; equal manifests give equal bytes."""
        values = {
            "haversack spread": _FORMAT,
            "folder": self.folder,
            "own": self.file_id,
            "rule": asdict(self.rule),
            "subfolders": self.subfolders,
            "files": [[file.id, file.name, file.size, file.md5, file.version] for file in self.files.values()],
        }
        return gzip.compress(json.dumps(values, ensure_ascii=False).encode(), compresslevel=6, mtime=0)

    @classmethod
    def decoded(cls, content: bytes) -> SpreadManifest:
        """Return the manifest in `content`. Raises `InputError` if it is damaged or of another format."""
        try:
            values = json.loads(gzip.decompress(content))
            if values["haversack spread"] != _FORMAT:
                raise InputError("The folder was spread by another version of haversack.", "Use that version.")
            about = values["rule"]
            rule = Rule(str(about["by"]), int(about["parts"]), tuple(map(str, about["starts"])))
            entries = [
                SpreadEntry(str(row[0]), str(row[1]), int(row[2]), str(row[3]), int(row[4])) for row in values["files"]
            ]
            subfolders = {str(name): str(file_id) for name, file_id in values["subfolders"].items()}
            manifest = cls(
                str(values["folder"]), str(values["own"]), rule, subfolders, {entry.id: entry for entry in entries}
            )
            manifest._check()
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError("The folder's spread manifest is damaged.", "Use another machine's copy of it.") from error
        return manifest

    def _check(self) -> None:
        """Raise `ValueError` unless the rule is consistent and every file has a subfolder."""
        rule = self.rule
        fits = rule.by == "hash" or (rule.by == "name" and len(rule.starts) == rule.parts)
        if not fits or rule.parts < 1 or any(before >= after for before, after in pairwise(rule.starts)):
            raise ValueError("the rule is inconsistent")
        if any(rule.subfolder(entry.name) not in self.subfolders for entry in self.files.values()):
            raise ValueError("a file has no subfolder")
