"""`google.colab.sheets`: Google Sheets embedded in a cell's output, which needs Colab's page."""

from __future__ import annotations

from typing import Any as _Any

from haversack.notebook.colab import errors as _errors

__all__ = ["InteractiveSheet"]


class InteractiveSheet:
    """A Google Sheet in the cell's output. It cannot be made here."""

    def __init__(self, *arguments: _Any, **options: _Any) -> None:
        """Raise `errors.Error`: no Colab page is open that could show the sheet."""
        raise _errors.Error(
            "A sheet cannot be shown here, because no Colab page is open. "
            "Read and write it with gspread, or save the data frame as a file on the drive."
        )
