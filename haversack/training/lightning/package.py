"""Which of Lightning's two packages an object is of: `lightning.pytorch` or `pytorch_lightning`.

Both have the same modules with classes of their own, so what is subclassed here is made once for each of them. Neither
is imported before the user has.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def package_of(value: Any) -> str | None:
    """Return the package whose `Trainer` the object `value` is; None for anything else."""
    for kind in type(value).__mro__:
        for package in PACKAGES:
            if kind.__name__ == "Trainer" and kind.__module__.startswith(f"{package}."):
                return package
    return None


@functools.cache
def module(package: str, name: str = "") -> Any:
    """Return a module of the package, such as `callbacks`; without a name the package."""
    return importlib.import_module(f"{package}.{name}" if name else package)


def version(package: str) -> str:
    return str(module(package).__version__)
