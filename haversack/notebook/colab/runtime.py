"""`google.colab.runtime`: release the machine. Here the machine is the user's own, so this is an error."""

from __future__ import annotations

from haversack.notebook.colab import errors as _errors

__all__ = ["unassign"]


def unassign() -> None:
    """Raise `errors.RuntimeManagementError`. On Colab this ends the session and releases the machine."""
    raise _errors.RuntimeManagementError(
        "This machine is no Colab runtime, so it cannot be unassigned. Remove the line: a job ends after its last cell."
    )
