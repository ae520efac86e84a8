"""`google.colab.userdata`: the user's secrets, from the environment or from the file `secrets.toml`.

`secrets.file` says where a secret is looked up. A value that `get` returned is masked in all outputs of the job.
"""

from __future__ import annotations

from haversack.errors import SignInError as _SignInError
from haversack.notebook import channel as _channel
from haversack.notebook.colab import errors as _errors
from haversack.notebook.secrets import file as _file

__all__ = ["NotebookAccessError", "SecretNotFoundError", "TimeoutException", "get"]


class _SecretError(_errors.Error):
    """An error whose message is all that a reader needs: IPython shows it without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class SecretNotFoundError(_SecretError):
    """There is no secret of that name."""


class NotebookAccessError(_SecretError):
    """The secrets file may be read by other users, so it is refused."""


class TimeoutException(_errors.Error):
    """Colab's page did not answer in time. Never raised here."""


def get(key: str) -> str:
    """Return the secret named `key`, and mask it in outputs from now on.

    Raises `SecretNotFoundError` if there is no such secret or the notebook is somebody else's, `NotebookAccessError` if
    other users may read the secrets file, and `InputError` if that file is not TOML.
    """
    from haversack.notebook.secrets import watch as _watch

    try:
        _channel.check_trusted(f"secret {key}")
        value = _file.value(key)
    except _SignInError as error:
        raise SecretNotFoundError(str(error)) from None
    except PermissionError as error:
        raise NotebookAccessError(str(error)) from error
    if value is None:
        raise SecretNotFoundError(
            f"Secret {key} does not exist. Store it with `haversack secrets set {key}`, "
            f"or set the environment variable HAVERSACK_SECRET_{key}."
        )
    _watch.report(value)
    return value
