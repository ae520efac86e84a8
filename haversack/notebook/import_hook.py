"""A finder that does something right after a library's module is executed. Its files are not changed.

Runs in the kernel. Finders compose: each asks the others for the module, so several may wait for the same one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class ImportHook(MetaPathFinder):
    """A finder, to stand first on `sys.meta_path`, that calls a function of `changes` with the module it is named for.

    The other finders still find and load the module.
    """

    def __init__(self, changes: Mapping[str, Callable[[Any], None]]) -> None:
        self.changes = changes

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.changes:
            return None
        spec = self._find(fullname, path, target)
        if spec is None or spec.loader is None or isinstance(spec.loader, type):
            return spec
        execute = spec.loader.exec_module

        def execute_and_change(module: ModuleType) -> None:
            execute(module)
            self.changes[fullname](module)

        # Safe to assign: this loader object was created for this import alone.
        spec.loader.exec_module = execute_and_change  # type: ignore[method-assign]
        return spec

    def _find(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        """Return the spec that the first other finder has for the module; None if none has one."""
        for finder in list(sys.meta_path):
            if finder is not self and (spec := finder.find_spec(fullname, path, target)) is not None:
                return spec
        return None
