"""`google.colab.errors`: the exceptions of `google.colab`."""

from __future__ import annotations

__all__ = ["AuthorizationError", "Error", "RuntimeManagementError"]


class Error(Exception):
    """Base class of the exceptions of `google.colab`."""


class AuthorizationError(Error):
    """There is no sign-in, or the server refused it."""


class RuntimeManagementError(Error):
    """The runtime cannot be managed from the notebook; `runtime.unassign` raises it."""
