"""`google.colab.runtime`: release the machine. Here that is the session of the job; the user's own machine stays."""

from __future__ import annotations

from haversack.notebook import ending as _ending
from haversack.notebook.colab import errors as _errors

__all__ = ["unassign"]


def unassign() -> None:
    """End the job's session at once; in the last cell that ends the job as done.

    As on Colab, the rest of the cell is not executed. What the notebook wrote to the drive is uploaded before the
    session is over. Raises `errors.RuntimeManagementError` in a process that is no job's kernel, where there is nothing
    to release, and `OSError` if the job's folder cannot be written.
    """
    if not _ending.is_kernel():
        raise _errors.RuntimeManagementError(
            "This machine is no Colab runtime, so it cannot be unassigned. Remove the line, or run the notebook with "
            "`haversack run`, where it ends the session."
        )
    print("The session ends: runtime.unassign().")
    _ending.end_kernel("unassign")
