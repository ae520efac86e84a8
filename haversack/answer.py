"""The answer to an HTTP call, the exception for an error answer, and whether a retry can help.

The reason of an error is read from the JSON bodies of Google's and Kaggle's APIs. Google's reasons:
https://developers.google.com/workspace/drive/api/guides/handle-errors
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from haversack.errors import (
    AlreadyExists,
    Forbidden,
    NotFound,
    QuotaExceeded,
    RateLimited,
    RemoteError,
    SignInError,
)

_RATE = {"rateLimitExceeded", "userRateLimitExceeded"}
_QUOTA = {
    "activeItemCreationLimitExceeded",
    "myDriveHierarchyDepthLimitExceeded",
    "numChildrenInNonRootLimitExceeded",
    "storageQuotaExceeded",
    "teamDriveFileLimitExceeded",
}
_SCOPE = {"ACCESS_TOKEN_SCOPE_INSUFFICIENT", "insufficientPermissions", "insufficientScopes"}


@dataclass(frozen=True)
class Answer:
    """A whole answer: status, headers and body."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> dict[str, Any]:
        """The body as a JSON object, {} if it is empty. Raises `RemoteError` if it is anything else."""
        try:
            found = json.loads(self.body) if self.body else {}
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise RemoteError(
                "The server's answer is not a JSON object, as its API has them.",
                "Check the address: another server may be running there.",
            )
        return found

    @property
    def retry_after(self) -> float:
        """The header `Retry-After` in seconds; 0 if it is missing or gives a date."""
        said = self.headers.get("Retry-After", "")
        return float(said) if said.isascii() and said.isdigit() else 0.0


Ask = Callable[[str, str, bytes | None, Mapping[str, str]], Answer]
"""Sends one call (method, URL, body, headers) and blocks; not to be called on the event loop's thread."""


def error_of(answer: Answer, name: str) -> RemoteError | SignInError:
    """The exception for an error answer of the service `name`, by its status and the reason in its body.

    401 and a missing OAuth scope give `SignInError`, 404 `NotFound`, 409 `AlreadyExists`, 507 and Google's limits on
    space and number of files `QuotaExceeded`, 429 and Google's rate limits `RateLimited`, any other 403 `Forbidden`,
    and everything else `RemoteError`.
    """
    message, reason = _message_and_reason(answer)
    said = f"The {name} answered {answer.status}: {message}."
    if answer.status == 401:
        return SignInError(
            f"The {name} refused the sign-in: {message}.", "Check HAVERSACK_TOKEN, or sign in anew: haversack login"
        )
    if answer.status == 403 and reason in _SCOPE:
        return SignInError(f"The sign-in does not cover this: {message}.", "Sign in anew: haversack login google")
    if answer.status == 404:
        return NotFound(said, "Check the name; if it is private, sign in as its owner.", status=404, reason=reason)
    if answer.status == 409:
        return AlreadyExists(said, "Choose another name.", status=409, reason=reason)
    if answer.status == 507 or reason in _QUOTA:
        return QuotaExceeded(
            said, "Free space on the drive; its trash counts too.", status=answer.status, reason=reason
        )
    if answer.status == 429 or reason in _RATE:
        return RateLimited(said, "Wait a minute and try again.", status=answer.status, reason=reason)
    if answer.status == 403:
        return Forbidden(said, "Ask its owner for access.", status=403, reason=reason)
    return RemoteError(said, status=answer.status, reason=reason)


def is_retryable(failure: Exception, repeatable: bool = True) -> bool:
    """Whether a call that was answered with the error `failure` may be sent again.

    `RateLimited` always, because the call was not carried out. Otherwise a status of 500 or more, except
    `QuotaExceeded`, if the call is `repeatable`: carrying it out twice does no harm. Network failures are not judged
    here but in `http`.
    """
    if isinstance(failure, RateLimited):
        return True
    if not repeatable or isinstance(failure, QuotaExceeded):
        return False
    return isinstance(failure, RemoteError) and failure.status >= 500


def _message_and_reason(answer: Answer) -> tuple[str, str]:
    try:
        body = json.loads(answer.body or b"{}")
    except ValueError:
        text = " ".join(answer.body[:200].decode(errors="replace").split())
        return text if text and not text.startswith("<") else "no explanation", ""
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return str(error)[:200], ""
    reasons = [entry.get("reason", "") for entry in error.get("errors") or [] if isinstance(entry, dict)]
    return str(error.get("message") or "no explanation").rstrip("."), reasons[0] if reasons else ""
