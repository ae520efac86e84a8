"""The trash of a drive: what is in it, putting it back, emptying it. What it holds counts as used until then."""

from __future__ import annotations

from dataclasses import dataclass

from haversack import credentials
from haversack.drive import ALIAS, ROOT, tree
from haversack.drive.remote import calls
from haversack.drive.remote.api import DriveApi, File, Quota
from haversack.errors import HaversackError, InputError, NotFound
from haversack.http import wait


@dataclass(frozen=True)
class Trash:
    """What was put into the trash, without what lies in folders there; `size` is that of all of it, in bytes."""

    files: list[File]
    size: int


def content(hub: str | None = None) -> Trash:
    """Look into the trash. Raises as every call of a drive does (`http.Http.request`)."""
    api = DriveApi(credentials.drive(hub))
    return wait(_content(api))


def restore(name: str, hub: str | None = None) -> str:
    """Put a file, or a folder with all it held, back to where it was; returns its path below My Drive.

    `name` is its name or path or, where the trash holds several of those, its id. Raises `NotFound`, `InputError` when
    that is not enough, and as `content`.
    """
    return wait(_restored(DriveApi(credentials.drive(hub)), name))


def empty(hub: str | None = None) -> None:
    """Delete for good what the trash holds. Raises as `content`."""
    wait(DriveApi(credentials.drive(hub)).empty_trash())


def quota(hub: str | None = None) -> Quota:
    """How much the drive holds and may hold. Raises as `content`."""
    return wait(DriveApi(credentials.drive(hub)).about())


async def _content(api: DriveApi) -> Trash:
    files = {file.id: file async for page in api.search("trashed = true") for file in page.files}
    # What lies in a trashed folder is trashed with it, and was not put there by itself.
    tops = [file for file in files.values() if file.parent not in files]
    return Trash(sorted(tops, key=lambda file: (-file.size, file.name)), sum(file.size for file in files.values()))


async def _restored(api: DriveApi, name: str) -> str:
    names = tree.split(name.removeprefix(f"{ROOT}/").removeprefix(f"{ALIAS}/"))
    found = []
    for file in (await _content(api)).files:
        if name in (file.id, file.name) or (names[-1:] == (file.name,) and await _path(api, file) == "/".join(names)):
            found.append(file)
    if not found:
        raise NotFound(f"There is no {name} in the trash.", "List it: haversack drive trash", status=404)
    if len(found) > 1:
        which = [f"{await _path(api, file)} of {calls.rfc3339(file.modified)} ({file.id})" for file in found]
        raise InputError(f"The trash holds {len(found)} of that name: {', '.join(which)}.", "Give a path or an id.")
    return await _path(api, await api.restore(found[0].id))


async def _path(api: DriveApi, file: File) -> str:
    """Where a file lies or lay, below My Drive or as far up as may be seen."""
    way = [file.name]
    while file.parent:
        try:
            file = await api.get(file.parent)
        except HaversackError:
            return "/".join(reversed(way))
        way.append(file.name)
    return "/".join(reversed(way[:-1] or way))
