"""`google.colab.data_table`: data frames as interactive tables. Here they are shown as pandas shows them."""

from __future__ import annotations

from typing import Any as _Any

__all__ = [
    "DataTable",
    "disable_dataframe_formatter",
    "display_dataframe",
    "enable_dataframe_formatter",
    "load_ipython_extension",
    "unload_ipython_extension",
]


class DataTable:
    """A pandas data frame as a table, shown as pandas shows it.

    Attributes:
        include_index, num_rows_per_page, max_rows, max_columns, min_width: Colab's options, without effect.
    """

    include_index: bool = True
    num_rows_per_page: int = 25
    max_rows: int = 20000
    max_columns: int = 20
    min_width: str | None = None

    def __init__(
        self,
        dataframe: _Any,
        include_index: bool | None = None,
        num_rows_per_page: int | None = None,
        max_rows: int | None = None,
        max_columns: int | None = None,
        min_width: str | None = None,
    ) -> None:
        """Show `dataframe`, a pandas data frame. The other arguments are Colab's options, without effect."""
        self._dataframe = dataframe

    @classmethod
    def formatter(cls, dataframe: _Any, **options: _Any) -> None:
        """Return None, which leaves the data frame to pandas's own formatter."""

    def _repr_html_(self) -> _Any:
        return self._dataframe._repr_html_()

    def __repr__(self) -> str:
        return repr(self._dataframe)


def enable_dataframe_formatter() -> None:
    """Do nothing: data frames are shown as pandas shows them."""


def disable_dataframe_formatter() -> None:
    """Do nothing: data frames are shown as pandas shows them."""


def display_dataframe(df: _Any) -> None:
    """Show a pandas data frame and its summary, one after the other, where Colab shows them in tabs."""
    from IPython.display import display as _display

    _display(df)
    _display(df.describe(include="all").fillna(""))


def load_ipython_extension(ipython: _Any) -> None:
    """Do nothing, for `%load_ext google.colab.data_table`."""


def unload_ipython_extension(ipython: _Any) -> None:
    """Do nothing, for `%unload_ext google.colab.data_table`."""
