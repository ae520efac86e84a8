"""`google.colab.auth`: sign-in. Here the sign-in is that of the drive, found by `haversack.credentials`."""

from __future__ import annotations

from haversack.errors import HaversackError as _HaversackError
from haversack.notebook.colab import errors as _errors

__all__ = ["authenticate_service_account", "authenticate_user"]


def authenticate_user(clear_output: bool = True, project_id: str | None = None) -> None:
    """Return if a sign-in to the drive is found; its secrets are masked in outputs from then on. It is not tried.

    `clear_output` and `project_id` exist for Colab's signature and have no effect. Raises `errors.AuthorizationError`
    if no drive can be chosen, for example because nobody is signed in.
    """
    from haversack.notebook.clients import client as _client
    from haversack.notebook.secrets import watch as _watch

    try:
        secrets = _client.call("secrets")
    except _HaversackError as error:
        raise _errors.AuthorizationError(str(error)) from error
    _watch.report(*secrets)


def authenticate_service_account(clear_output: bool = True) -> None:
    """Raise `errors.AuthorizationError`: there is no Colab page that could ask for a service account's key."""
    raise _errors.AuthorizationError(
        "A service account cannot be signed in from a page here. Name a hub with --hub URL or HAVERSACK_HUB."
    )
