"""Colab's package `google.colab`, as far as it makes sense elsewhere; `finder` makes it importable under that name.

Runs in the kernel, except `hints`. Signatures, messages and exceptions are those of googlecolab/colabtools at 3c07d77.
As upstream, each module lists its public names in `__all__` and imports other names with a leading underscore. A
function that cannot work here raises an error that says what to do instead.
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
