"""`google.colab.drive`: mount the drive that `haversack.credentials` finds, and unmount it."""

from __future__ import annotations

from pathlib import Path as _Path

from haversack.errors import HaversackError as _HaversackError

__all__ = ["flush_and_unmount", "mount"]

_MAX_MILLISECONDS = 24 * 60 * 60 * 1000
# The mount points that this process mounted and has not unmounted.
_mountpoints: set[_Path] = set()


def mount(mountpoint: str, force_remount: bool = False, timeout_ms: int = 120000, readonly: bool = False) -> None:
    """Mount the drive at the folder `mountpoint`, in which `My Drive` and `MyDrive` then hold its files.

    If a drive is mounted there already, it is kept and a line is printed; with `force_remount` it is unmounted first.
    With `readonly` every write fails with `EROFS`. `timeout_ms` exists for Colab's signature and has no effect: a mount
    here is usable at once or fails. Raises `ValueError` with Colab's message for an unusable mountpoint,
    `ValueError("mount failed: …")` if the drive cannot be mounted, and `MountError` if the old mount cannot be
    unmounted.
    """
    from haversack.drive.fuse import mount as _drive
    from haversack.drive.fuse import mountpoint as _mountpoint
    from haversack.notebook import channel as _channel

    path = _Path(mountpoint)
    if _drive.is_mounted(path):
        if not force_remount:
            print(
                f"Drive already mounted at {mountpoint}; to attempt to forcibly remount, "
                f'call drive.mount("{mountpoint}", force_remount=True).'
            )
            return
        _drive.unmount(path)
    _mountpoint.clear_stale(path)
    _mountpoint.check_mountpoint(path, colab=True)
    try:
        mounted = _drive.mount(path, readonly=readonly)
    except _HaversackError as error:
        raise ValueError(f"mount failed: {error}") from error
    _report_secrets()
    _mountpoints.add(path)
    _channel.send("mount", where=mounted.where, path=str(mounted.mountpoint))
    print(f"Mounted at {mountpoint}")


def flush_and_unmount(timeout_ms: int = _MAX_MILLISECONDS) -> None:
    """Upload all pending writes of the drives that this process mounted, and unmount them; blocks until that is done.

    Prints a line if there are none. `timeout_ms` exists for Colab's signature and has no effect. Raises
    `ValueError("flush_and_unmount failed")` if a write cannot be uploaded or a drive cannot be unmounted.
    """
    from haversack.drive.fuse import mount as _drive

    mounted = [path for path in _mountpoints if _drive.is_registered(path)]
    if not mounted:
        print("Drive not mounted, so nothing to flush and unmount.")
        return
    for path in mounted:
        try:
            _drive.unmount(path)
        except _HaversackError as error:
            raise ValueError("flush_and_unmount failed") from error
        _mountpoints.remove(path)


def _report_secrets() -> None:
    from haversack import credentials as _credentials
    from haversack.notebook.secrets import watch as _watch

    _watch.report(*_credentials.drive().secrets)
