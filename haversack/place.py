"""Where the code runs, for which job, and whether what it writes to disk outlives the session.

Colab is recognized by its installed package, Kaggle by its environment; nothing heavy is imported. Whether a disk
outlives the session depends on the file system that a folder is on: a container's own layer (overlay) and memory
(tmpfs) are lost with the session, a mounted volume stays.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

Place = Literal["colab", "kaggle", "notebook", "terminal"]

# File systems whose content is lost with the machine, the container or its memory.
FLEETING = {"aufs", "overlay", "ramfs", "rootfs", "tmpfs"}


def here(environment: Mapping[str, str] = os.environ) -> Place:
    """Where this process runs: "colab", "kaggle", "notebook" (any other Jupyter kernel) or "terminal" (all else)."""
    # A job gives a notebook of Kaggle's this variable too, and says so.
    if environment.get("KAGGLE_KERNEL_RUN_TYPE") and not environment.get("HAVERSACK_KAGGLE_MARKS"):
        return "kaggle"
    if _genuine_colab():
        return "colab"
    return "notebook" if in_kernel() else "terminal"


def in_kernel() -> bool:
    """Whether this process is a Jupyter kernel. Importing ipykernel alone does not make it one."""
    kernels = sys.modules.get("ipykernel.kernelapp")
    return kernels is not None and kernels.IPKernelApp.initialized()


def job() -> str:
    """The name of the notebook job that this process belongs to, which is that of its folder; "" outside a job."""
    return Path(os.environ.get("HAVERSACK_JOB", "")).name


def interpreter() -> str:
    """The path of the Python for processes that outlive this one.

    In a job it is the Python of `haversack run`, because cells may change the packages of the job's own; else this one.
    """
    return os.environ.get("HAVERSACK_PYTHON") or sys.executable


def disk_outlives_session(folder: Path) -> bool:
    """Whether files in `folder`, which need not exist yet, survive the end of this machine's session.

    False on Colab, on Kaggle, and on the file systems of a container's own layer and of memory.
    """
    if here() in ("colab", "kaggle"):
        return False
    return file_system(folder) not in FLEETING


def _genuine_colab() -> bool:
    """Whether the real `google.colab` is installed; haversack's replacement does not count."""
    try:
        spec = importlib.util.find_spec("google.colab")
    except (ImportError, ValueError):
        return False
    return spec is not None and "haversack" not in (spec.origin or "")


def file_system(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the file system that holds `folder`, such as "ext4"; "" where it is unknown (macOS, Windows).

    `mounts` is a file in the format of `/proc/self/mountinfo` (proc(5)).
    """
    try:
        lines = mounts.read_text().splitlines()
    except FileNotFoundError:
        return ""
    folder = folder.resolve()
    best, kind = -1, ""
    for line in lines:
        # 36 35 98:0 /root /mount/point options [optional…] - type source options   (proc(5))
        fields, _, after = line.partition(" - ")
        point = Path(fields.split()[4].encode().decode("unicode_escape"))
        # Of several mounts on one point, the last one is visible.
        if folder.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), after.split()[0]
    return kind
