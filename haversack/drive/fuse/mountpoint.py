"""The folder that a drive is mounted on: checks before mounting, and how a mount is detached from it."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import subprocess
from pathlib import Path

from haversack.errors import MountpointInvalid

_log = logging.getLogger(__name__)


def clear_stale(path: Path) -> None:
    """Detach a FUSE mount at `path` whose serving process has died; do nothing if there is none.

    Raises `OSError` if `statvfs` of `path` fails for another reason. A path that does not exist is ignored.
    """
    try:
        os.statvfs(path)  # the kernel may answer a `stat` from its cache
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.ENOTCONN, errno.ECONNABORTED):
            raise
        detach(path)


def detach(path: Path) -> None:
    """Unmount `path`; while files in it are open, detach it lazily: it disappears now and ends with the last of them.

    Logs a warning if no unmount command succeeds.
    """
    for command in (["fusermount3", "-u"], ["umount"], ["fusermount3", "-uz"], ["fusermount", "-uz"], ["umount", "-l"]):
        if shutil.which(command[0]) is None:
            continue
        done = subprocess.run([*command, str(path)], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode == 0:
            return
    _log.warning("%s could not be unmounted: %s", path, done.stderr.decode(errors="replace").strip())


def check_mountpoint(path: str | Path, *, colab: bool = False) -> None:
    """Raise `MountpointInvalid` unless `path` is an empty folder, or a new name in an existing one; no symbolic link.

    The error's message is that of Colab's `drive.mount`, then the path and what to do next. With `colab`, for callers
    that stand in for Colab's function, it is Colab's message alone, and a path with a space is refused too.
    """
    folder = Path(os.path.expanduser(path))
    wrong, next_step = "", ""
    if colab and " " in str(folder):
        wrong, next_step = "Mountpoint must not contain a space.", "Choose another name."
    elif folder.is_symlink():
        wrong, next_step = "Mountpoint must not be a symlink", f"Name the folder itself: {folder.resolve()}."
    elif folder.is_dir() and any(folder.iterdir()):
        wrong, next_step = "Mountpoint must not already contain files", "Choose an empty folder, or a new one."
    elif folder.exists() and not folder.is_dir():
        wrong, next_step = "Mountpoint must either be a directory or not exist", "Choose another name."
    elif not folder.parent.is_dir():
        wrong, next_step = "Mountpoint must be in a directory that exists", f"Create {folder.parent} first."
    if wrong and colab:
        raise MountpointInvalid(wrong)
    if wrong:
        raise MountpointInvalid(f"{wrong.rstrip('.')}: {folder}.", next_step)
