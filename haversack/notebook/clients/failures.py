"""Exceptions as JSON, so that an error in one process is raised as itself in another."""

from __future__ import annotations

import builtins
from typing import Any

from haversack import errors
from haversack.errors import HaversackError, RemoteError


def encode(error: Exception) -> dict[str, Any]:
    """Return an exception as a JSON object, for `decode`."""
    record: dict[str, Any] = {"kind": type(error).__name__, "message": str(error)}
    if isinstance(error, HaversackError):
        record |= {"what": error.what, "next_step": error.next_step}
    elif isinstance(error, OSError) and error.errno is not None:
        record |= {"errno": error.errno, "strerror": error.strerror, "filename": _text(error.filename)}
    if isinstance(error, RemoteError):
        record |= {"status": error.status, "reason": error.reason}
    return record


def decode(record: dict[str, Any]) -> Exception:
    """Return the exception that `encode` was given: a `HaversackError` of the same class, an `OSError`, a `ValueError`.

    Any other becomes a `HaversackError` that names its class, since a caller can do nothing particular about it.
    """
    kind = getattr(errors, record["kind"], None)
    if "what" in record and isinstance(kind, type) and issubclass(kind, HaversackError):
        sentences = record["what"], record["next_step"]
        if issubclass(kind, RemoteError):
            return kind(*sentences, status=record["status"], reason=record["reason"])
        return kind(*sentences)
    if "errno" in record:
        return OSError(record["errno"], record["strerror"], record["filename"])  # Python picks the subclass by errno
    kind = getattr(builtins, record["kind"], None)
    if isinstance(kind, type) and issubclass(kind, OSError | ValueError):
        return kind(record["message"])
    return HaversackError(
        f"A client of haversack failed with {record['kind']}: {record['message']}.", "Its traceback is printed above."
    )


def _text(filename: Any) -> str | None:
    return None if filename is None else str(filename)
