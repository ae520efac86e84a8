"""How a known secret may be written in a text: as it is, and as JSON, HTML, URLs, `repr`, base64 and hex write it.

A text may be escaped more than once, such as JSON in a string of JSON or in HTML, and encoders differ in what they
escape. So each character of the secret may have any of its spellings, whatever those of its neighbours are. In base64,
bytes before the secret shift its bits, so there are three spellings, of which the characters at both ends also hold
bits of the neighbours: base64 of `user:secret` contains one of them.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.entities import codepoint2name

# So many backslashes stand before a character in a string that was escaped three times.
_ESCAPES = r"\\{0,7}"
_MAX_BACKSLASHES = 16
_CONTROLS = {"\n": "n", "\r": "r", "\t": "t"}
_ENTITIES = {ord("'"): "apos"} | codepoint2name
# Base64 for URLs has other characters (RFC 4648, section 5).
_FOR_URLS = {"+": "-", "/": "_"}
_IN_BASE64 = "[A-Za-z0-9+/_-]"
# Fewer digits occur by chance in base64 of something else. A secret of 6 characters has as many, wherever it stands.
_MIN_BASE64 = 7


@dataclass(frozen=True)
class Spelling:
    """One spelling of a secret.

    Attributes:
        anchor: what every text contains that has this spelling; "" if nothing is sure.
        pattern: what it looks like.
    """

    anchor: str
    pattern: re.Pattern[str]

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield where it starts and ends in `text`, each time that it occurs."""
        if self.anchor in text:
            for found in self.pattern.finditer(text):
                yield found.span()


def spellings(value: str) -> list[Spelling]:
    """Return all spellings of a secret."""
    encoded = value.encode("utf-8", "surrogatepass")
    plain = _pattern(value)
    if value.isdecimal():
        # Part of a longer number is a number.
        plain = rf"(?<!\w)(?<!\d\.){plain}(?!\w|\.\d)"
    found = [Spelling(_anchor(value), re.compile(plain))]
    found += [Spelling(digits, re.compile(digits)) for digits in {encoded.hex(), encoded.hex().upper()}]
    return found + [spelling for shift in range(3) for spelling in _base64(encoded, shift)]


def _base64(value: bytes, shift: int) -> list[Spelling]:
    """Return the spelling of `value` behind `shift` other bytes, modulo 3, in base64; [] if it is too short."""
    last = (shift + len(value)) * 8 % 6
    digits = base64.b64encode(bytes(shift) + value).rstrip(b"=").decode()
    # The digit at an end that also holds bits of other bytes may be any.
    core = digits[shift + 1 if shift else 0 : -1 if last else None]
    if len(core) < _MIN_BASE64:
        return []
    pattern = "".join(f"(?:{_FOR_URLS[digit]}|{_spelled(digit)})" if digit in _FOR_URLS else digit for digit in core)
    before, after = f"{_IN_BASE64}?" if shift else "", f"{_IN_BASE64}?" if last else ""
    return [Spelling(_anchor(core), re.compile(before + pattern + after))]


def _anchor(value: str) -> str:
    """The longest run of ASCII letters and digits in `value`: no encoder changes them."""
    return max(re.findall("[A-Za-z0-9]+", value), key=len, default="")


def _pattern(value: str) -> str:
    """A pattern for `value` in which each character may have any of its spellings."""
    # Backslashes in a row are one element, of any number, as each may be doubled.
    return "".join(_spelled(character) for character in re.sub(r"\\+", r"\\", value))


def _spelled(character: str) -> str:
    """A pattern for the spellings of one character."""
    if character.isascii() and character.isalnum():
        return character
    times = f"{{1,{_MAX_BACKSLASHES}}}" if character == "\\" else ""
    return f"(?:{'|'.join(_alternatives(character))}){times}"


def _alternatives(character: str) -> Iterator[str]:
    """Yield patterns for the spellings of a character that encoders may change."""
    number, octets = ord(character), character.encode("utf-8", "surrogatepass")
    if character == "&":
        yield rf"{_ESCAPES}&(?:amp;){{0,3}}"
    elif character != "\\":
        yield _ESCAPES + re.escape(character)
    if character in _CONTROLS:
        yield rf"\\{_ESCAPES}{_CONTROLS[character]}"
    if character == " ":
        yield r"\+"
    if number in _ENTITIES:
        yield rf"{_ESCAPES}&(?:amp;){{0,2}}{_ENTITIES[number]};"
    yield rf"(?i:{_ESCAPES}&(?:amp;){{0,2}}\#(?:0{{0,4}}{number}|x0{{0,4}}{number:x});)"
    yield rf"(?i:\\{_ESCAPES}(?:u{number:04x}|U{number:08x}|x{number:02x}))"
    if number > 0x7F:
        yield "(?i:" + "".join(rf"\\{_ESCAPES}x{octet:02x}" for octet in octets) + ")"
    if number > 0xFFFF:
        high, low = 0xD800 + (number - 0x10000 >> 10), 0xDC00 + (number & 0x3FF)
        yield rf"(?i:\\{_ESCAPES}u{high:04x}\\{_ESCAPES}u{low:04x})"
    yield "(?i:" + "".join(f"%(?:25){{0,2}}{octet:02x}" for octet in octets) + ")"
    if character == "\\":
        yield r"\\"
