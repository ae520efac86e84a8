"""The language of `q`, Drive's search terms, read into SQL over the records.

The grammar is that of https://developers.google.com/workspace/drive/api/guides/ref-search-terms: comparisons joined by
`and`, `or`, `not` and parentheses. What the hub keeps no record of (full text, owners, visibility) is refused, never
ignored: a search that answers too much is worse than one that does not answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from haversack.hub.refusal import Refusal

_TOKEN = re.compile(r"\s*(?:(?P<text>'(?:[^'\\]|\\.)*')|(?P<operator><=|>=|!=|=|<|>|[(){}])|(?P<word>[A-Za-z0-9_.-]+))")
_DEEPEST = 100
_MOST_COMPARISONS = 250
_TIMES = {"modifiedTime": "modified", "createdTime": "created"}
_FLAGS = {"trashed": "trashed", "starred": "starred"}
_MAPS = {"properties", "appProperties"}


@dataclass(frozen=True)
class Query:
    """A condition on records, and what it says about where they can be.

    `parents` are the folders that every match lies in, None when it may lie anywhere; `name` is the name that every
    match has, None when any. `about_times` tells that the answer depends on the files' times as they are now.
    `only_parents` says that it is about nothing but what the files lie in.
    """

    sql: str
    values: tuple[Any, ...] = ()
    parents: frozenset[str] | None = None
    name: str | None = None
    about_times: bool = False
    only_parents: bool = False


EVERYTHING = Query("1")


def parse(text: str, root: str) -> Query:
    """The query that `text` says; `root` is the id that the alias `root` stands for.

    Raises `Refusal` where it does not follow the grammar or asks for what the hub keeps no record of.
    """
    if not text.strip():
        return EVERYTHING
    reader = _Parser(text, root)
    query = reader.either(0)
    if reader.left:
        raise reader.malformed()
    return query


def moment(text: str) -> int:
    """An RFC 3339 time in nanoseconds since 1970; without a zone it is UTC. Raises `ValueError`."""
    when = datetime.fromisoformat(text)
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return round((when - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000) * 1_000_000


class _Parser:
    def __init__(self, text: str, root: str) -> None:
        self.text = text
        self.root = root
        self.left = self._tokens(text)
        self.comparisons = 0

    def either(self, depth: int) -> Query:
        query = self.both(depth)
        while self._accept("or"):
            other = self.both(depth)
            if query.only_parents and other.only_parents:
                # In one list, which SQLite finds in one pass over its index.
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
                query.about_times or other.about_times,
            )
        return query

    def both(self, depth: int) -> Query:
        query = self.one(depth)
        while self._accept("and"):
            other = self.one(depth)
            parents = query.parents if query.parents is not None else other.parents
            query = Query(
                f"({query.sql} AND {other.sql})",
                query.values + other.values,
                parents,
                query.name if query.name is not None else other.name,
                query.about_times or other.about_times,
            )
        return query

    def one(self, depth: int) -> Query:
        if depth > _DEEPEST:
            raise self.malformed()
        if self._accept("not"):
            query = self.one(depth + 1)
            return Query(f"NOT {query.sql}", query.values, about_times=query.about_times)
        if self._accept("("):
            query = self.either(depth + 1)
            self._expect(")")
            return query
        return self._comparison()

    def _comparison(self) -> Query:
        self.comparisons += 1
        if self.comparisons > _MOST_COMPARISONS:
            raise Refusal(413, "uploadTooLarge", f"A query has at most {_MOST_COMPARISONS} comparisons.", where="q")
        kind, value = self._next()
        if kind == "text":
            self._expect("in")
            return self._collection(value, self._next("word")[1])
        if kind != "word":
            raise self.malformed()
        if value in _MAPS:
            return self._pair("app_properties" if value == "appProperties" else value)
        if value == "sharedWithMe" and (not self.left or self.left[0][1] in ("and", "or", ")")):
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
            # Nothing is shared with anybody on a hub.
            return Query("1" if self._boolean() == (operator == "!=") else "0")
        raise Refusal(400, "invalid", f"The hub does not search by {field} {operator}.", where="q")

    def _name(self, operator: str, name: str) -> Query:
        if operator == "contains":
            # The first condition is fast and leaves little for the second.
            return Query("(instr(folded, ?) AND name_contains(folded, ?))", (name.casefold(), name.casefold()))
        return Query(f"folded {operator} ?", (name.casefold(),), name=name if operator == "=" else None)

    def _time(self, column: str, operator: str, text: str) -> Query:
        try:
            when = moment(text)
        except (ValueError, OverflowError):
            raise Refusal(400, "invalid", f"{text!r} is not a time like 2024-05-31T12:00:00Z.", where="q") from None
        # Answers give times in milliseconds, so they are compared as such.
        return Query(f"{column} / 1000000 {operator} ?", (when // 1_000_000,), about_times=True)

    def _pair(self, column: str) -> Query:
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
        if not self.left or (wanted and self.left[0][0] != wanted):
            raise self.malformed()
        return self.left.pop(0)

    def _accept(self, value: str) -> bool:
        if self.left and self.left[0][0] != "text" and self.left[0][1] == value:
            self.left.pop(0)
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
        return Refusal(400, "invalid", f"Invalid query: {self.text[:200]}", where="q")


def _in(parents: tuple[str, ...]) -> Query:
    sql = "parent = ?" if len(parents) == 1 else f"parent IN ({', '.join('?' * len(parents))})"
    return Query(sql, parents, parents=frozenset(parents), only_parents=True)
