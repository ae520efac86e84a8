"""The exceptions of `google.colab.errors`."""

from __future__ import annotations

__all__ = ["AuthorizationError", "Error", "RuntimeManagementError"]


class Error(Exception):
    """The root of what `google.colab` raises on purpose."""


class AuthorizationError(Error):
    """Nobody is signed in."""


class RuntimeManagementError(Error):
    """The runtime cannot be managed from here."""
