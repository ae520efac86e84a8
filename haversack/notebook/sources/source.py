"""A notebook by whatever names it, as a local file: the argument of `haversack run` and `haversack env`.

A file of this disk is used where it is. Anything else is fetched into a temporary folder, alone: nothing lies beside
it. The job keeps a copy of its own, so its later sessions and `--resume` fetch nothing.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from haversack.notebook.sources import addresses

_LONGEST_NAME = 100  # characters


@dataclass(frozen=True)
class GivenNotebook:
    """A notebook file.

    Attributes:
        path: the file.
        address: where it was fetched from, without secrets; "" for a file of this machine that was named by its path.
        is_own: whether the notebook lies on the user's own disk or drive. Anything else is somebody else's program.
    """

    path: Path
    address: str = ""
    is_own: bool = True


@contextmanager
def opened(source: str, hub: str | None = None) -> Iterator[GivenNotebook]:
    """Yield the notebook that `source` names; if it was fetched, its file is deleted afterwards.

    `hub` is as in `credentials.drive`. A path is not looked at. Raises what `addresses.parse` and `fetching.fetch`
    raise, and `OSError` if the temporary file cannot be written.
    """
    address = addresses.parse(source)
    if address.kind == "path":
        yield GivenNotebook(Path(address.target).expanduser())
        return
    from haversack.notebook.sources import fetching  # with an HTTP client, which a path does not need

    fetched = fetching.fetch(address, hub)
    with tempfile.TemporaryDirectory(prefix="haversack-") as folder:
        path = Path(folder, file_name(fetched.name))
        path.write_bytes(fetched.content)
        where = "standard input" if address.kind == "input" else addresses.shown(source)
        yield GivenNotebook(path, where, fetched.is_own)


def file_name(name: str) -> str:
    """Return the name of the file for a notebook that its source calls `name`: one part of a path, with `.ipynb`."""
    plain = re.sub(r"[^\w .()+-]+", "-", name.rpartition("/")[2]).strip(" .-")
    stem = re.sub(r"(?i)\.ipynb$", "", plain)[:_LONGEST_NAME].rstrip(" .") or "notebook"
    return f"{stem}.ipynb"
