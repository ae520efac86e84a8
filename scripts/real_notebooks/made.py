"""Files of made data: columns of random values, CSV tables of them, and pictures of noise.

A file is described by a function of a random generator, so equal seeds give equal bytes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from itertools import product
from random import Random

import numpy as np
from PIL import Image

# A column's values, of as many rows as are asked for.
Column = Callable[[Random, int], list[object]]
# A file's bytes.
MadeFile = Callable[[Random], bytes]


def whole(least: int, most: int) -> Column:
    return lambda random, count: [random.randint(least, most) for _ in range(count)]


def number(least: float, most: float, digits: int = 3) -> Column:
    return lambda random, count: [round(random.uniform(least, most), digits) for _ in range(count)]


def one_of(*values: object) -> Column:
    return lambda random, count: [random.choice(values) for _ in range(count)]


def numbered(form: str = "{}", first: int = 0) -> Column:
    """`form` with the row's number, from `first`."""
    return lambda random, count: [form.format(first + row) for row in range(count)]


def text(words: str, least: int, most: int) -> Column:
    """Between `least` and `most` of the words, which are separated by spaces."""
    known = words.split()
    return lambda random, count: [
        " ".join(random.choice(known) for _ in range(random.randint(least, most))) for _ in range(count)
    ]


def missing(share: float, column: Column) -> Column:
    """The column with a share of its values empty."""
    return lambda random, count: [None if random.random() < share else value for value in column(random, count)]


def several(form: str, numbers: Iterable[int], column: Column) -> dict[str, Column]:
    """Columns of one kind, named by their numbers."""
    return {form.format(each): column for each in numbers}


def table(rows: int, columns: Mapping[str, Column]) -> MadeFile:
    def made(random: Random) -> bytes:
        values = [column(random, rows) for column in columns.values()]
        return as_csv(columns, zip(*values, strict=True))

    return made


def every(columns: Mapping[str, Iterable[object]], more: Mapping[str, Column]) -> MadeFile:
    """A table with one row for each combination of the values of `columns`, and `more` columns."""

    def made(random: Random) -> bytes:
        rows = list(product(*columns.values()))
        values = [column(random, len(rows)) for column in more.values()]
        return as_csv([*columns, *more], ([*row, *rest] for row, *rest in zip(rows, *values, strict=True)))

    return made


def as_csv(names: Iterable[str], rows: Iterable[Iterable[object]]) -> bytes:
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    return written.getvalue().encode()


def pictures(form: str, count: int, mode: str, side: int) -> dict[str, MadeFile]:
    """Square JPEG pictures of noise, named by their numbers from 1; `mode` is "L" or "RGB", as in PIL."""
    return {form.format(each): _picture(mode, side) for each in range(1, count + 1)}


def _picture(mode: str, side: int) -> MadeFile:
    def made(random: Random) -> bytes:
        shape = (side, side, 3) if mode == "RGB" else (side, side)
        noise = np.frombuffer(random.randbytes(int(np.prod(shape))), np.uint8).reshape(shape)
        written = io.BytesIO()
        Image.fromarray(noise).save(written, "JPEG")
        return written.getvalue()

    return made


def days(first: str, count: int) -> list[str]:
    return [str(day) for day in np.datetime64(first) + np.arange(count)]
