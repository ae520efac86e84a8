"""An error response, in Google's format and in Kaggle's.

Google's format is described in https://developers.google.com/workspace/drive/api/guides/handle-errors.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

_USAGE_LIMITS = {
    "dailyLimitExceeded", "rateLimitExceeded", "sharingRateLimitExceeded", "storageQuotaExceeded",
    "userRateLimitExceeded",
}  # fmt: skip


class Refusal(Exception):
    """Ends a call with an error response: HTTP status, Google's `reason` and a `message` of one sentence.

    `where` names the parameter or header at fault; `headers` are added to the response. It never leaves the server.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        where: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.where = where
        self.headers = dict(headers or {})

    def as_google(self) -> dict[str, Any]:
        """Return Google's error body."""
        detail: dict[str, Any] = {
            "message": self.message,
            "domain": "usageLimits" if self.reason in _USAGE_LIMITS else "global",
            "reason": self.reason,
        }
        if self.where:
            detail["location"] = self.where
            detail["locationType"] = "header" if self.where in ("Authorization", "Range") else "parameter"
        return {"error": {"code": self.status, "message": self.message, "errors": [detail]}}

    def as_kaggle(self) -> dict[str, Any]:
        """Return Kaggle's error body."""
        return {"code": self.status, "message": self.message}


def invalid(message: str, where: str | None = None) -> Refusal:
    """Return a 400 error with the reason `invalid`."""
    return Refusal(400, "invalid", message, where=where)


def not_found(file_id: str) -> Refusal:
    """Return Drive's 404 error for a file id."""
    return Refusal(404, "notFound", f"File not found: {file_id}.", where="fileId")


def unsupported(what: str) -> Refusal:
    """Return a 501 error for a feature that the hub does not have."""
    return Refusal(501, "notImplemented", f"The hub does not support {what}.")


def from_os_error(error: OSError) -> Refusal | None:
    """Return the error for a full disk, missing permissions or a path that is too long; None for other errors."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Refusal(403, "storageQuotaExceeded", "The hub's disk is full.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Refusal(
            403,
            "insufficientFilePermissions",
            "The user that runs the hub has no permission for this in the hub's folder.",
        )
    if error.errno == errno.ENAMETOOLONG:
        return invalid("The path is longer than the hub's file system allows.", "name")
    return None
