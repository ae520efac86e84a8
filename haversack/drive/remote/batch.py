"""Batch requests: up to 100 API requests in one HTTP request, encoded as `multipart/mixed`.

Protocol: https://developers.google.com/workspace/drive/api/guides/performance#batch-requests. Each part of the response
has its own status. A batch cannot carry file content. It saves round trips only: each part counts against the quota as
one request.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from email import message_from_bytes
from typing import Any

from yarl import URL

from haversack.answer import Answer
from haversack.drive.remote.calls import Call
from haversack.errors import RemoteError

PATH = "/batch/drive/v3"
LIMIT = 100
"""Maximum number of requests in one batch."""


def encode(calls: Sequence[Call[Any]]) -> tuple[str, bytes]:
    """Return the `Content-Type` and the body of the batch request for `calls`.

    The part of the call N, counted from 0, has the Content-ID `<N>`.
    """
    boundary = f"batch_{secrets.token_hex(16)}"
    parts = [_part(boundary, number, call) for number, call in enumerate(calls)]
    return f"multipart/mixed; boundary={boundary}", b"".join(parts) + f"--{boundary}--\r\n".encode()


def decode(answer: Answer, count: int) -> list[Answer | None]:
    """Split the response to a batch request of `count` calls into the responses to each, in the order of the calls.

    A part that is missing from the response is None. Raises `RemoteError` if the response is not multipart.
    """
    head = f"Content-Type: {answer.headers.get('Content-Type', '')}\r\n\r\n".encode()
    whole = message_from_bytes(head + answer.body)
    if not whole.is_multipart():
        raise RemoteError(
            "The drive's response to a batch request is not multipart.",
            "Check the drive's address: another server may be there.",
        )
    answers: list[Answer | None] = [None] * count
    for part in whole.walk():
        number = str(part.get("Content-ID", "")).strip("<> ").removeprefix("response-")
        text = part.get_payload(decode=True)
        if number.isdigit() and int(number) < count and isinstance(text, bytes):
            answers[int(number)] = _parse_part(text)
    return answers


def _part(boundary: str, number: int, call: Call[Any]) -> bytes:
    target = URL(call.path).update_query(call.params).raw_path_qs if call.params else call.path
    head = f"--{boundary}\r\nContent-Type: application/http\r\nContent-ID: <{number}>\r\n\r\n"
    head += f"{call.method} {target} HTTP/1.1\r\n"
    if call.json is None:
        return f"{head}\r\n\r\n".encode()
    body = json.dumps(call.json)
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}\r\n".encode()


def _parse_part(text: bytes) -> Answer:
    """Parse the HTTP response inside one part; a status line without a number counts as 502."""
    head, _, body = text.replace(b"\r\n", b"\n").partition(b"\n\n")
    first, *rest = head.decode(errors="replace").split("\n")
    words = first.split(" ", 2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 502
    headers = {name.strip().title(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    return Answer(status, headers, body)
