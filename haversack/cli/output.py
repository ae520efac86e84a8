"""What commands print: one JSON object for scripts, or text."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict, is_dataclass
from typing import Any

from haversack import progress


def show(result: Any, as_json: bool, text: str) -> None:
    """Print `result`, a dataclass or a JSON value, as one JSON object, or `text` unless it is empty."""
    if as_json:
        print(jsonlib.dumps(asdict(result) if is_dataclass(result) and not isinstance(result, type) else result))
    elif text:
        print(text)


def listed(row: dict[str, Any]) -> str:
    """One line of a listing: size and name of a file or folder, in the format of fsspec's `info`."""
    size = "" if row["type"] == "directory" else progress.size(row["size"])
    return f"{size:>10}  {row['name']}{'/' if row['type'] == 'directory' else ''}"
