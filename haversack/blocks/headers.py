"""What a storage server's response headers say about a file.

The headers are those of RFC 9110 (https://www.rfc-editor.org/rfc/rfc9110) and `x-goog-hash` of Google Cloud Storage
(https://cloud.google.com/storage/docs/xml-api/reference-headers#xgooghash).
"""

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
    """A file according to its server.

    Attributes:
        size: the size of the whole file in bytes.
        tag: a string that changes when the content does: the `ETag`, else `Last-Modified`, else "".
        md5: the MD5 of the whole file in hex; None if the server does not send it.
        ranges: whether the response was a range (status 206), so that the server answers range requests.
    """

    size: int
    tag: str
    md5: str | None
    ranges: bool


def parse_content_info(response: aiohttp.ClientResponse, name: str) -> ContentInfo:
    """Return what the headers of `response`, to a range request, say; `name` is the file's name for error messages.

    Raises `RemoteError` if they do not contain the size of the whole file.
    """
    headers = response.headers
    ranges = response.status == 206
    size = _total_size(headers) if ranges else headers.get("Content-Length")
    if size is None:
        raise RemoteError(f"The server does not send the size of {name}.", "Try again later.", status=response.status)
    return ContentInfo(int(size), headers.get("ETag") or headers.get("Last-Modified") or "", _md5(headers), ranges)


def range_start(headers: Mapping[str, str]) -> int:
    """Return the offset in the file of the first byte of a 206 response, from its `Content-Range`, which must exist."""
    return int(headers["Content-Range"].split()[1].split("-")[0])


def _total_size(headers: Mapping[str, str]) -> str | None:
    found = re.fullmatch(r"bytes \d+-\d+/(\d+)", headers.get("Content-Range", ""))
    return found and found[1]


def _md5(headers: CIMultiDictProxy[str]) -> str | None:
    """Return the MD5 in hex from one or more headers `x-goog-hash: crc32c=…,md5=…`; composite objects have none."""
    found = re.search(r"md5=([A-Za-z0-9+/=]+)", ",".join(headers.getall("x-goog-hash", [])))
    try:
        return base64.b64decode(found[1], validate=True).hex() if found else None
    except binascii.Error:
        return None
