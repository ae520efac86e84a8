"""What a kernel asks the clients to do, with JSON values as arguments and results.

Runs in haversack's own Python (`serving`), or in the kernel if its environment is haversack's. Modules of the kernel
never import this one, except `client.call`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haversack import credentials
from haversack.errors import HaversackError
from haversack.google import DEFAULT_FILE, GoogleSignIn

if TYPE_CHECKING:
    from haversack.drive.filesystem import DriveFileSystem


def mount(mountpoint: str, force_remount: bool, readonly: bool) -> dict[str, Any] | None:
    """Mount the drive as `google.colab.drive.mount` does, and raise as it does.

    Returns `path` (absolute), `where` (a name of the place where the drive's bytes are) and `secrets` (to be masked);
    None if a drive is mounted there already, which is kept unless `force_remount`.
    """
    from haversack.drive.fuse import mount as drive
    from haversack.drive.fuse import mountpoint as mountpoint_

    path = Path(mountpoint)
    if drive.is_mounted(path):
        if not force_remount:
            return None
        drive.unmount(path)
    mountpoint_.clear_stale(path)
    mountpoint_.check_mountpoint(path, colab=True)
    try:
        mounted = drive.mount(path, readonly=readonly)
    except HaversackError as error:
        raise ValueError(f"mount failed: {error}") from error
    return {"path": str(mounted.mountpoint), "where": mounted.where, "secrets": secrets()}


def unmount(mountpoints: list[str]) -> list[str]:
    """Unmount the drives at those of the absolute `mountpoints` where one is mounted; return these mountpoints.

    Returns once everything written is on the drive. Raises `MountError` for the first that cannot be unmounted; those
    before it are unmounted then.
    """
    from haversack.drive.fuse import mount as drive

    mounted = [path for path in mountpoints if drive.is_registered(path)]
    for path in mounted:
        drive.unmount(path)
    return mounted


def secrets() -> list[str]:
    """Return the secrets of the drive's sign-in. Raises as `credentials.drive`."""
    return list(credentials.drive().secrets)


def _call_drive(method: str) -> Callable[..., Any]:
    """Return an action that calls this method of the drive's file system."""

    def action(arguments: list[Any], options: dict[str, Any]) -> Any:
        return getattr(_drive(), method)(*arguments, **options)

    return action


@cache
def _drive() -> DriveFileSystem:
    from haversack.drive.filesystem import DriveFileSystem

    return DriveFileSystem()


DRIVE_METHODS = (
    "deliver",
    "exists",
    "get_file",
    "info",
    "invalidate_cache",
    "ls",
    "makedirs",
    "mv",
    "purge",
    "put_file",
    "reserve",
    "rm",
    "rm_file",
)
"""The methods of `DriveFileSystem` that a kernel may call, as the actions `drive.NAME`."""


def sign_in() -> dict[str, Any]:
    """Return what is known of the drive's sign-in. Raises as `credentials.drive`.

    `secrets` are to be masked, `name` names the server, and `is_google` says whether the sign-in is Google's; then
    `file` is its file of application default credentials or None, `content` what such a file has, or None, and `place`
    the path below HOME where Google's libraries look for one.
    """
    server = credentials.drive()
    google = server.sign_in if isinstance(server.sign_in, GoogleSignIn) else None
    file = google.file if google is not None else None
    return {
        "secrets": list(server.secrets),
        "name": server.name,
        "is_google": google is not None,
        "file": str(file) if file is not None else None,
        "place": str(DEFAULT_FILE),
        "content": google.application_default() if google is not None and file is None else None,
    }


def kaggle_hub() -> dict[str, str] | None:
    """Return `url` and `token` of the named hub, which then serves Kaggle's API; None without one.

    Raises as `credentials.kaggle`.
    """
    if not credentials.names_hub():
        return None
    server = credentials.kaggle()
    return {"url": server.url, "token": (server.authorization or "").removeprefix("Bearer ")}


ACTIONS: dict[str, Callable[..., Any]] = {
    "mount": mount,
    "unmount": unmount,
    "secrets": secrets,
    "sign_in": sign_in,
    "kaggle_hub": kaggle_hub,
    **{f"drive.{method}": _call_drive(method) for method in DRIVE_METHODS},
}
"""Every action by its name."""
