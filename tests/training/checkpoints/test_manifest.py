from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from haversack.errors import InputError, IntegrityError
from haversack.training.checkpoints import manifest
from haversack.training.checkpoints.manifest import CheckpointManifest
from haversack.training.checkpoints.ownership import RunOwner
from haversack.training.checkpoints.tensors import FileChecksum

WRITTEN = CheckpointManifest(
    id="ab" * 8,
    kind="checkpoint",
    session=RunOwner.of_this_process(),
    time=time.time(),
    term=2,
    count=7,
    step=700,
    tree={"dict": [["w", {"array": "w"}], ["nan", {"float": "7ff8000000000000"}]]},
    facts={"keras": "3.15", "loss": 0.1, "é": None},
    files={"state.safetensors": FileChecksum(12, "00" * 16)},
    number=9,
    previous="00000008",
    next="00000010",
)


def test_it_is_read_as_it_was_written() -> None:
    assert manifest.decode(WRITTEN.encode(), "x") == WRITTEN


def test_it_is_json_that_names_its_format_its_neighbours_and_its_files() -> None:
    record = json.loads(WRITTEN.encode())
    assert (record["format"], record["previous"], record["next"]) == (1, "00000008", "00000010")
    assert record["files"]["state.safetensors"]["size"] == 12
    assert {"host", "pid", "place", "since"} <= set(record["session"])


def test_every_changed_or_missing_byte_is_found() -> None:
    content = WRITTEN.encode()
    for place in range(len(content)):
        for changed in (bytes([content[place] ^ 1]), b""):
            other = content[:place] + changed + content[place + 1 :]
            try:
                assert manifest.decode(other, "x") == WRITTEN  # white space between its words
            except IntegrityError:
                continue


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{}", b'{"seal": 1, "format": 1}', b"\xff\xfe"])
def test_what_is_no_manifest_is_told_plainly(content: bytes) -> None:
    with pytest.raises(IntegrityError, match="The manifest of x"):
        manifest.decode(content, "x")


def test_a_format_of_the_future_says_so() -> None:
    record = {**json.loads(WRITTEN.encode()), "format": 2}
    del record["seal"]
    content = json.dumps({**record, "seal": manifest._seal(record)}).encode()
    with pytest.raises(IntegrityError, match="written in format 2"):
        manifest.decode(content, "x")


def test_of_two_sessions_the_later_ones_checkpoints_are_newer() -> None:
    assert replace(WRITTEN, term=3, count=1).order > WRITTEN.order
    assert replace(WRITTEN, count=8).order > WRITTEN.order


def test_facts_are_copied() -> None:
    given = {"a": [1]}
    kept = manifest.copy_facts(given)
    given["a"].append(2)
    assert kept == {"a": [1]}


def test_facts_that_are_no_json_are_refused() -> None:
    with pytest.raises(InputError, match="facts"):
        manifest.copy_facts({"a": {1, 2}})
