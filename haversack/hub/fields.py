"""The language of `fields`, Google's partial responses: `files(id,owners/displayName),nextPageToken`, `*`.

See https://developers.google.com/workspace/drive/api/guides/fields-parameter. A mask is a dict of names; what is under
a name is the mask below it, `{"*": …}` stands for everything.
"""

from __future__ import annotations

import re
from typing import Any

from haversack.hub.refusal import Refusal

Mask = dict[str, Any]

_TOKEN = re.compile(r"\s*([A-Za-z0-9_.-]+|[*/(),])")


def parse(text: str) -> Mask:
    """The mask that `text` says. Raises `Refusal` where it does not follow the grammar."""
    tokens = _TOKEN.findall(text)
    if not tokens or "".join(tokens) != re.sub(r"\s+", "", text):
        raise _malformed(text)
    mask, rest = _selection(tokens, text, 0)
    if rest:
        raise _malformed(text)
    return mask


def check(mask: Mask, known: frozenset[str]) -> None:
    """Refuse names that the resource does not have; a misspelt one would silently answer nothing."""
    for name in mask:
        if name != "*" and name not in known:
            raise Refusal(400, "invalidParameter", f"Invalid field selection {name[:100]}", where="fields")


def wants(mask: Mask, *path: str) -> bool:
    """Whether an answer cut to `mask` can still hold what is at `path`."""
    for name in path:
        if mask == {} or "*" in mask:
            return True
        if name not in mask:
            return False
        mask = mask[name]
    return True


def kept(answer: dict[str, Any], mask: Mask) -> dict[str, Any]:
    """What the mask names of an answer whose parts are cut already."""
    return answer if not mask or "*" in mask else {name: value for name, value in answer.items() if name in mask}


def cut(value: Any, mask: Mask) -> Any:
    """`value` with only what the mask names; lists are cut element by element."""
    if not mask or "*" in mask:
        return value
    if isinstance(value, list):
        return [cut(element, mask) for element in value]
    if not isinstance(value, dict):
        return value
    return {name: cut(below, mask[name]) for name, below in value.items() if name in mask}


def _selection(tokens: list[str], text: str, depth: int) -> tuple[Mask, list[str]]:
    if depth > 20:
        raise _malformed(text)
    mask: Mask = {}
    while True:
        tokens = _one(tokens, mask, text, depth)
        if not tokens or tokens[0] != ",":
            return mask, tokens
        tokens = tokens[1:]


def _one(tokens: list[str], mask: Mask, text: str, depth: int) -> list[str]:
    """Read `name`, `name/name`, `name(…)` into `mask`; returns what is left."""
    while True:
        if not tokens or tokens[0] in "/(),":
            raise _malformed(text)
        mask = mask.setdefault(tokens[0], {})
        tokens = tokens[1:]
        if not tokens or tokens[0] != "/":
            break
        tokens = tokens[1:]
    if tokens and tokens[0] == "(":
        below, tokens = _selection(tokens[1:], text, depth + 1)
        if not tokens or tokens[0] != ")":
            raise _malformed(text)
        mask.update(below)
        tokens = tokens[1:]
    return tokens


def _malformed(text: str) -> Refusal:
    return Refusal(400, "invalidParameter", f"Invalid field selection {text[:100]}", where="fields")
