"""`google.colab.userdata`: the user's secrets, from the environment or from a file of the user's own.

`HAVERSACK_SECRET_<KEY>` in the environment of the command comes first, then the line `KEY = "value"` in `secrets.toml`
in haversack's configuration folder, which only its owner may be able to read. What is got is masked in every output.
"""

from __future__ import annotations

from haversack.notebook.colab import errors as _errors
from haversack.notebook.secrets import file as _secretfile

__all__ = ["NotebookAccessError", "SecretNotFoundError", "TimeoutException", "get"]


class SecretNotFoundError(_errors.Error):
    """There is no secret of that name."""


class NotebookAccessError(_errors.Error):
    """The notebook may not read the secret."""


class TimeoutException(_errors.Error):
    """Nobody answered in time."""


def get(key: str) -> str:
    """The secret named `key`.

    Raises `SecretNotFoundError` where there is none, `NotebookAccessError` when others may read the file it is in.
    """
    from haversack.notebook.secrets import watch as _watch

    try:
        value = _secretfile.value(key)
    except PermissionError as error:
        raise NotebookAccessError(str(error)) from error
    if value is None:
        raise SecretNotFoundError(
            f"Secret {key} does not exist. Put it in the environment variable HAVERSACK_SECRET_{key} "
            f'or as {key} = "…" into {_secretfile.path()}, mode 600.'
        )
    _watch.announce(value)
    return value
