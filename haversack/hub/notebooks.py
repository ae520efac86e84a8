"""Notebooks for Kaggle's `kernels pull`: plain files, `notebooks/<owner>/<slug>.ipynb` in the hub's folder.

The folder is the truth: a file that is put there is served, as it is now. There are no versions, and nothing is run:
`kernels push`, which on Kaggle runs a notebook, is not supported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from haversack.hub.refusal import Refusal

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_MAX_BYTES = 200 * 10**6


@dataclass(frozen=True)
class StoredNotebook:
    """A notebook: the `owner` and `slug` of its address, and the text of its file, `source`."""

    owner: str
    slug: str
    source: str

    @property
    def ref(self) -> str:
        """`owner/slug`, the notebook's name."""
        return f"{self.owner}/{self.slug}"


class NotebookStore:
    """The notebooks in `folder`, which need not exist. Thread-safe: nothing is kept in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, owner: str, slug: str) -> StoredNotebook:
        """Return a notebook. Raises `Refusal`: 404 if it does not exist, 400 if its file is too long or is not text."""
        path = self.folder / owner / f"{slug}.ipynb"
        if not (_NAME.fullmatch(owner) and _NAME.fullmatch(slug) and path.is_file()):
            raise Refusal(404, "notFound", f"There is no notebook {owner[:100]}/{slug[:100]}.")
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise Refusal(400, "invalid", f"The notebook {owner}/{slug} is too long to be served.")
            return StoredNotebook(owner, slug, path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            raise Refusal(400, "invalid", f"The notebook {owner}/{slug} is not text in UTF-8.") from None
