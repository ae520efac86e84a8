"""`google.colab.drive`: mount the drive that `haversack.credentials` finds, and unmount it."""

from __future__ import annotations

from haversack.errors import HaversackError as _HaversackError
from haversack.notebook import channel as _channel
from haversack.notebook.clients import client as _client

__all__ = ["flush_and_unmount", "mount"]

_MAX_MILLISECONDS = 24 * 60 * 60 * 1000
# The absolute paths of the mount points that this process mounted and has not unmounted.
_mountpoints: list[str] = []


def mount(mountpoint: str, force_remount: bool = False, timeout_ms: int = 120000, readonly: bool = False) -> None:
    """Mount the drive at the folder `mountpoint`, in which `My Drive` and `MyDrive` then hold its files.

    If a drive is mounted there already, it is kept and a line is printed; with `force_remount` it is unmounted first.
    With `readonly` every write fails with `EROFS`. `timeout_ms` exists for Colab's signature and has no effect: a mount
    here is usable at once or fails. Raises `ValueError` with Colab's message for an unusable mountpoint,
    `ValueError("mount failed: …")` if the drive cannot be mounted, and `MountError` if the old mount cannot be
    unmounted.
    """
    from haversack.notebook.secrets import watch as _watch

    mounted = _client.call("mount", mountpoint=str(mountpoint), force_remount=force_remount, readonly=readonly)
    if mounted is None:
        print(
            f"Drive already mounted at {mountpoint}; to attempt to forcibly remount, "
            f'call drive.mount("{mountpoint}", force_remount=True).'
        )
        return
    _watch.report(*mounted["secrets"])
    if mounted["path"] not in _mountpoints:
        _mountpoints.append(mounted["path"])
    _channel.send("mount", where=mounted["where"], path=mounted["path"])
    print(f"Mounted at {mountpoint}")


def flush_and_unmount(timeout_ms: int = _MAX_MILLISECONDS) -> None:
    """Upload all pending writes of the drives that this process mounted, and unmount them; blocks until that is done.

    Prints a line if there are none. `timeout_ms` exists for Colab's signature and has no effect. Raises
    `ValueError("flush_and_unmount failed")` if a write cannot be uploaded or a drive cannot be unmounted.
    """
    try:
        unmounted = _client.call("unmount", mountpoints=_mountpoints) if _mountpoints else []
    except _HaversackError as error:
        raise ValueError("flush_and_unmount failed") from error
    _mountpoints.clear()
    if not unmounted:
        print("Drive not mounted, so nothing to flush and unmount.")
