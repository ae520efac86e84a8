"""Up to a hundred calls in one: `multipart/mixed` bodies whose parts are HTTP requests and answers.

Protocol: https://developers.google.com/workspace/drive/api/guides/performance#batch-requests. Each part has a status of
its own. A batch carries no media, and saves round trips only: each part counts against the quota as a call.
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
"""How many calls one batch holds at most."""


def encoded(calls: Sequence[Call[Any]]) -> tuple[str, bytes]:
    """The Content-Type and body of a batch; the parts are numbered in their order."""
    edge = f"batch_{secrets.token_hex(16)}"
    parts = [_part(edge, number, call) for number, call in enumerate(calls)]
    return f"multipart/mixed; boundary={edge}", b"".join(parts) + f"--{edge}--\r\n".encode()


def decoded(answer: Answer, count: int) -> list[Answer | None]:
    """The answers to `count` numbered parts, in order; None for one that is missing.

    Raises `RemoteError` when the whole is no answer to a batch.
    """
    head = f"Content-Type: {answer.headers.get('Content-Type', '')}\r\n\r\n".encode()
    whole = message_from_bytes(head + answer.body)
    if not whole.is_multipart():
        raise RemoteError("The drive's answer to a batch of calls has no parts.", "Check the address.")
    answers: list[Answer | None] = [None] * count
    for part in whole.walk():
        number = str(part.get("Content-ID", "")).strip("<> ").removeprefix("response-")
        text = part.get_payload(decode=True)
        if number.isdigit() and int(number) < count and isinstance(text, bytes):
            answers[int(number)] = _answer(text)
    return answers


def _part(edge: str, number: int, call: Call[Any]) -> bytes:
    target = URL(call.path).update_query(call.params).raw_path_qs if call.params else call.path
    head = f"--{edge}\r\nContent-Type: application/http\r\nContent-ID: <{number}>\r\n\r\n"
    head += f"{call.method} {target} HTTP/1.1\r\n"
    if call.json is None:
        return f"{head}\r\n\r\n".encode()
    body = json.dumps(call.json)
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}\r\n".encode()


def _answer(text: bytes) -> Answer:
    """The HTTP answer that one part holds."""
    head, _, body = text.replace(b"\r\n", b"\n").partition(b"\n\n")
    first, *rest = head.decode(errors="replace").split("\n")
    words = first.split(" ", 2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 502
    headers = {name.strip().title(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    return Answer(status, headers, body)
