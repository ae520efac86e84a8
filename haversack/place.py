"""Where the code runs, and what that means for what it writes to disk.

A place is found by its traces, never by importing anything heavy: Colab by the package it preloads, Kaggle by its
environment. Whether a disk outlives the session is asked of the file system that a folder lies on, not of the place's
name: a container's own layer (overlay) and memory (tmpfs) go with the session, a volume mounted into it stays.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

Place = Literal["colab", "kaggle", "notebook", "terminal"]

# File systems whose content goes with the machine, the container or its memory.
FLEETING = {"aufs", "overlay", "ramfs", "rootfs", "tmpfs"}


def here(environment: Mapping[str, str] = os.environ) -> Place:
    """The place this process runs in."""
    if environment.get("KAGGLE_KERNEL_RUN_TYPE"):
        return "kaggle"
    if _genuine_colab():
        return "colab"
    return "notebook" if in_kernel() else "terminal"


def in_kernel() -> bool:
    """Whether this process is a Jupyter kernel; that the package is imported says nothing yet."""
    kernels = sys.modules.get("ipykernel.kernelapp")
    return kernels is not None and kernels.IPKernelApp.initialized()


def interpreter() -> str:
    """The Python for processes that outlive this one: never that of a notebook job, whose packages cells change."""
    return os.environ.get("HAVERSACK_PYTHON") or sys.executable


def disk_outlives_session(folder: Path) -> bool:
    """Whether files under `folder`, which need not exist yet, are still there when this machine's session is over."""
    if here() in ("colab", "kaggle"):
        return False
    return file_system(folder) not in FLEETING


def _genuine_colab() -> bool:
    """Whether the real `google.colab` is installed; haversack's own stand-in does not count."""
    try:
        spec = importlib.util.find_spec("google.colab")
    except (ImportError, ValueError):
        return False
    return spec is not None and "haversack" not in (spec.origin or "")


def file_system(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the file system that holds `folder`; "" where the kernel does not say (macOS, Windows)."""
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
        # The last of several mounts on one point is the one in sight.
        if folder.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), after.split()[0]
    return kind
