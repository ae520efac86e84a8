"""`google.colab.runtime`: this machine is the user's own, so it is not given back."""

from __future__ import annotations

from haversack.notebook.colab import errors as _errors

__all__ = ["unassign"]


def unassign() -> None:
    """On Colab: end the session and give the machine back.

    Raises `errors.RuntimeManagementError`, since here there is nothing to give back.
    """
    raise _errors.RuntimeManagementError(
        "This machine is no Colab runtime, so it cannot be unassigned. Remove the line: a job ends after its last cell."
    )
