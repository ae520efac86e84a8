"""The first request to a drive: everything that `Drive` needs before any other call, in one batch."""

from __future__ import annotations

from haversack.credentials import Server
from haversack.drive import MARK
from haversack.drive.index import snapshot
from haversack.drive.remote import calls
from haversack.drive.remote.api import Call, DriveApi, File, Page, Quota
from haversack.errors import HaversackError
from haversack.http import Http


async def bootstrap(server: Server) -> tuple[File, str, File | None, Quota]:
    """Return (the root folder, start page token of the changes feed, the file of the newest snapshot or None, quota).

    The root folder is My Drive, or the folder that `server.root` names. One batch request, with at most three attempts.
    Raises `SignInError`, `ConnectionFailed`, or the `RemoteError` of the first call in the batch that failed.
    """
    http = Http(server, attempts=3)
    requests: list[Call[File | str | Page | Quota]] = [
        calls.get(server.root), calls.changes_token(), snapshot.search(MARK), calls.quota(),
    ]  # fmt: skip
    try:
        answers = await DriveApi(server, http).batch(requests)
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
