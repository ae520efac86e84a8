"""`google.colab._message`: requests to Colab's page. Private upstream, but libraries such as wandb call it."""

from __future__ import annotations

import json as _json
from typing import Any as _Any

from haversack.notebook import channel as _channel
from haversack.notebook.colab import errors as _errors

__all__ = ["MessageError", "blocking_request"]

# The job's notebook in its folder, as `haversack.notebook.record.store` names it.
_NOTEBOOK = "notebook.ipynb"


class MessageError(_errors.Error):
    """Colab's page answered with an error. Never raised here."""


def blocking_request(
    request_type: str, request: _Any = "", timeout_sec: float | None = 5, parent: dict[str, _Any] | None = None
) -> dict[str, _Any] | None:
    """Return Colab's answer to `request_type`: for "get_ipynb" `{"ipynb": the job's notebook}`, for all others None.

    None is what Colab's own function returns when its page does not answer within `timeout_sec` seconds. Here it
    returns at once; `request` and `parent` have no effect. The notebook is the one that the job was given, with its
    parameters set and without the outputs of this session. Outside a job it is None too. Raises `OSError` if the
    notebook cannot be read.
    """
    folder = _channel.job_folder()
    if request_type != "get_ipynb" or folder is None:
        return None
    return {"ipynb": _json.loads((folder / _NOTEBOOK).read_bytes())}
