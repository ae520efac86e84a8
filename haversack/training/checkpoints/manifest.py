"""The manifest: what one link of a run's chain is, in JSON, sealed by a hash of itself.

A checkpoint is there once its manifest is; the files that it names come first. It holds the tree's structure and plain
values, the size and hash of every file, whatever the training wants kept of itself (`facts`), who wrote it, and the
link before and after it in the chain of the store it lies in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import xxhash

from haversack.errors import InputError, IntegrityError
from haversack.training.checkpoints.ownership import RunOwner
from haversack.training.checkpoints.tensors import Written

FILE, STATE = "manifest.json", "state.safetensors"
_FORMAT = 1

Kind = Literal["checkpoint", "claim", "release"]


@dataclass(frozen=True)
class CheckpointManifest:
    """One link. `id` is the same wherever a copy of it lies; `time` is in seconds since 1970.

    `term` counts the sessions that owned the run and `count` its checkpoints; of two checkpoints the one with the
    larger pair is newer. `number` is the link's place in the chain of one store, `previous` and `next` the names of
    its neighbours there, `next_id` the id of the file that its successor's manifest has to be, where the store has
    ids.
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
    files: Mapping[str, Written] = field(default_factory=dict)
    best: bool = False
    milestone: bool = False
    number: int = 0
    previous: str = ""
    next: str = ""
    next_id: str = ""

    @property
    def age(self) -> tuple[int, int]:
        return (self.term, self.count)

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(written.size for written in self.files.values())

    def encode(self) -> bytes:
        record = {"format": _FORMAT, **asdict(self)}
        return json.dumps({**record, "seal": _seal(record)}, indent=1).encode()


def decode(content: bytes, name: str) -> CheckpointManifest:
    """The manifest in a file's content. Raises `IntegrityError` when it is not as it was written."""
    try:
        record = json.loads(content)
        seal, version = record.pop("seal"), record.pop("format")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise IntegrityError(f"The manifest of {name} cannot be read.", "Take another checkpoint.") from error
    if seal != _seal({"format": version, **record}):
        raise IntegrityError(f"The manifest of {name} has changed.", "Take another checkpoint.")
    if version != _FORMAT:
        raise IntegrityError(f"{name} was written in format {version}.", "Read it with a newer haversack.")
    files = {name: Written(**written) for name, written in record.pop("files").items()}
    session = RunOwner(**record.pop("session"))
    return CheckpointManifest(**record, files=files, session=session)


def checked_facts(facts: Mapping[str, Any] | None) -> dict[str, Any]:
    """A copy of `facts` that later changes do not reach. Raises `InputError` when it is not JSON."""
    try:
        return json.loads(json.dumps(facts or {}, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(f"facts cannot be kept as JSON: {error}.", "Give a dict of plain values.") from error


def _seal(record: dict[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(record, sort_keys=True).encode())
