"""`google.colab.auth`: sign-in. Here the sign-in is that of the drive, found by `haversack.credentials`.

If that is Google's, `google.auth.default()` finds it too: by `GOOGLE_APPLICATION_CREDENTIALS` if it is a key file,
which is not copied, else by a file in the job's HOME, which the parent deletes when the session ends.
"""

from __future__ import annotations

import json as _json
import os as _os
from pathlib import Path as _Path
from typing import Any as _Any

from haversack.errors import HaversackError as _HaversackError
from haversack.notebook.colab import errors as _errors

__all__ = ["authenticate_service_account", "authenticate_user"]


def authenticate_user(clear_output: bool = True, project_id: str | None = None) -> None:
    """Find the sign-in to the drive, and let `google.auth.default()` find it if it is Google's. It is not tried.

    Its secrets are masked in outputs from then on. With a hub, a sentence says what the sign-in is good for.
    `project_id` becomes the default project of Google's libraries; `clear_output` has no effect. Raises
    `errors.AuthorizationError` if no drive can be chosen, for example because nobody is signed in.
    """
    from haversack.notebook.clients import client as _client
    from haversack.notebook.secrets import watch as _watch

    try:
        signed_in = _client.call("sign_in")
    except _HaversackError as error:
        raise _errors.AuthorizationError(str(error)) from error
    _watch.report(*signed_in["secrets"])
    if project_id:
        _os.environ["GOOGLE_CLOUD_PROJECT"] = project_id
    if not signed_in["is_google"]:
        print(
            f"Signed in to the {signed_in['name']}, for drive.mount. Google's own services need: haversack login google"
        )
    elif "HAVERSACK_JOB" in _os.environ:
        _set_default(signed_in["file"], signed_in["content"], _Path.home() / signed_in["place"])


def _set_default(file: str | None, content: dict[str, _Any] | None, path: _Path) -> None:
    """Let `google.auth.default()` find a sign-in, in this process and in those that it starts.

    `file` is a file of credentials that exists; without one, `content` is written to `path`.
    """
    if file is not None:
        _os.environ.setdefault("GOOGLE_APPLICATION_CREDENTIALS", file)
    elif content:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _os.open(path, _os.O_WRONLY | _os.O_CREAT | _os.O_TRUNC, 0o600)
        with open(descriptor, "w") as opened:
            _json.dump(content, opened)


def authenticate_service_account(clear_output: bool = True) -> None:
    """Raise `errors.AuthorizationError`: there is no Colab page that could ask for a service account's key."""
    raise _errors.AuthorizationError(
        "A service account cannot be signed in from a page here. Name a hub with --hub URL or HAVERSACK_HUB."
    )
