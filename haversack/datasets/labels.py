"""The labels of images, from their folders, a table, a mapping, or a function of an image's name.

Text labels become class numbers: the place of the text in the sorted list of all of them. If every text is a number,
such as "0" or "2.5", labels are these numbers instead. Integers, real numbers and vectors stay as they are. Every image
must have a label: the error for missing ones says how many there are.
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

LabelSource = str | Path | tuple[str | Path, str, str] | Mapping[str, Any] | Callable[[str], Any] | None
"""Where labels come from; see `labels_for`."""


@dataclass(frozen=True)
class Labels:
    """One label per image.

    Attributes:
        values: of shape (images,), or (images, n) for vectors of n numbers; int64 for class numbers, integers, booleans
            and vectors of integers, else float32.
        classes: the class names by class number; empty if the labels are numbers or vectors.
    """

    values: NDArray[Any]
    classes: tuple[str, ...] = ()

    def text(self, row: int) -> str:
        """Return the label `values[row]` for display: the class name, or the number or vector as text."""
        value = self.values[row]
        return self.classes[int(value)] if self.classes else np.array2string(np.asarray(value), precision=3)


def labels_for(names: Sequence[str], source: LabelSource, read: Callable[[str], bytes]) -> Labels | None:
    """Return the labels of the images `names`, or None if `source` is None.

    Args:
        names: the images' names in the data set.
        source: one of
            "folder": the name of the folder that an image is in;
            a path: a .csv or .tsv table with a header, on this machine or else in the data set, whose first column
            is the image and whose second column is the label, or whose other columns are the numbers of a vector;
            (path, image column, label column): such a table with its columns by name;
            a mapping of images to labels;
            a function of an image's name.
        read: returns the bytes of a file of the data set.

    In a table or mapping, the key of an image is its name, or else its file name, or else that without its suffix. A
    label is text, an integer, a real number, or a vector of as many numbers as the others.

    Raises `InputError` for a table that cannot be parsed, lacks a column or has two labels for an image, for images
    without a label, and for labels of mixed types. If no such table is on this machine, the errors of `read` pass
    through: `NotFound` if it is not in the data set either.
    """
    if source is None:
        return None
    if source == "folder":
        return _encode(names, [name.rpartition("/")[0].rpartition("/")[2] for name in names])
    if isinstance(source, Mapping):
        return _encode(names, _look_up(names, source, "labels"))
    if callable(source):
        return _encode(names, [source(name) for name in names])
    table, columns = (source[0], source[1:]) if isinstance(source, tuple) else (source, None)
    return _encode(names, _look_up(names, _read_table(str(table), columns, read), str(table)))


def _look_up(names: Sequence[str], table: Mapping[str, Any], shown: str) -> list[Any]:
    """Return the label of each image; messages call the table `shown`. Raises `InputError` if any is missing."""
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
            f"{len(missing):,} of {len(names):,} images are not in {shown}, such as {', '.join(missing[:3])}.",
            "Add them, or choose images with names=…; keys are an image's name, its file name, or that without suffix.",
        )
    return found


def _read_table(table: str, columns: Sequence[str] | None, read: Callable[[str], bytes]) -> dict[str, Any]:
    """Parse a table into labels by image key: text for one label column, a list of floats for several."""
    rows = csv.reader(io.StringIO(_read_text(table, read)), delimiter="\t" if table.endswith(".tsv") else ",")
    header = [column.strip() for column in next(rows, [])]
    chosen = range(len(header)) if columns is None else [_column_index(header, name, table) for name in columns]
    if len(chosen) < 2:
        raise InputError(
            f"{table} has no column of labels.", "Its first column must be the image, its second the label."
        )
    first, *rest = chosen
    found: dict[str, Any] = {}
    for line, row in enumerate(rows, 2):
        if not row:
            continue
        if len(row) <= max(chosen):
            raise InputError(
                f"Line {line} of {table} has {len(row)} columns, fewer than its header.", "Correct that line."
            )
        key, value = row[first].strip(), tuple(row[column].strip() for column in rest)
        if found.setdefault(key, value) != value:
            raise InputError(
                f"{table} has two labels for {key}, the second in line {line}.",
                "Remove one of them, or use a dict or a function as labels.",
            )
    return {key: value[0] if len(rest) == 1 else _vector(key, value, table) for key, value in found.items()}


def _read_text(table: str, read: Callable[[str], bytes]) -> str:
    """Read the table from this machine, or from the data set if there is no such local file."""
    path = Path(table).expanduser()
    try:
        data = path.read_bytes() if path.is_file() else read(table)
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{table} is not text in UTF-8.", "Save it in UTF-8.") from None


def _column_index(header: list[str], name: str, table: str) -> int:
    if name not in header:
        raise InputError(f"{table} has no column {name!r}.", f"Its columns are {', '.join(header)}.")
    return header.index(name)


def _vector(key: str, values: Sequence[str], table: str) -> list[float]:
    try:
        return [float(value) for value in values]
    except ValueError:
        raise InputError(
            f"The label columns of {table} are not all numbers: {key} has {', '.join(values)}.",
            "Name the columns of image and label: labels=(table, image, label).",
        ) from None


def _encode(names: Sequence[str], found: list[Any]) -> Labels:
    """Convert labels to an array: numbers, vectors, or text, which may be numbers in text form, else class names.

    Raises `InputError` for labels of mixed types or vectors of different lengths.
    """
    texts = [one for one in found if isinstance(one, str)]
    if len(texts) == len(found):
        # Parse each distinct text once: there may be a million labels and few distinct ones.
        distinct = sorted(set(texts))
        numbers = _parse_numbers(distinct)
        if numbers is not None:
            value = dict(zip(distinct, numbers.tolist(), strict=True))
            return Labels(np.array([value[text] for text in texts], numbers.dtype))
        number_of = {name: number for number, name in enumerate(distinct)}
        return Labels(np.array([number_of[text] for text in texts], np.int64), tuple(distinct))
    try:
        values = np.array(found)
        return Labels(values.astype(np.int64 if values.dtype.kind in "bui" else np.float32))
    except (ValueError, TypeError):
        odd = next((place for place, one in enumerate(found) if type(one) is not type(found[0])), 0)
        raise InputError(
            f"The labels are not of one type: {names[0]} has {found[0]!r}, {names[odd]} has {found[odd]!r}.",
            "Label every image with a word, a number, or a vector of the same length.",
        ) from None


def _parse_numbers(texts: list[str]) -> NDArray[Any] | None:
    """Parse all texts as int64, or else as float32; None if one of them is not a number."""
    for kind in (np.int64, np.float32):
        try:
            return np.array(texts).astype(kind) if texts else np.zeros(0, kind)
        except ValueError:
            continue
    return None
