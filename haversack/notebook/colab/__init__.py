"""Colab's own package, `google.colab`, as far as it makes sense elsewhere; see `finder` for how it gets that name.

Signatures, messages and exceptions are those of googlecolab/colabtools at 3c07d77. As upstream, every public name of a
module stands in its `__all__`, and what a module imports is underscore-prefixed. What cannot work here raises an error
that says what to do instead.
"""

from __future__ import annotations

import importlib as _importlib
from types import ModuleType as _ModuleType

__all__ = [
    "auth",
    "drive",
    "errors",
    "files",
    "output",
    "patches",
    "runtime",
    "syntax",
    "userdata",
]


def __getattr__(name: str) -> _ModuleType:
    if name not in __all__:
        raise AttributeError(f"module 'google.colab' has no attribute {name!r}")
    return _importlib.import_module(f"haversack.notebook.colab.{name}")
