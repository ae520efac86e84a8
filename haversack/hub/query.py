"""The language of `q`, Drive's search terms, compiled to SQL conditions on the table of files.

The grammar is that of https://developers.google.com/workspace/drive/api/guides/ref-search-terms: comparisons joined by
`and`, `or`, `not` and parentheses. Terms on data that the hub does not store (full text, owners, visibility) are
refused, never ignored: a search with too many results is worse than an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from haversack.hub.refusal import Refusal

_TOKEN = re.compile(r"\s*(?:(?P<text>'(?:[^'\\]|\\.)*')|(?P<operator><=|>=|!=|=|<|>|[(){}])|(?P<word>[A-Za-z0-9_.-]+))")
_MAX_DEPTH = 100
_MAX_COMPARISONS = 250
_TIMES = {"modifiedTime": "modified", "createdTime": "created"}
_FLAGS = {"trashed": "trashed", "starred": "starred"}
_MAPS = {"properties", "appProperties"}


@dataclass(frozen=True)
class Query:
    """A search, as an SQL condition on the table of files, and what the condition implies.

    Attributes:
        sql: the condition.
        values: its parameters.
        parents: the ids of folders that contain every match; None if a match can be anywhere.
        name: the name that every match has, ignoring case; None if names can differ.
        uses_times: whether it tests times, so that files changed by hand must be compared with the disk first.
        only_parents: whether it tests nothing but the parent.
    """

    sql: str
    values: tuple[Any, ...] = ()
    parents: frozenset[str] | None = None
    name: str | None = None
    uses_times: bool = False
    only_parents: bool = False


EVERYTHING = Query("1")


def parse(text: str, root: str) -> Query:
    """Parse a search; an empty one matches everything. `root` is My Drive's id, for which clients may write `root`.

    Raises `Refusal`: 400 if `text` does not follow the grammar or uses a term that the hub does not support, 413 if it
    has more than 250 comparisons.
    """
    if not text.strip():
        return EVERYTHING
    reader = _Parser(text, root)
    query = reader.parse_or(0)
    if reader.remaining:
        raise reader.malformed()
    return query


def parse_time(text: str) -> int:
    """Parse an RFC 3339 time to nanoseconds since 1970, rounded to milliseconds; without a zone it is UTC.

    Raises `ValueError` if `text` is not a time, `OverflowError` if it is out of range.
    """
    when = datetime.fromisoformat(text)
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return round((when - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000) * 1_000_000


class _Parser:
    """A recursive descent parser of the search `text`; `root` is My Drive's id.

    `remaining` holds the tokens that are not consumed, as (kind, value); `comparisons` counts those parsed. Its methods
    consume tokens, and raise `Refusal`: 400 for malformed or unsupported terms, 413 beyond 250 comparisons.
    """

    def __init__(self, text: str, root: str) -> None:
        self.text = text
        self.root = root
        self.remaining = self._tokens(text)
        self.comparisons = 0

    def parse_or(self, depth: int) -> Query:
        """Parse terms joined by `or`; `depth` counts the enclosing parentheses and negations."""
        query = self.parse_and(depth)
        while self._accept("or"):
            other = self.parse_and(depth)
            if query.only_parents and other.only_parents:
                # SQLite answers one IN list in a single pass over its index.
                query = _in((*query.values, *other.values))
                continue
            parents = None
            if query.parents is not None and other.parents is not None:
                parents = query.parents | other.parents
            query = Query(
                f"({query.sql} OR {other.sql})",
                query.values + other.values,
                parents,
                query.name if query.name == other.name else None,
                query.uses_times or other.uses_times,
            )
        return query

    def parse_and(self, depth: int) -> Query:
        """Parse terms joined by `and`; `depth` counts the enclosing parentheses and negations."""
        query = self.parse_not(depth)
        while self._accept("and"):
            other = self.parse_not(depth)
            parents = query.parents if query.parents is not None else other.parents
            query = Query(
                f"({query.sql} AND {other.sql})",
                query.values + other.values,
                parents,
                query.name if query.name is not None else other.name,
                query.uses_times or other.uses_times,
            )
        return query

    def parse_not(self, depth: int) -> Query:
        """Parse a comparison, a negation or a group in parentheses; `depth` counts the enclosing ones.

        Raises `Refusal` (400) if `depth` exceeds 100.
        """
        if depth > _MAX_DEPTH:
            raise self.malformed()
        if self._accept("not"):
            query = self.parse_not(depth + 1)
            return Query(f"NOT {query.sql}", query.values, uses_times=query.uses_times)
        if self._accept("("):
            query = self.parse_or(depth + 1)
            self._expect(")")
            return query
        return self._comparison()

    def _comparison(self) -> Query:
        self.comparisons += 1
        if self.comparisons > _MAX_COMPARISONS:
            raise Refusal(413, "uploadTooLarge", f"A query has at most {_MAX_COMPARISONS} comparisons.", where="q")
        kind, value = self._next()
        if kind == "text":
            self._expect("in")
            return self._collection(value, self._next("word")[1])
        if kind != "word":
            raise self.malformed()
        if value in _MAPS:
            return self._property("app_properties" if value == "appProperties" else value)
        if value == "sharedWithMe" and (not self.remaining or self.remaining[0][1] in ("and", "or", ")")):
            return Query("0")
        return self._field(value, self._operator())

    def _field(self, field: str, operator: str) -> Query:
        if field == "name" and operator in ("=", "!=", "contains"):
            return self._name(operator, self._next("text")[1])
        if field == "mimeType" and operator in ("=", "!=", "contains"):
            value = self._next("text")[1]
            if operator == "contains":
                return Query("instr(mime, ?) > 0", (value,))
            return Query(f"mime {operator} ?", (value,))
        if field in _TIMES and operator != "contains":
            return self._time(_TIMES[field], operator, self._next("text")[1])
        if field in _FLAGS and operator in ("=", "!="):
            return Query(f"{_FLAGS[field]} {operator} ?", (self._boolean(),))
        if field == "sharedWithMe" and operator in ("=", "!="):
            # A hub shares no files.
            return Query("1" if self._boolean() == (operator == "!=") else "0")
        raise Refusal(400, "invalid", f"The hub does not search by {field} {operator}.", where="q")

    def _name(self, operator: str, name: str) -> Query:
        if operator == "contains":
            # `instr` is fast and leaves few rows to the regular expression.
            return Query("(instr(folded, ?) AND name_contains(folded, ?))", (name.casefold(), name.casefold()))
        return Query(f"folded {operator} ?", (name.casefold(),), name=name if operator == "=" else None)

    def _time(self, column: str, operator: str, text: str) -> Query:
        try:
            when = parse_time(text)
        except (ValueError, OverflowError):
            raise Refusal(400, "invalid", f"{text!r} is not a time like 2024-05-31T12:00:00Z.", where="q") from None
        # Responses give times in milliseconds, so comparisons use milliseconds too.
        return Query(f"{column} / 1000000 {operator} ?", (when // 1_000_000,), uses_times=True)

    def _property(self, column: str) -> Query:
        self._expect("has")
        self._expect("{")
        self._expect("key")
        self._expect("=")
        key = self._next("text")[1]
        self._expect("and")
        self._expect("value")
        self._expect("=")
        value = self._next("text")[1]
        self._expect("}")
        return Query(f"EXISTS (SELECT 1 FROM json_each({column}) WHERE key = ? AND value = ?)", (key, value))

    def _collection(self, value: str, collection: str) -> Query:
        if collection != "parents":
            raise Refusal(400, "invalid", f"The hub does not search by {collection}.", where="q")
        return _in((self.root if value == "root" else value,))

    def _boolean(self) -> bool:
        word = self._next("word")[1]
        if word not in ("true", "false"):
            raise self.malformed()
        return word == "true"

    def _operator(self) -> str:
        value = self._next()[1]
        if value not in ("=", "!=", "<", "<=", ">", ">=", "contains"):
            raise self.malformed()
        return value

    def _next(self, wanted: str | None = None) -> tuple[str, str]:
        if not self.remaining or (wanted and self.remaining[0][0] != wanted):
            raise self.malformed()
        return self.remaining.pop(0)

    def _accept(self, value: str) -> bool:
        if self.remaining and self.remaining[0][0] != "text" and self.remaining[0][1] == value:
            self.remaining.pop(0)
            return True
        return False

    def _expect(self, value: str) -> None:
        if not self._accept(value):
            raise self.malformed()

    def _tokens(self, text: str) -> list[tuple[str, str]]:
        tokens, position = [], 0
        while text[position:].strip():
            found = _TOKEN.match(text, position)
            if found is None:
                raise self.malformed()
            kind = str(found.lastgroup)
            value = found[kind]
            if kind == "text":
                value = re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.DOTALL)
            tokens.append((kind, value))
            position = found.end()
        return tokens

    def malformed(self) -> Refusal:
        """Return the 400 error for a query that does not follow the grammar."""
        return Refusal(400, "invalid", f"Invalid query: {self.text[:200]}", where="q")


def _in(parents: tuple[str, ...]) -> Query:
    sql = "parent = ?" if len(parents) == 1 else f"parent IN ({', '.join('?' * len(parents))})"
    return Query(sql, parents, parents=frozenset(parents), only_parents=True)
