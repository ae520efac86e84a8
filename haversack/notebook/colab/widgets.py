"""`google.colab.widgets`: tabs and grids of outputs. Here such outputs are shown one after the other.

Arguments are checked as on Colab. Nothing is cleared or removed: outputs stay where they were printed.
"""

from __future__ import annotations

import contextlib as _contextlib
from collections.abc import Callable as _Callable
from collections.abc import Iterable as _Iterable
from collections.abc import Iterator as _Iterator
from collections.abc import Sequence as _Sequence
from typing import Any as _Any

from haversack.notebook.colab.errors import WidgetException

__all__ = ["Grid", "TabBar", "WidgetException", "create_grid"]


class TabBar:
    """A bar of tabs, each with an output of its own; `tab_names` are their names."""

    def __init__(self, tab_names: _Sequence[str], location: str = "top") -> None:
        """Make tabs with these names. Raises `ValueError` if `location` is not top, bottom, start or end."""
        if location not in ("top", "bottom", "start", "end"):
            raise ValueError(f"Invalid value for location: {location!r}")
        self.tab_names = tab_names

    @_contextlib.contextmanager
    def output_to(self, tab: int | str, select: bool = True) -> _Iterator[None]:
        """Show the block's output in the cell's output; `tab` is an index from 0 or a name, `select` has no effect.

        Raises `ValueError` if no tab or more than one has that name, and `IndexError` if there is no such index.
        """
        self._index(tab)
        yield

    def clear_tab(self, tab: int | str | None = None) -> None:
        """Do nothing but check `tab`, as `output_to` does."""
        if tab is not None:
            self._index(tab)

    def remove(self, wait: bool = False) -> None:
        """Do nothing: what the tabs show stays."""

    def __iter__(self) -> _Iterator[int]:
        yield from range(len(self.tab_names))

    def _index(self, tab: int | str) -> int:
        names = tuple(self.tab_names)
        if isinstance(tab, str):
            if names.count(tab) > 1:
                raise ValueError(f"Ambiguous tab name: {tab}")
            return names.index(tab)
        if not 0 <= tab < len(names):
            raise IndexError(f"There is no tab {tab}; there are {len(names)}.")
        return tab


class Grid:
    """A table of outputs with `rows` rows and `columns` columns."""

    def __init__(
        self, rows: int, columns: int, header_row: bool = False, header_column: bool = False, style: str = ""
    ) -> None:
        """Make a grid. With `header_row` and `header_column` its first row and column are headers; no effect here."""
        self.rows = rows
        self.columns = columns
        self.header_row = header_row
        self.header_column = header_column

    @_contextlib.contextmanager
    def output_to(self, row: int, column: int) -> _Iterator[None]:
        """Show the block's output in the cell's output. Raises `WidgetException` if the grid has no such place."""
        if not (0 <= row < self.rows and 0 <= column < self.columns):
            raise WidgetException(f"Cell ({row}, {column}) is outside of boundaries of {self.rows}x{self.columns} grid")
        yield

    def clear_cell(self, row: int | None = None, col: int | None = None) -> None:
        """Do nothing: what was shown stays."""

    def remove(self, wait: bool = False) -> None:
        """Do nothing: what the grid shows stays."""

    def __iter__(self) -> _Iterator[tuple[int, int]]:
        for row in range(self.rows):
            for column in range(self.columns):
                yield row, column


def create_grid(
    row_data: _Iterable[_Any],
    col_data: _Iterable[_Any],
    render: _Callable[[_Any, _Any], _Any],
    header_render: _Callable[[_Any], _Any] | None = None,
    header_row: bool = True,
    header_column: bool = True,
) -> Grid:
    """Show `render(row, column)` for every pair, row by row, and return the grid.

    What `render` returns is displayed unless it is None. Headers are shown by `header_render`, by default as IPython
    shows an object: the columns first, and each row's before the row.
    """
    from IPython.display import display as _display

    rows, columns = list(row_data), list(col_data)
    show_header = header_render or _display
    if header_row:
        for column in columns:
            show_header(column)
    for row in rows:
        if header_column:
            show_header(row)
        for column in columns:
            result = render(row, column)
            if result is not None:
                _display(result)
    return Grid(len(rows) + header_row, len(columns) + header_column, header_row, header_column)
