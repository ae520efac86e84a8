"""The trash of a drive: list it, restore from it, empty it. Trashed files count as used space until it is emptied."""

from __future__ import annotations

from dataclasses import dataclass

from haversack import credentials
from haversack.drive import ALIAS, ROOT, tree
from haversack.drive.remote import calls
from haversack.drive.remote.api import DriveApi
from haversack.drive.remote.calls import File, Quota
from haversack.errors import HaversackError, InputError, NotFound
from haversack.http import wait


@dataclass(frozen=True)
class Trash:
    """What is in a drive's trash.

    `files` are the files and folders that were trashed themselves, the largest first, without what is inside a trashed
    folder. `size` is the sum of all bytes in the trash, those inside trashed folders included.
    """

    files: list[File]
    size: int


def content(hub: str | None = None) -> Trash:
    """Return what is in the trash of the drive `hub`: a URL, "google", "embedded", or None for the default.

    Raises `SignInError` if no sign-in is found or it is refused, `InputError` for an invalid `hub`, `ConnectionFailed`
    if the drive does not answer, and `RemoteError` if it answers with an error.
    """
    return wait(_content(DriveApi(credentials.drive(hub))))


def restore(name: str, hub: str | None = None) -> str:
    """Move a file, or a folder with all below it, out of the trash, to where it was. Return its path below My Drive.

    `name` is a name, a path (with or without `My Drive/`) or an id of what was trashed itself, not of what is inside a
    trashed folder. `hub` as in `content`. Raises `NotFound` if the trash has no such file, `InputError` if it has
    several or `hub` is invalid, `SignInError`, `ConnectionFailed`, and `RemoteError`.
    """
    return wait(_restore(DriveApi(credentials.drive(hub)), name))


def empty(hub: str | None = None) -> None:
    """Delete everything in the trash for good. `hub` as in `content`.

    Raises `SignInError`, `InputError` for an invalid `hub`, `ConnectionFailed`, and `RemoteError`.
    """
    wait(DriveApi(credentials.drive(hub)).empty_trash())


def quota(hub: str | None = None) -> Quota:
    """Return the drive's used space and limit, in bytes. `hub` as in `content`.

    Raises `SignInError`, `InputError` for an invalid `hub`, `ConnectionFailed`, and `RemoteError`.
    """
    return wait(DriveApi(credentials.drive(hub)).quota())


async def _content(api: DriveApi) -> Trash:
    files = {file.id: file async for page in api.search("trashed = true") for file in page.files}
    # A file whose parent is in the trash was trashed with that folder.
    tops = [file for file in files.values() if file.parent not in files]
    return Trash(sorted(tops, key=lambda file: (-file.size, file.name)), sum(file.size for file in files.values()))


async def _restore(api: DriveApi, name: str) -> str:
    names = tree.split(name.removeprefix(f"{ROOT}/").removeprefix(f"{ALIAS}/"))
    found = []
    for file in (await _content(api)).files:
        if name in (file.id, file.name) or (names[-1:] == (file.name,) and await _path(api, file) == "/".join(names)):
            found.append(file)
    if not found:
        raise NotFound(f"There is no {name} in the trash.", "List it: haversack drive trash", status=404)
    if len(found) > 1:
        which = [f"{await _path(api, file)} of {calls.rfc3339(file.modified)} ({file.id})" for file in found]
        raise InputError(
            f"The trash holds {len(found)} files of that name: {', '.join(which)}.", "Give a path or an id."
        )
    return await _path(api, await api.restore(found[0].id))


async def _path(api: DriveApi, file: File) -> str:
    """Return a file's path below My Drive; if a folder above it cannot be read, the path from there on."""
    names = [file.name]
    while file.parent:
        try:
            file = await api.get(file.parent)
        except HaversackError:
            return "/".join(reversed(names))
        names.append(file.name)
    return "/".join(reversed(names[:-1] or names))
