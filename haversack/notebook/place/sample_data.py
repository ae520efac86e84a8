"""`/content/sample_data`: files of the names and columns that Colab's sample folder has, with data of our own.

Runs in a job's kernel. The rows are computed, not Colab's: fewer, alike in columns, units and ranges, and the same on
every machine. So cells that read the files run; what they compute is about invented houses and drawn digits.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

_README = """These files have the names and columns of the files in Colab's folder sample_data. haversack made them:
the houses are invented, and the digits are drawn by a program.

california_housing_train.csv, california_housing_test.csv   districts: position, houses, people, income, value
mnist_train_small.csv, mnist_test.csv                       a digit and its 28 x 28 pixels from 0 to 255, no header
anscombe.json                                               four series of 11 points, alike in mean and unlike in shape
"""
_HOUSING_COLUMNS = (
    "longitude",
    "latitude",
    "housing_median_age",
    "total_rooms",
    "total_bedrooms",
    "population",
    "households",
    "median_income",
    "median_house_value",
)
_SIDE = 28
# The strokes of each digit on a display of seven segments: top, upper left and right, middle, lower left and right,
# bottom.
_STROKES = ("TLRlrB", "Rr", "TRMlB", "TRMrB", "LRMr", "TLMrB", "TLMlrB", "TRr", "TLRMlrB", "TLRMrB")


def write(folder: Path) -> None:
    """Write the files to the new folder `folder`; does nothing if it exists. Raises `OSError`."""
    if folder.exists():
        return
    folder.mkdir()
    (folder / "README.md").write_text(_README)
    (folder / "anscombe.json").write_text(json.dumps(list(_points()), indent=1))
    for name, rows, seed in (("train", 1000, 1), ("test", 200, 2)):
        lines = [",".join(f'"{column}"' for column in _HOUSING_COLUMNS), *_districts(rows, random.Random(seed))]
        (folder / f"california_housing_{name}.csv").write_text("\n".join(lines) + "\n")
    for name, rows, seed in (("train_small", 200, 3), ("test", 100, 4)):
        (folder / f"mnist_{name}.csv").write_text("\n".join(_digits(rows, random.Random(seed))) + "\n")


def _points() -> Iterator[dict[str, str | float]]:
    """Yield a line with noise, a curve, a line with one outlier, and a column with one outlier."""
    noise = random.Random(0)
    for x in range(4, 15):
        yield {"Series": "I", "X": float(x), "Y": round(3 + x / 2 + noise.uniform(-1.5, 1.5), 2)}
    for x in range(4, 15):
        yield {"Series": "II", "X": float(x), "Y": round(9 - (x - 11) ** 2 / 8, 2)}
    for x in range(4, 15):
        yield {"Series": "III", "X": float(x), "Y": 12.5 if x == 13 else round(4 + x / 3, 2)}
    for number in range(11):
        yield {"Series": "IV", "X": 19.0 if number == 7 else 8.0, "Y": round(5.5 + number * 0.3, 2)}


def _districts(count: int, chance: random.Random) -> Iterator[str]:
    """Yield `count` lines of CSV: income is in units of 10,000 dollars, the value in dollars."""
    for _ in range(count):
        south = chance.random()
        households = int(chance.lognormvariate(6, 0.6)) + 2
        rooms = int(households * chance.uniform(4, 7))
        income = min(15.0, chance.lognormvariate(1.2, 0.45))
        value = min(500001, int(income * 45000 + chance.gauss(30000, 40000) + 20000 * south) // 100 * 100)
        yield (
            f"{-122.5 + 6.5 * south + chance.gauss(0, 0.5):.2f},{38.5 - 5 * south + chance.gauss(0, 0.4):.2f},"
            f"{chance.randint(1, 52)}.0,{rooms}.0,{int(rooms * chance.uniform(0.18, 0.24)) + 1}.0,"
            f"{int(households * chance.uniform(2, 4))}.0,{households}.0,{income:.4f},{max(15000, value)}.0"
        )


def _digits(count: int, chance: random.Random) -> Iterator[str]:
    """Yield `count` lines of CSV without a header: a digit, then its pixels, row by row."""
    for _ in range(count):
        digit = chance.randrange(10)
        pixels = ["0"] * (_SIDE * _SIDE)
        left, top, ink = chance.randint(6, 10), chance.randint(3, 6), str(chance.randint(180, 255))
        for row, column in _stroke_pixels(_STROKES[digit]):
            pixels[(top + row) * _SIDE + left + column] = ink
        yield f"{digit},{','.join(pixels)}"


def _stroke_pixels(strokes: str) -> Iterator[tuple[int, int]]:
    """Yield rows and columns of the pixels of `strokes`, 2 pixels thick, 20 rows high and 10 columns wide."""
    for stroke in strokes:
        if stroke in "TMB":
            first = {"T": 0, "M": 9, "B": 18}[stroke]
            yield from ((first + row, column) for row in range(2) for column in range(10))
        else:
            first, column = (0 if stroke in "LR" else 10), (0 if stroke in "Ll" else 8)
            yield from ((first + row, column + thick) for row in range(10) for thick in range(2))
