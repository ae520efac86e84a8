"""`google.colab.auth`: whoever is signed in to the drive is signed in."""

from __future__ import annotations

from haversack.errors import HaversackError as _HaversackError
from haversack.notebook.colab import errors as _errors

__all__ = ["authenticate_service_account", "authenticate_user"]


def authenticate_user(clear_output: bool = True, project_id: str | None = None) -> None:
    """Return if the drive's server accepts who is signed in.

    `clear_output` and `project_id` are Colab's and change nothing here. Raises `errors.AuthorizationError`.
    """
    from haversack import credentials as _credentials
    from haversack.notebook.secrets import watch as _watch

    try:
        server = _credentials.drive()
    except _HaversackError as error:
        raise _errors.AuthorizationError(str(error)) from error
    _watch.announce(*server.secrets)


def authenticate_service_account(clear_output: bool = True) -> None:
    """Raises `errors.AuthorizationError`: a service account's key cannot be asked for in a page here."""
    raise _errors.AuthorizationError(
        "A service account cannot be signed in from a page here. Name a hub with --hub URL or HAVERSACK_HUB."
    )
