"""PNGs with their pixels stored instead of deflated, which are decoded in three quarters of the time.

Nearly half of what decoding a PNG costs is zlib's inflating. ISA-L inflates in half of zlib's time, and what it gives
is put back into a PNG in stored blocks (RFC 1951, 3.2.4), which a decoder only copies before it undoes the rows'
filters. All checksums are compared on the way: what is not as it should be is left to a decoder that tells what is
wrong.

Only the commonest kinds are taken on: 8-bit grey and RGB, not interlaced, without a chunk that changes what the pixels
are (W3C, Portable Network Graphics, third edition). Other chunks are left out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import cast

from isal import isal_zlib

# Its stubs take the exception for an instance.
_DAMAGE = cast(type[Exception], isal_zlib.error)
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">L4sLL5BL")
_CHUNK = struct.Struct(">L4s")
_END = b"\0\0\0\0IEND\xae\x42\x60\x82"
_CHANNELS = {0: 1, 2: 3}
# Nothing that trains has more pixels; a file that claims to is made to fill the memory.
_LARGEST = 1 << 28
_BLOCK = 0xFFFF


def stored(data: bytes) -> bytes | None:
    """The PNG `data` as one whose pixels are stored; None for every other file, and for one that is damaged."""
    if data[:8] != _SIGNATURE or len(data) < 8 + _HEADER.size:
        return None
    length, kind, width, height, depth, color, *methods, _ = _HEADER.unpack_from(data, 8)
    if (length, kind, depth, methods) != (13, b"IHDR", 8, [0, 0, 0]) or color not in _CHANNELS:
        return None
    if not 0 < width * height <= _LARGEST or (deflated := _pixels(data)) is None:
        return None
    size = (width * _CHANNELS[color] + 1) * height
    inflating = isal_zlib.decompressobj()
    try:
        rows = inflating.decompress(deflated, size + 1)
    except _DAMAGE:
        return None
    if len(rows) != size or not inflating.eof or inflating.unused_data:
        return None
    body = b"".join([b"IDAT\x78\x01", *_blocks(rows), deflated[-4:]])
    crc = struct.pack(">L", isal_zlib.crc32(body))
    return b"".join([data[: 8 + _HEADER.size], struct.pack(">L", len(body) - 4), body, crc, _END])


def _pixels(data: bytes) -> bytes | None:
    """What the IDAT chunks hold; None where one is damaged, the end is missing, or a chunk changes what pixels are."""
    found: list[bytes] = []
    at = 8 + _HEADER.size
    while at + 12 <= len(data):
        length, kind = _CHUNK.unpack_from(data, at)
        if kind == b"IEND":
            return b"".join(found)
        if kind in (b"tRNS", b"eXIf"):
            return None
        if kind == b"IDAT":
            end = at + 8 + length
            if isal_zlib.crc32(data[at + 4 : end]).to_bytes(4) != data[end : end + 4]:
                return None
            found.append(data[at + 8 : end])
        at += 12 + length
    return None


def _blocks(rows: bytes) -> Iterator[bytes]:
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        yield struct.pack("<BHH", start + _BLOCK >= len(rows), len(block), len(block) ^ _BLOCK)
        yield block
