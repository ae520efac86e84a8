"""Messages from the kernel to the parent process of its job: secrets to mask, uploads, downloads, mounts.

Runs in the kernel. A message is sent on the kernel's iopub socket, which also carries the outputs, so the parent
receives it before any output that is written later. The parent handles it in `JobSessions._handle_message`. Without a
kernel or without a job, nothing is sent.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from haversack.errors import SignInError

UNTRUSTED = "HAVERSACK_UNTRUSTED"
"""The environment variable that is set in the kernel of a job whose notebook is somebody else's program."""
MESSAGE_TYPE = "haversack"
DIALECT_VARIABLE = "HAVERSACK_DIALECT"
"""The kernel's environment variable with the names of the platforms whose marks it gets, by commas."""
COLAB, KAGGLE = "colab", "kaggle"


def send(kind: str, **content: Any) -> None:
    """Send one message to the parent. Does nothing outside a job's kernel.

    Args:
        kind: "secret", "upload", "download", "mount" or "shell".
        **content: JSON values. "secret" has `values`, a list of strings to mask; "upload" has `names`, the received
            files as in `JobRecord.uploads`; "download" has `path`, the copy's; "mount" has `where`, a name of the place
            where the drive's bytes are, and `path`, the mountpoint; "shell" has `command`, one that failed, and its
            `status`.
    """
    kernel = _kernel()
    if kernel is not None:
        parent = kernel.get_parent("shell")
        kernel.session.send(kernel.iopub_socket, MESSAGE_TYPE, {"kind": kind, **content}, parent=parent)


def job_folder() -> Path | None:
    """Return the folder of the job that this process belongs to (`HAVERSACK_JOB`); None outside a job."""
    folder = os.environ.get("HAVERSACK_JOB")
    return Path(folder) if folder else None


def is_trusted() -> bool:
    """Whether this process belongs to no job, or to one whose notebook is the user's own or trusted with `--trust`."""
    return not os.environ.get(UNTRUSTED)


def check_trusted(wanted: str) -> None:
    """Raise `SignInError` in the job of a notebook that is somebody else's; `wanted` is what it does not get.

    This only explains: nothing that is refused is within such a kernel's reach.
    """
    if not is_trusted():
        raise SignInError(
            f"This notebook is somebody else's program, so it gets no {wanted}.",
            "Read it, and if you trust it, run it with --trust.",
        )


def dialects() -> list[str]:
    """Return the platforms that the notebook was written for, the first of which it works on (`kaggle.dialect`)."""
    return os.environ.get(DIALECT_VARIABLE, COLAB).split(",")


def _kernel() -> Any:
    """Return this process's ipykernel; None if it runs none or belongs to no job."""
    if job_folder() is None or "ipykernel" not in sys.modules:
        return None
    from ipykernel.kernelapp import IPKernelApp

    return IPKernelApp.instance().kernel if IPKernelApp.initialized() else None
