"""An answer that is an error, in Google's words and in Kaggle's.

Google's body is the one of https://developers.google.com/workspace/drive/api/guides/handle-errors.
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
    """A call is answered with `status`; `reason` is Google's word for it, `message` one plain sentence."""

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
        """Google's error body; `where` names the parameter that is at fault."""
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
        return {"code": self.status, "message": self.message}


def invalid(message: str, where: str | None = None) -> Refusal:
    return Refusal(400, "invalid", message, where=where)


def not_found(file_id: str) -> Refusal:
    return Refusal(404, "notFound", f"File not found: {file_id}.", where="fileId")


def unsupported(what: str) -> Refusal:
    return Refusal(501, "notImplemented", f"The hub does not support {what}.")


def of_disk(error: OSError) -> Refusal | None:
    """The refusal for what a disk does not allow; None for any other error."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Refusal(403, "storageQuotaExceeded", "The disk of the hub is full.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Refusal(403, "insufficientFilePermissions", "The hub's own user may not do that in its folder.")
    if error.errno == errno.ENAMETOOLONG:
        return invalid("The path is longer than the hub's disk allows.", "name")
    return None
