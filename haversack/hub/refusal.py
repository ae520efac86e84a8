"""Errors of the hub: an exception that becomes an error response, in Google's format or in Kaggle's.

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
    """Ends a call with an error response, which the server's middleware makes of it.

    Args:
        status: the HTTP status.
        reason: Google's name of the error, such as `notFound`; Kaggle's format omits it.
        message: one sentence for the user.
        where: the parameter or header at fault.
        headers: headers to add to the response.
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
        """Return the JSON of the error body in Google's format."""
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
        """Return the JSON of the error body in Kaggle's format."""
        return {"code": self.status, "message": self.message}


def invalid(message: str, where: str | None = None) -> Refusal:
    """Return a 400 error with the reason `invalid`; `where` names the parameter or header at fault."""
    return Refusal(400, "invalid", message, where=where)


def not_found(file_id: str) -> Refusal:
    """Return Drive's 404 error for a file id that does not exist."""
    return Refusal(404, "notFound", f"File not found: {file_id}.", where="fileId")


def unsupported(what: str) -> Refusal:
    """Return a 501 error for a feature that the hub does not have; `what` names it: "The hub does not support …"."""
    return Refusal(501, "notImplemented", f"The hub does not support {what}.")


def from_os_error(error: OSError) -> Refusal | None:
    """Return the 403 error for a full disk or missing permissions, or the 400 error for a path that is too long.

    Returns None for any other error.
    """
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
