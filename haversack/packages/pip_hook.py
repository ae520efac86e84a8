"""Let every way of calling pip in an environment arrive at `pip_command`, whatever pip it has.

A cell calls pip as `!pip`, `%pip`, `python -m pip`, by a path, in a `%%bash` cell, from a child process of a child
process, or in its own process (`pip.main([…])`). All of these end in the function `main` or `cli` of
`pip._internal.cli.main`, so a finder wraps these two when that module is imported. The finder is installed by a line in
a `.pth` file, which Python executes when it starts (https://docs.python.org/3/library/site.html). pip's own files stay
as they are: `!pip install -U pip` replaces them without a trace of it, `pip.__version__` and `pip --version` are pip's,
and a call that uv cannot serve runs the real functions.

A pip older than 20.0, which has no such module, is not served by uv.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

_MODULE = "pip._internal.cli.main"
_ENTRY_POINTS = ("main", "cli")
_PTH = "haversack_pip.pth"
# Only processes that are pip, or that run a module such as the kernel, pay for the import of this package. An
# environment whose haversack is gone has pip as it is.
_LINE = (
    "import sys; a = getattr(sys, 'argv', ['']) or ['']; "
    "(a[0] == '-m' or 'pip' in a[0]) and __import__('importlib.util').util.find_spec('haversack') and "
    "__import__('haversack.packages.pip_hook', fromlist=['install']).install()\n"
)


def write(packages: Path) -> None:
    """Serve pip in the environment with the site-packages folder `packages` from now on. Raises `OSError`."""
    (packages / _PTH).write_text(_LINE)


def is_written(packages: Path) -> bool:
    """Whether pip is served in the environment with this site-packages folder: it is complete, and a job's own."""
    return (packages / _PTH).exists()


def install() -> None:
    """Serve pip in this process. A second call does nothing."""
    if not any(isinstance(finder, PipFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, PipFinder())


class PipFinder(MetaPathFinder):
    """Finds pip's module with the entry points where it is, and has them wrapped after its execution."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _MODULE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Wrapping(spec.loader)
        return spec


class _Wrapping(Loader):
    """Loads a module by `loader`, then wraps its entry points. All else that is asked of a loader, `loader` answers."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        for name in _ENTRY_POINTS:
            if pip := getattr(module, name, None):
                setattr(module, name, _served(pip))


def _served(pip: Callable[[list[str] | None], int]) -> Callable[[list[str] | None], int]:
    @functools.wraps(pip)
    def main(args: list[str] | None = None) -> int:
        from haversack.packages import pip_command

        return pip_command.serve(sys.argv[1:] if args is None else args, pip)

    return main
