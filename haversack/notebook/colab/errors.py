"""`google.colab.errors`: the exceptions of `google.colab`."""

from __future__ import annotations

__all__ = ["AuthorizationError", "Error", "RuntimeManagementError", "WidgetException"]


class Error(Exception):
    """Base class of the exceptions of `google.colab`."""


class AuthorizationError(Error):
    """There is no sign-in, or the server refused it."""


class RuntimeManagementError(Error):
    """The runtime cannot be managed from the notebook; `runtime.unassign` raises it outside a job."""


class WidgetException(Exception):
    """A widget of `google.colab.widgets` was used in a way that it does not allow."""
