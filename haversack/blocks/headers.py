"""What storage says of a file in the headers of its answers (RFC 9110; `x-goog-hash` as in Google Cloud Storage)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from multidict import CIMultiDictProxy

from haversack.errors import RemoteError


@dataclass(frozen=True)
class ContentInfo:
    """A file as storage speaks of it: its size in bytes, a tag that changes with its bytes, its md5 in hex if known.

    `ranges` says whether a part of it can be asked for.
    """

    size: int
    tag: str
    md5: str | None
    ranges: bool


def content_of(response: aiohttp.ClientResponse, name: str) -> ContentInfo:
    """The file that an answer is about. Raises `RemoteError` where it does not say how large that is."""
    headers = response.headers
    ranges = response.status == 206
    size = _total(headers) if ranges else headers.get("Content-Length")
    if size is None:
        raise RemoteError(f"The server does not say how large {name} is.", "Try again later.", status=response.status)
    return ContentInfo(
        int(size), headers.get("ETag") or headers.get("Last-Modified") or "", _md5_named(headers), ranges
    )


def range_start(headers: Mapping[str, str]) -> int:
    """The first byte of a partial answer."""
    return int(headers["Content-Range"].split()[1].split("-")[0])


def _total(headers: Mapping[str, str]) -> str | None:
    found = re.fullmatch(r"bytes \d+-\d+/(\d+)", headers.get("Content-Range", ""))
    return found and found[1]


def _md5_named(headers: CIMultiDictProxy[str]) -> str | None:
    """The md5 in hex from `x-goog-hash: crc32c=…,md5=…`, in one header or several; composite objects have none."""
    found = re.search(r"md5=([A-Za-z0-9+/=]+)", ",".join(headers.getall("x-goog-hash", [])))
    try:
        return base64.b64decode(found[1], validate=True).hex() if found else None
    except binascii.Error:
        return None
