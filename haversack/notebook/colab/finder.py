"""An import finder for `google.colab` on machines that are not Colab.

The finder is last on `sys.meta_path`: Python asks it only after every other finder has failed, so an installed genuine
package always wins. `google` stays a namespace package. The folder `namespace` beside this file, appended to
`sys.path`, holds an otherwise empty `google/`, and other `google.*` packages may be installed before or after.
haversack never installs files as `google/colab/`.
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
# What the module object `google.colab` takes from ours.
_SHARED = ("__all__", "__dir__", "__getattr__", "__version__", "load_ipython_extension")


def install() -> None:
    """Add the finder to this process. A second call does nothing."""
    if not any(isinstance(finder, ColabFinder) for finder in sys.meta_path):
        sys.meta_path.append(ColabFinder())
    if _NAMESPACE not in sys.path:
        sys.path.append(_NAMESPACE)
    google = sys.modules.get("google")
    # A namespace package recomputes its path from `sys.path`. A legacy package has a plain list instead; an empty one
    # gets the entry here.
    if google is not None and isinstance(google.__path__, list) and not google.__path__:
        google.__path__.append(f"{_NAMESPACE}/google")


class ColabFinder(MetaPathFinder, Loader):
    """Import `google.colab[.NAME]` as `haversack.notebook.colab[.NAME]`, one module object under two names."""

    def __init__(self) -> None:
        # The specs of our modules by public name, between `create_module` and `exec_module`.
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
        # The package itself is a new module with an empty `__path__`. With the path of ours, Python's own finder would
        # find our files first and load each module a second time.
        package = ModuleType(_PUBLIC, ours.__doc__)
        package.__dict__.update({name: getattr(ours, name) for name in _SHARED})
        return package

    def exec_module(self, module: ModuleType) -> None:
        # Our module is already executed. The import system has overwritten its `__spec__` with the alias's: restore it.
        own = self._specs.pop(module.__name__.replace(_OURS, _PUBLIC, 1))
        if module.__name__ != _PUBLIC:
            module.__spec__ = own
