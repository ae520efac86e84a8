"""How many steps a backtracking engine takes to match a pattern: `re`'s own algorithm, spelled out and counted.

Times on a busy machine prove nothing, and `re` counts nothing. This engine reads the same parse tree and tries the same
alternatives in the same order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

_CATEGORIES: dict[Any, Callable[[str], bool]] = {
    op.CATEGORY_DIGIT: str.isdecimal,
    op.CATEGORY_SPACE: str.isspace,
    op.CATEGORY_WORD: lambda character: character.isalnum() or character == "_",
}
_CATEGORIES |= {
    op.CATEGORY_NOT_DIGIT: lambda character: not _CATEGORIES[op.CATEGORY_DIGIT](character),
    op.CATEGORY_NOT_SPACE: lambda character: not _CATEGORIES[op.CATEGORY_SPACE](character),
    op.CATEGORY_NOT_WORD: lambda character: not _CATEGORIES[op.CATEGORY_WORD](character),
}


class Engine:
    """Matches one pattern, and counts in `steps` the characters and alternatives that it has tried."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.steps = 0
        self._tree = _parsed(pattern)
        self._flags = pattern.flags

    def match(self, text: str, at: int) -> int | None:
        """Return where a match that begins at `at` ends; None if there is none."""
        return next(self._ends(self._tree, text, at, self._flags), None)

    def _ends(self, nodes: list[Any], text: str, at: int, flags: int) -> Iterator[int]:
        """Yield the ends of all matches of `nodes` at `at`, in the order in which `re` tries them."""
        if not nodes:
            yield at
            return
        for end in self._node(*nodes[0], text, at, flags):
            yield from self._ends(nodes[1:], text, end, flags)

    def _node(self, kind: Any, value: Any, text: str, at: int, flags: int) -> Iterator[int]:
        self.steps += 1
        match kind:
            case op.LITERAL | op.NOT_LITERAL | op.ANY | op.IN:
                if at < len(text) and self._is_one(kind, value, text[at], flags):
                    yield at + 1
            case op.BRANCH:
                for branch in value[1]:
                    yield from self._ends(list(branch), text, at, flags)
            case op.SUBPATTERN:
                _, added, removed, inside = value
                yield from self._ends(list(inside), text, at, (flags | added) & ~removed)
            case op.ATOMIC_GROUP:
                yield from self._first(self._ends(list(value), text, at, flags))
            case op.MAX_REPEAT:
                yield from self._repeat(value, text, at, flags)
            case op.POSSESSIVE_REPEAT:
                yield from self._run(value, text, at, flags)
            case op.ASSERT | op.ASSERT_NOT:
                is_there = self._looks(value, text, at, flags)
                if is_there == (kind is op.ASSERT):
                    yield at
            case _:
                raise NotImplementedError(kind)

    def _looks(self, value: Any, text: str, at: int, flags: int) -> bool:
        direction, inside = value
        start = at if direction > 0 else at - inside.getwidth()[0]
        return start >= 0 and next(self._ends(list(inside), text, start, flags), None) is not None

    def _repeat(self, value: Any, text: str, at: int, flags: int) -> Iterator[int]:
        """Greedy: the longest first, then shorter ones."""
        low, high, inside = value
        ends = [at]
        while len(ends) <= high:
            end = next(self._ends(list(inside), text, ends[-1], flags), None)
            if end is None or end == ends[-1]:
                break
            ends.append(end)
        while len(ends) > low:
            self.steps += 1
            yield ends.pop()

    def _run(self, value: Any, text: str, at: int, flags: int) -> Iterator[int]:
        """Possessive: as long as it goes, and never shorter."""
        yield from self._first(self._repeat(value, text, at, flags))

    @staticmethod
    def _first(ends: Iterator[int]) -> Iterator[int]:
        end = next(ends, None)
        if end is not None:
            yield end

    def _is_one(self, kind: Any, value: Any, character: str, flags: int) -> bool:
        if kind is op.ANY:
            return character != "\n"
        if kind is op.IN:
            negated = value[0][0] is op.NEGATE
            spellings = {character, character.lower(), character.upper()} if flags & re.IGNORECASE else {character}
            return negated != any(_is_in(value, spelling) for spelling in spellings)
        same = ord(character) == value
        if flags & re.IGNORECASE:
            same = character.lower() == chr(value).lower()
        return same == (kind is op.LITERAL)


@cache
def _parsed(pattern: re.Pattern[str]) -> list[Any]:
    return list(parser.parse(pattern.pattern, pattern.flags))


def _is_in(members: list[tuple[Any, Any]], character: str) -> bool:
    for kind, value in members:
        if kind is op.LITERAL and ord(character) == value:
            return True
        if kind is op.RANGE and value[0] <= ord(character) <= value[1]:
            return True
        if kind is op.CATEGORY and _CATEGORIES[value](character):
            return True
    return False
