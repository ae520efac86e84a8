"""What a job's kernel tells the job beside its outputs: secrets to mask, downloads, mounts.

Messages go the way of the outputs (the kernel's iopub socket), so they arrive before any output that is written later.
Outside a kernel nobody listens, and nothing is sent.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

MESSAGE = "haversack"


def tell(kind: str, **content: Any) -> None:
    """Send one message to the job: `kind` is "secret", "download", "upload" or "mount"."""
    kernel = _kernel()
    if kernel is not None:
        kernel.session.send(kernel.iopub_socket, MESSAGE, {"kind": kind, **content}, parent=kernel.get_parent("shell"))


def job() -> Path | None:
    """The folder of the job this process belongs to; None outside a job."""
    folder = os.environ.get("HAVERSACK_JOB")
    return Path(folder) if folder else None


def _kernel() -> Any:
    if job() is None or "ipykernel" not in sys.modules:
        return None
    from ipykernel.kernelapp import IPKernelApp

    return IPKernelApp.instance().kernel if IPKernelApp.initialized() else None
