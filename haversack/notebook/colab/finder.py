"""`google.colab` on machines that are not Colab, by a finder that is asked last.

Python asks it only when nobody else has the module, so the genuine package always wins. `google` itself stays the
namespace package it is: one entry at the end of `sys.path` holds an otherwise empty `google/`, and other `google.*`
packages may be installed before or after. Nothing is ever installed as `google/colab/`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

_PUBLIC = "google.colab"
_OURS = "haversack.notebook.colab"
_NAMESPACE = str(Path(__file__).with_name("namespace"))


def install() -> None:
    """Add the finder to this process; a second call does nothing."""
    if not any(isinstance(finder, ColabFinder) for finder in sys.meta_path):
        sys.meta_path.append(ColabFinder())
    if _NAMESPACE not in sys.path:
        sys.path.append(_NAMESPACE)
    google = sys.modules.get("google")
    # A legacy `google/__init__.py` fixed the package's path before; a namespace package finds the entry by itself.
    if google is not None and isinstance(google.__path__, list) and not google.__path__:
        google.__path__.append(f"{_NAMESPACE}/google")


class ColabFinder(MetaPathFinder, Loader):
    """Answers for `google.colab` and what is below it with the module of that name in `haversack.notebook.colab`."""

    def __init__(self) -> None:
        self._specs: dict[str, ModuleSpec | None] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _PUBLIC and not fullname.startswith(f"{_PUBLIC}."):
            return None
        ours = find_spec(_OURS + fullname.removeprefix(_PUBLIC))
        if ours is None:
            return None
        package = ours.submodule_search_locations is not None
        spec = ModuleSpec(fullname, self, origin=ours.origin, is_package=package)
        spec.has_location = ours.origin is not None
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        ours = importlib.import_module(_OURS + spec.name.removeprefix(_PUBLIC))
        self._specs[spec.name] = ours.__spec__
        if spec.name != _PUBLIC:
            return ours
        # The package is a module of its own with an empty path: with ours, Python would find its modules a second time.
        package = ModuleType(_PUBLIC, ours.__doc__)
        package.__dict__.update({name: getattr(ours, name) for name in ("__all__", "__getattr__")})
        return package

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just given a module of ours its alias's spec; it keeps its own.
        own = self._specs.pop(module.__name__.replace(_OURS, _PUBLIC, 1))
        if module.__name__ != _PUBLIC:
            module.__spec__ = own
