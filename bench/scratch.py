"""The folder that a benchmark works in: one that is given, and kept, or a temporary one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def working_in(given: Path | None) -> Iterator[Path]:
    """Yield `given`, made if it is missing, or a temporary folder, which is deleted afterwards."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
