"""The first contact with a drive: all that has to be known before anything else, in one call."""

from __future__ import annotations

from haversack.credentials import Server
from haversack.drive import MARK
from haversack.drive.index import snapshot
from haversack.drive.remote import calls
from haversack.drive.remote.api import Call, DriveApi, File, Page, Quota
from haversack.errors import HaversackError
from haversack.http import Http


async def bootstrap(server: Server) -> tuple[File, str, File | None, Quota]:
    """My Drive, where its list of changes ends, a snapshot of what an earlier session knew, the room: one call."""
    http = Http(server, attempts=3)
    wanted: list[Call[File | str | Page | Quota]] = [
        calls.get(server.root), calls.changes_token(), snapshot.search(MARK), calls.quota(),
    ]  # fmt: skip
    try:
        answers = await DriveApi(server, http).batch(wanted)
    finally:
        await http.close()
    for answer in answers:
        if isinstance(answer, HaversackError):
            raise answer
    root, token, found, quota = answers
    assert isinstance(root, File)
    assert isinstance(token, str)
    assert isinstance(found, Page)
    assert isinstance(quota, Quota)
    return root, token, snapshot.newest(found.files), quota
