"""What commands print: one JSON object for scripts, or text."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict, is_dataclass
from typing import Any

from haversack import progress


def show(result: Any, as_json: bool, text: str) -> None:
    """Print what a command returns: with `as_json` `result` as one line of JSON, else `text`, unless it is empty.

    `result` is a JSON value, or a dataclass of JSON values.
    """
    if as_json:
        print(jsonlib.dumps(asdict(result) if is_dataclass(result) and not isinstance(result, type) else result))
    elif text:
        print(text)


def listed(row: dict[str, Any]) -> str:
    """Return one line of a listing: the size of a file or nothing for a folder, and the name.

    `row` has the keys `name`, `size` in bytes, and `type`, "file" or "directory", as fsspec's `info` has them.
    """
    size = "" if row["type"] == "directory" else progress.size(row["size"])
    return f"{size:>10}  {row['name']}{'/' if row['type'] == 'directory' else ''}"
