"""What a service answered, and what that means: the exception for it, and whether asking again can help.

Google's and Kaggle's error bodies are told apart by their shape. Reasons:
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
    """A whole answer: status, headers, and the body's bytes."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> dict[str, Any]:
        """The body's JSON object, {} for an empty body. Raises `RemoteError` where it is something else."""
        try:
            found = json.loads(self.body) if self.body else {}
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise RemoteError(
                "The server's answer is not one of its API.", "Check the address: another server may be there."
            )
        return found

    @property
    def retry_after(self) -> float:
        """Seconds that the server wants to be left alone for; 0 where it does not say."""
        said = self.headers.get("Retry-After", "")
        return float(said) if said.isascii() and said.isdigit() else 0.0


Ask = Callable[[str, str, bytes | None, Mapping[str, str]], Answer]
"""One call (method, URL, body, headers) for who has no client of their own; from any thread but the loop's."""


def error_of(answer: Answer, name: str) -> RemoteError | SignInError:
    """The exception for an answer that is an error, from its status and the reason in Google's or Kaggle's body."""
    message, reason = _message_and_reason(answer)
    said = f"The {name} answered {answer.status}: {message}."
    if answer.status == 401:
        return SignInError(
            f"The {name} refused the sign-in: {message}.", "Check HAVERSACK_TOKEN, or sign in anew: haversack login"
        )
    if answer.status == 403 and reason in _SCOPE:
        return SignInError(f"The sign-in does not reach that far: {message}.", "Sign in anew: haversack login google")
    if answer.status == 404:
        return NotFound(said, "Check the name; a private one needs its owner's sign-in.", status=404, reason=reason)
    if answer.status == 409:
        return AlreadyExists(said, "Choose another name.", status=409, reason=reason)
    if answer.status == 507 or reason in _QUOTA:
        return QuotaExceeded(said, "Free space on the drive, its trash included.", status=answer.status, reason=reason)
    if answer.status == 429 or reason in _RATE:
        return RateLimited(said, "Wait a minute and try again.", status=answer.status, reason=reason)
    if answer.status == 403:
        return Forbidden(said, "Ask its owner for access.", status=403, reason=reason)
    return RemoteError(said, status=answer.status, reason=reason)


def is_passing(failure: Exception, repeatable: bool = True) -> bool:
    """Whether the same call may succeed later. A rate limit was not carried out, so it may always be repeated."""
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
        return text if text and not text.startswith("<") else "no explanation in plain words", ""
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return str(error)[:200], ""
    reasons = [entry.get("reason", "") for entry in error.get("errors") or [] if isinstance(entry, dict)]
    return str(error.get("message") or "no explanation").rstrip("."), reasons[0] if reasons else ""
