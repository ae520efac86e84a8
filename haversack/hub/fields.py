"""The language of `fields`, Google's partial responses: `files(id,owners/displayName),nextPageToken`, `*`.

See https://developers.google.com/workspace/drive/api/guides/fields-parameter. A parsed selection is a mask: a dict from
field names to the masks of their subfields. An empty mask, or one that contains `*`, selects everything. In this module
`answer` is the JSON of a response.
"""

from __future__ import annotations

import re
from typing import Any

from haversack.hub.refusal import Refusal

Mask = dict[str, Any]

_TOKEN = re.compile(r"\s*([A-Za-z0-9_.-]+|[*/(),])")


def parse(text: str) -> Mask:
    """Parse a field selection into a mask. Raises `Refusal` (400) if `text` does not follow the grammar."""
    tokens = _TOKEN.findall(text)
    if not tokens or "".join(tokens) != re.sub(r"\s+", "", text):
        raise _malformed(text)
    mask, rest = _parse_list(tokens, text, 0)
    if rest:
        raise _malformed(text)
    return mask


def check(mask: Mask, known: frozenset[str]) -> None:
    """Raise `Refusal` (400) if the mask names a top-level field that is not in `known`, such as a misspelt one."""
    for name in mask:
        if name != "*" and name not in known:
            raise Refusal(400, "invalidParameter", f"Invalid field selection {name[:100]}", where="fields")


def includes(mask: Mask, *path: str) -> bool:
    """Whether `mask` selects the nested field `path` (`"files", "owners"` for `files/owners`) or a part of it."""
    for name in path:
        if mask == {} or "*" in mask:
            return True
        if name not in mask:
            return False
        mask = mask[name]
    return True


def select(answer: dict[str, Any], mask: Mask) -> dict[str, Any]:
    """Return the top-level fields of `answer` that `mask` selects; masks of subfields are not applied."""
    return answer if not mask or "*" in mask else {name: value for name, value in answer.items() if name in mask}


def apply(answer: dict[str, Any], mask: Mask) -> dict[str, Any]:
    """Return `answer` with only the fields that `mask` selects, at every level; lists element by element."""
    if not mask or "*" in mask:
        return answer
    return {name: apply_to_value(value, mask[name]) for name, value in answer.items() if name in mask}


def apply_to_value(value: Any, mask: Mask) -> Any:
    """Return any JSON value with only the fields that `mask` selects, at every level; lists element by element.

    Strings, numbers, booleans and None are returned unchanged.
    """
    if not mask or "*" in mask:
        return value
    if isinstance(value, list):
        return [apply_to_value(element, mask) for element in value]
    return apply(value, mask) if isinstance(value, dict) else value


def _parse_list(tokens: list[str], text: str, depth: int) -> tuple[Mask, list[str]]:
    """Parse a comma-separated list of fields; return its mask and the remaining tokens."""
    if depth > 20:
        raise _malformed(text)
    mask: Mask = {}
    while True:
        tokens = _parse_field(tokens, mask, text, depth)
        if not tokens or tokens[0] != ",":
            return mask, tokens
        tokens = tokens[1:]


def _parse_field(tokens: list[str], mask: Mask, text: str, depth: int) -> list[str]:
    """Parse `name`, `name/name` or `name(…)` into `mask`; return the remaining tokens."""
    while True:
        if not tokens or tokens[0] in "/(),":
            raise _malformed(text)
        mask = mask.setdefault(tokens[0], {})
        tokens = tokens[1:]
        if not tokens or tokens[0] != "/":
            break
        tokens = tokens[1:]
    if tokens and tokens[0] == "(":
        below, tokens = _parse_list(tokens[1:], text, depth + 1)
        if not tokens or tokens[0] != ")":
            raise _malformed(text)
        mask.update(below)
        tokens = tokens[1:]
    return tokens


def _malformed(text: str) -> Refusal:
    return Refusal(400, "invalidParameter", f"Invalid field selection {text[:100]}", where="fields")
