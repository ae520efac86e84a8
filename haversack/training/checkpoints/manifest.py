"""The manifest of a link: a JSON record that carries a hash of itself.

A run's chain consists of links, and each link is a checkpoint, a claim or a release. A checkpoint exists once its
manifest exists; the files that the manifest names are written before it. The manifest holds the structure and the plain
values of the tree, size and hash of every file, `facts` (JSON chosen by the training), the session that wrote it, and
the names of the links before and after it in the chain of its store.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import xxhash

from haversack.errors import InputError, IntegrityError
from haversack.training.checkpoints.ownership import RunOwner
from haversack.training.checkpoints.tensors import FileChecksum

MANIFEST_FILE, ARRAYS_FILE = "manifest.json", "state.safetensors"
_FORMAT = 1

Kind = Literal["checkpoint", "claim", "release"]


@dataclass(frozen=True)
class CheckpointManifest:
    """One link of a run's chain.

    `id` is the same for all copies of a link; `time` is in seconds since 1970. `term` is the sequence number of the
    session that owned the run, `count` the number of checkpoints committed so far. `files` maps a file's name to its
    checksum; a claim and a release have none, and their `step` is -1.

    The last four fields belong to the chain of one store. `number` is the link's place in it, `previous` and `next` are
    the names of the links beside it. `next_id` is the id with which the successor's file must be created, in a store
    that has file ids; elsewhere it is empty.
    """

    id: str
    kind: Kind
    session: RunOwner
    time: float
    term: int
    count: int
    step: int = -1
    tree: Any = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, FileChecksum] = field(default_factory=dict)
    best: bool = False
    milestone: bool = False
    number: int = 0
    previous: str = ""
    next: str = ""
    next_id: str = ""

    @property
    def order(self) -> tuple[int, int]:
        """(term, count); of two checkpoints the one with the larger pair is newer."""
        return (self.term, self.count)

    @property
    def size(self) -> int:
        """The total size of the files in bytes, without the manifest."""
        return sum(checksum.size for checksum in self.files.values())

    def encode(self) -> bytes:
        """Return the content of the manifest's file: JSON with the hash of the record under "seal"."""
        record = {"format": _FORMAT, **asdict(self)}
        return json.dumps({**record, "seal": _seal(record)}, indent=1).encode()


def decode(content: bytes, name: str) -> CheckpointManifest:
    """Return the manifest that `encode` wrote; `name` is the link's name for error messages.

    Raises `IntegrityError` if the content is not such JSON, differs from its hash, or has another format version.
    """
    try:
        record = json.loads(content)
        seal, version = record.pop("seal"), record.pop("format")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise IntegrityError(f"The manifest of {name} cannot be read.", "Restore another checkpoint.") from error
    if seal != _seal({"format": version, **record}):
        raise IntegrityError(f"The manifest of {name} does not match its hash.", "Restore another checkpoint.")
    if version != _FORMAT:
        raise IntegrityError(f"{name} was written in format {version}.", "Upgrade haversack to read it.")
    files = {name: FileChecksum(**checksum) for name, checksum in record.pop("files").items()}
    session = RunOwner(**record.pop("session"))
    return CheckpointManifest(**record, files=files, session=session)


def copy_facts(facts: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a deep copy of `facts` ({} for None), made through JSON.

    Raises `InputError` if a value is not JSON, or is NaN or infinite.
    """
    try:
        copy: dict[str, Any] = json.loads(json.dumps(facts or {}, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"facts cannot be saved as JSON: {error}.",
            "Pass a dict of str, bool, None, finite numbers, lists and dicts.",
        ) from error
    return copy


def _seal(record: dict[str, Any]) -> str:
    """Return the XXH3 hash of a record without its "seal"."""
    return xxhash.xxh3_128_hexdigest(json.dumps(record, sort_keys=True).encode())
