"""The trash of a drive: what is in it, and emptying it. What it holds counts as used until it is emptied."""

from __future__ import annotations

from dataclasses import dataclass

from haversack import credentials
from haversack.drive.api import DriveApi, File, Quota
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
