"""The inputs that a notebook reads and nobody attached, and the command that attaches them.

Runs in the process of `haversack run`. Names are found in the cells' paths. Kaggle's metadata has numbers instead of
names, but says of each source whether it is a competition. A server that can be asked without starting one or signing
in tells which data sets have the name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath
from typing import Any

from haversack.packages.imports import code_cells

_PATH = re.compile(r"(?:/kaggle|\.\.)/input/(?P<path>[A-Za-z0-9][\w.-]*(?:/[\w.-]+)*)")
_NEW_FORMS = {"datasets": 3, "competitions": 2}
# The most candidates that one sentence names.
_MAX_NAMED = 3

Lookup = Callable[[str], Sequence[str]]
"""Returns the sources, such as `kaggle:owner/name`, of the data sets and competitions that have a name."""


def missing_inputs(notebook: Any, attached: Iterable[str]) -> dict[str, str]:
    """Return the names of inputs that the cells read and that are not among `attached`: name → a path in a cell.

    Paths that are computed are not found.
    """
    known, found = set(attached), dict[str, str]()
    for source in code_cells(notebook):
        for match in _PATH.finditer(source):
            named = _named(match["path"].split("/"))
            is_of_single_input = len(known) == 1 and _is_file(named)
            if named and named.rpartition("/")[2] not in known and not is_of_single_input:
                found.setdefault(named, match[0])
    return found


def _is_file(name: str) -> bool:
    """Whether a name directly below `/kaggle/input` is a file's: it has a suffix."""
    return "/" not in name and PurePath(name).suffix != ""


def _named(parts: list[str]) -> str:
    """Return what a path below `input` names: `name`, `owner/name` or `c/name`; "" if it names no input."""
    length = _NEW_FORMS.get(parts[0])
    if length is None:
        return parts[0]  # of Kaggle's oldest form it is a file, of whichever input is the only one
    if len(parts) < length:
        return ""
    return f"c/{parts[1]}" if parts[0] == "competitions" else f"{parts[1]}/{parts[2]}"


def sentence(notebook: Any, missing: dict[str, str], lookup: Lookup) -> str:
    """Return one sentence that names the missing inputs' paths and the options to give; "" if none is missing."""
    if not missing:
        return ""
    options = [_option(name, notebook, lookup) for name in missing]
    paths = list(missing.values())
    shown = ", ".join(paths[:_MAX_NAMED]) + (f" and {len(paths) - _MAX_NAMED} more" if len(paths) > _MAX_NAMED else "")
    given = " ".join(dict.fromkeys(options))
    return f"The notebook reads {shown}, and no such input is attached: give haversack run {given}"


def _option(name: str, notebook: Any, lookup: Lookup) -> str:
    """Return the option that attaches the input `name`, with a place to fill in what nobody knows."""
    if "/" in name:
        return f"--input kaggle:{name}"
    if _is_file(name):
        return "--input kaggle:OWNER/NAME"
    if found := lookup(name):
        return " or ".join(f"--input {source}" for source in found[:_MAX_NAMED])
    sources = _data_sources(notebook)
    if sources == ["competition"]:
        return f"--input kaggle:c/{name}"
    owner = "OWNER" if sources and "competition" not in sources else "OWNER-or-c"
    return f"--input kaggle:{owner}/{name}"


def _data_sources(notebook: Any) -> list[str]:
    """Return the kinds of the sources in Kaggle's metadata, such as "competition" and "datasetVersion"."""
    metadata = notebook["metadata"].get("kaggle")
    sources = metadata.get("dataSources") if isinstance(metadata, dict) else None
    return [str(one.get("sourceType")) for one in sources or [] if isinstance(one, dict)]
