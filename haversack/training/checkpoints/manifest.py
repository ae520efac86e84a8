"""The manifest of a link: a JSON record that carries a hash of itself.

A run's chain consists of links, and each link is a checkpoint, a claim (a session became the owner of the run) or a
release (it gave the run up). A checkpoint exists once its manifest exists; the files that the manifest names are
written before it. The manifest holds the structure and the plain values of the tree, size and hash of every file,
`facts` (JSON chosen by the training), the session that wrote it, and the names of the links before and after it in the
chain of its store.
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

    The last four attributes differ between the stores of a run; the others are the same in every copy of a link.

    Attributes:
        id: random, unique in the run.
        kind: "checkpoint", "claim" or "release".
        session: the session that wrote it.
        time: when it was made, in seconds since 1970.
        term: the sequence number of the session among the run's owners; a later owner has a larger one.
        count: the number of checkpoints committed in the run so far, this one included.
        step: the step of the checkpoint; -1 for a claim or a release.
        tree: the structure of the saved tree (`Snapshot.structure`); None for a claim or a release.
        facts: the JSON object that the training saved with the checkpoint.
        files: the checksums of the checkpoint's files by name; empty for a claim or a release.
        best: whether it was saved as the best checkpoint.
        milestone: whether retention always keeps it.
        diverged: whether its weights are not numbers any more; retention keeps the newest checkpoint before it.
        number: the link's place in the chain of its store, from 1; 0 before it has one.
        previous, next: the names of the links before and after it.
        next_id: the file id with which the successor's file must be created; "" in a store without file ids.
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
    diverged: bool = False
    number: int = 0
    previous: str = ""
    next: str = ""
    next_id: str = ""

    @property
    def order(self) -> tuple[int, int]:
        """(term, count): of two checkpoints of a run, the one with the larger pair is newer."""
        return (self.term, self.count)

    @property
    def size(self) -> int:
        """The total size of the files in bytes, without the manifest."""
        return sum(checksum.size for checksum in self.files.values())

    def encode(self) -> bytes:
        """Return the content of the manifest's file: JSON, with the XXH3 hash of all other fields as "seal"."""
        record = {"format": _FORMAT, **asdict(self)}
        if not self.diverged:
            del record["diverged"]  # versions before this field read all other manifests
        return json.dumps({**record, "seal": _seal(record)}, indent=1).encode()


def decode(content: bytes, name: str) -> CheckpointManifest:
    """Parse the content of a manifest's file, as `encode` returned it; `name` is the link's name for error messages.

    Raises `IntegrityError` if the content is not the JSON of a manifest, differs from its hash, or has another format
    version.
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

    Tuples become lists. Raises `InputError` if a value is not JSON, or is NaN or infinite.
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
