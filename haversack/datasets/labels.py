"""What each image is labelled with: by its folder, a table, a dict, or a function of its name.

Words become classes, numbered in the order of the alphabet; whole numbers, other numbers and vectors stay what they
are. An image that is nowhere in a table or dict is an error that says how many there are.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from posixpath import splitext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from haversack.errors import InputError

Given = str | Path | tuple[str | Path, str, str] | Mapping[str, Any] | Callable[[str], Any] | None
"""How labels are given; see `of`."""


@dataclass(frozen=True)
class Labels:
    """A label per image, the first axis: int64 of classes or counts, or float32. `classes` are names, if there are."""

    values: NDArray[Any]
    classes: tuple[str, ...] = ()

    def of(self, rows: NDArray[np.int64]) -> Labels:
        """The labels of some of the images."""
        return Labels(self.values[rows], self.classes)

    def said(self, row: int) -> str:
        """A label in words."""
        value = self.values[row]
        return self.classes[int(value)] if self.classes else np.array2string(np.asarray(value), precision=3)


def of(names: Sequence[str], given: Given, read: Callable[[str], bytes]) -> Labels | None:
    """The labels of the images called `names`; None where none are given.

    `given` is "folder" (the folder that an image lies in), a table (a .csv or .tsv file with a header; of the data set,
    where `read` finds it, or else of this machine), the table with the names of its columns for image and label, a
    mapping of names, or a function of a name. In a table, an image may be called by its whole name, its file name, or
    that without its suffix; without names of columns, the first column is the image and the second its label, or
    several columns a vector of numbers.

    Raises `InputError` for what cannot be read, and for images without a label.
    """
    if given is None:
        return None
    if given == "folder":
        return _numbered(names, [name.rpartition("/")[0].rpartition("/")[2] for name in names])
    if isinstance(given, Mapping):
        return _numbered(names, _looked_up(names, given, "labels"))
    if callable(given):
        return _numbered(names, [given(name) for name in names])
    table, columns = (given[0], given[1:]) if isinstance(given, tuple) else (given, None)
    return _numbered(names, _looked_up(names, _table(str(table), columns, read), str(table)))


def _looked_up(names: Sequence[str], table: Mapping[str, Any], said: str) -> list[Any]:
    found, missing = [], []
    for name in names:
        base = name.rpartition("/")[2]
        key = next((key for key in (name, base, splitext(base)[0]) if key in table), None)
        if key is None:
            missing.append(name)
        else:
            found.append(table[key])
    if missing:
        raise InputError(
            f"{len(missing):,} of {len(names):,} images are not in {said}, such as {', '.join(missing[:3])}.",
            "Add them, or choose images with names=…; an image is found by its name, its file name, or its stem.",
        )
    return found


def _table(table: str, columns: Sequence[str] | None, read: Callable[[str], bytes]) -> dict[str, Any]:
    rows = csv.reader(io.StringIO(_text(table, read)), delimiter="\t" if table.endswith(".tsv") else ",")
    header = [column.strip() for column in next(rows, [])]
    chosen = range(len(header)) if columns is None else [_column(header, name, table) for name in columns]
    if len(chosen) < 2:
        raise InputError(f"{table} has no column of labels.", "Its first column names the image, its second the label.")
    first, *rest = chosen
    found: dict[str, Any] = {}
    for line, row in enumerate(rows, 2):
        if not row:
            continue
        if len(row) <= max(chosen):
            raise InputError(f"Line {line} of {table} has {len(row)} columns, fewer than its header.", "Mend it.")
        key, value = row[first].strip(), tuple(row[column].strip() for column in rest)
        if found.setdefault(key, value) != value:
            raise InputError(
                f"{table} has two labels for {key}, the second in line {line}.", "Give a dict or a function instead."
            )
    return {key: value[0] if len(rest) == 1 else _vector(key, value, table) for key, value in found.items()}


def _text(table: str, read: Callable[[str], bytes]) -> str:
    path = Path(table).expanduser()
    try:
        data = path.read_bytes() if path.is_file() else read(table)
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{table} is not text in UTF-8.", "Save it as UTF-8.") from None


def _column(header: list[str], name: str, table: str) -> int:
    if name not in header:
        raise InputError(f"{table} has no column {name!r}.", f"Its columns are {', '.join(header)}.")
    return header.index(name)


def _vector(key: str, values: Sequence[str], table: str) -> list[float]:
    try:
        return [float(value) for value in values]
    except ValueError:
        raise InputError(
            f"The columns of {table} beside the first are not all numbers: {key} has {', '.join(values)}.",
            "Name the columns of image and label: labels=(table, image, label).",
        ) from None


def _numbered(names: Sequence[str], found: list[Any]) -> Labels:
    """Numbers where all labels are such, also those that stand in a table as text; else classes."""
    texts = [one for one in found if isinstance(one, str)]
    if len(texts) == len(found):
        # There may be a million labels, and few kinds of them.
        kinds = sorted(set(texts))
        numbers = _as_numbers(kinds)
        if numbers is not None:
            value = dict(zip(kinds, numbers.tolist(), strict=True))
            return Labels(np.array([value[text] for text in texts], numbers.dtype))
        place = {name: number for number, name in enumerate(kinds)}
        return Labels(np.array([place[text] for text in texts], np.int64), tuple(kinds))
    try:
        values = np.array(found)
        return Labels(values.astype(np.int64 if values.dtype.kind in "bui" else np.float32))
    except (ValueError, TypeError):
        odd = next((place for place, one in enumerate(found) if type(one) is not type(found[0])), 0)
        raise InputError(
            f"The labels are not of one kind: {names[0]} has {found[0]!r}, {names[odd]} has {found[odd]!r}.",
            "Label every image with a word, a number, or a vector of the same length.",
        ) from None


def _as_numbers(texts: list[str]) -> NDArray[Any] | None:
    for kind in (np.int64, np.float32):
        try:
            return np.array(texts).astype(kind) if texts else np.zeros(0, kind)
        except ValueError:
            continue
    return None
