"""The folder that a drive is mounted on: whether it can be, and how a mount is detached from it."""

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
    """Take away a mount whose process is dead."""
    try:
        os.statvfs(path)  # `stat` may be answered from what the kernel remembers
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.ENOTCONN, errno.ECONNABORTED):
            raise
        detach(path)


def detach(path: Path) -> None:
    """Unmount, or, where something still stands in it, as soon as that lets go."""
    for command in (["fusermount3", "-u"], ["umount"], ["fusermount3", "-uz"], ["fusermount", "-uz"], ["umount", "-l"]):
        if shutil.which(command[0]) is None:
            continue
        done = subprocess.run([*command, str(path)], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode == 0:
            return
    _log.warning("%s could not be unmounted: %s", path, done.stderr.decode(errors="replace").strip())


def check_mountpoint(path: str | Path, *, colab: bool = False) -> None:
    """Raise `MountpointInvalid` for what a drive cannot be mounted on, in the words of Colab's `drive.mount`.

    With `colab` a space is refused too, and the words are Colab's alone.
    """
    folder = Path(os.path.expanduser(path))
    wrong, instead = "", ""
    if colab and " " in str(folder):
        wrong, instead = "Mountpoint must not contain a space.", "Choose another name."
    elif folder.is_symlink():
        wrong, instead = "Mountpoint must not be a symlink", f"Name the folder itself: {folder.resolve()}."
    elif folder.is_dir() and any(folder.iterdir()):
        wrong, instead = "Mountpoint must not already contain files", "Choose an empty folder, or a new one."
    elif folder.exists() and not folder.is_dir():
        wrong, instead = "Mountpoint must either be a directory or not exist", "Choose another name."
    elif not folder.parent.is_dir():
        wrong, instead = "Mountpoint must be in a directory that exists", f"Make {folder.parent} first."
    if wrong and colab:
        raise MountpointInvalid(wrong)
    if wrong:
        raise MountpointInvalid(f"{wrong.rstrip('.')}: {folder}.", instead)
