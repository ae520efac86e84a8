"""A known secret in every spelling: plain, JSON, HTML, URL, repr, base64 and hex, also one inside another."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote, quote_plus

import pytest

from haversack.notebook.secrets.masking import Secrets
from haversack.notebook.secrets.spellings import spellings
from tests.notebook.secrets.steps import Engine

VALUES = [
    "hunter-two",
    'pa"ss<word>/1',
    "it's & that's, 100% sure?",
    "back\\slash\\\\and\ttab",
    "a+b/c==d?e=f",
    "Schlüssel €uro 🔑 ok",
    "x" * 3 + "\u007f" + "y/z",
    "5ome-l0nger~value_with.all=kinds:of;signs!*'()@#$^|{}[]`",
]
ENCODERS = {
    "plain": str,
    "JSON": lambda value: json.dumps(value)[1:-1],
    "JSON, not ASCII": lambda value: json.dumps(value, ensure_ascii=False)[1:-1],
    "JSON twice": lambda value: json.dumps(json.dumps(value)[1:-1])[1:-1],
    "JSON with escaped slashes": lambda value: json.dumps(value)[1:-1].replace("/", "\\/"),
    "HTML": html.escape,
    "HTML, text only": lambda value: html.escape(value, quote=False),
    "HTML twice": lambda value: html.escape(html.escape(value)),
    "JSON in HTML": lambda value: html.escape(json.dumps(value))[6:-6],
    "HTML in JSON": lambda value: json.dumps(html.escape(value))[1:-1],
    "JSON for scripts": lambda value: json.dumps(value)[1:-1].replace("<", "\\u003c").replace("&", "\\u0026"),
    "URL": lambda value: quote(value, safe=""),
    "URL, path": quote,
    "URL, form": quote_plus,
    "URL, JavaScript": lambda value: quote(value, safe="!'()*~"),
    "URL twice": lambda value: quote(quote(value, safe=""), safe=""),
    "URL, lower case": lambda value: _lower_percent(quote(value, safe="")),
    "repr": lambda value: repr(value)[1:-1],
    "repr of repr": lambda value: repr(repr(value)[1:-1])[1:-1],
    "repr of bytes": lambda value: repr(value.encode())[2:-1],
    "hex": lambda value: value.encode().hex(),
    "HEX": lambda value: value.encode().hex().upper(),
}


def _lower_percent(text: str) -> str:
    first, *others = text.split("%")
    return "%".join([first, *(other[:2].lower() + other[2:] for other in others)])


def masked(value: str, text: str) -> str:
    secrets = Secrets()
    secrets.add(value)
    return secrets.mask(text)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("value", VALUES)
def test_every_spelling_is_masked_whole(value: str, encoder: str) -> None:
    assert masked(value, f"<{ENCODERS[encoder](value)}>") == "<***>"


@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "user:", "Ada Lovelace:", "long.name@example.com:"])
@pytest.mark.parametrize("after", ["", "\n", "!!", "and more"])
@pytest.mark.parametrize("value", ["hunter-two", "s3same", "a+b/c==d?e=f", "Schlüssel €uro 🔑 ok"])
def test_base64_is_masked_whatever_is_encoded_with_it(value: str, before: str, after: str) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        encoded = encode(f"{before}{value}{after}".encode()).decode()
        for text in (encoded, quote(encoded, safe=""), json.dumps(encoded).replace("/", "\\/")):
            shown = masked(value, text)
            assert "***" in shown
            kept = shown.strip('"').split("***")
            # Nothing is left but what encodes the neighbours.
            assert len(kept[0]) <= -(-len(before.encode()) * 4 // 3) + 1
            assert len(kept[1].rstrip("=%3D")) <= -(-len(after.encode()) * 4 // 3) + 1


def test_a_number_is_masked_by_itself_only() -> None:
    assert masked("83629174", "PIN 83629174, id=83629174.") == "PIN ***, id=***."
    assert masked("83629174", "0.83629174 1836291745 v83629174") == "0.83629174 1836291745 v83629174"


def test_what_occurs_in_ordinary_text_is_left_alone() -> None:
    assert masked("aaaaaaaa", "data:image/png;base64,aaaaaaaaaaaa") == "data:image/png;base64,aaaaaaaaaaaa"
    assert masked("abcde", "abcde") == "abcde"


@pytest.mark.parametrize("value", ["hunter-two", 'p"s&<d>/1', "\\" * 9 + '"' * 9])
def test_steps_grow_with_the_text_only(value: str) -> None:
    pieces = [value[:-1], value[0], "\\", "&amp;", json.dumps(value[:-1])]
    for spelling in spellings(value):
        for piece in pieces:
            count = max(4, 60 // len(piece))  # longer than the most backslashes that are read
            short, long = _steps(spelling.pattern, piece * count), _steps(spelling.pattern, piece * count * 4)
            assert long <= 6 * short + 500, (piece, short, long)


def _steps(pattern: object, text: str) -> int:
    engine = Engine(pattern)  # type: ignore[arg-type]
    at = 0
    while at < len(text):
        end = engine.match(text, at)
        at = max(end or 0, at + 1)
    return engine.steps
