"""Colab's package `google.colab`, as far as it makes sense elsewhere; `finder` makes it importable under that name.

Runs in the kernel, except `hints`. Signatures, messages and exceptions are those of googlecolab/colabtools at 3c07d77.
As upstream, each module lists its public names in `__all__` and imports other names with a leading underscore. A
function whose effect is only cosmetic does nothing. A function that cannot work here raises an error that says what to
do instead. `marks` answers those who ask whether they run on Colab, and `libraries` adapts libraries to that answer.
"""

from __future__ import annotations

import importlib as _importlib
from types import ModuleType as _ModuleType
from typing import Any as _Any

__all__ = [
    "ai",
    "auth",
    "data_table",
    "drive",
    "errors",
    "files",
    "html",
    "output",
    "patches",
    "runtime",
    "sheets",
    "snippets",
    "syntax",
    "userdata",
    "widgets",
]

__version__ = "0.0.1a2"

# Importable as `google.colab.NAME`, and no part of the public surface.
_PRIVATE = ("_message",)


def __getattr__(name: str) -> _ModuleType:
    if name not in __all__ and name not in _PRIVATE:
        raise AttributeError(f"module 'google.colab' has no attribute {name!r}")
    return _importlib.import_module(f"haversack.notebook.colab.{name}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_PRIVATE, "__all__", "__doc__", "__name__", "__path__", "__spec__", "__version__"])


def load_ipython_extension(ipython: _Any) -> None:
    """Do nothing, for `%load_ext google.colab`: a job's kernel has loaded haversack's extension already."""
