"""How a process of haversack's own Python is started from a kernel, and what environment it gets.

`HAVERSACK_PYTHON` names that Python: the one of `haversack run`. It runs isolated (`-I`): neither the kernel's
PYTHONPATH nor its working directory adds modules to it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from haversack import place

VARIABLE = "HAVERSACK_CLIENTS"
"""The environment variable that is "process" in a kernel whose clients run in processes of haversack's own Python."""

# Runs the module named by the second argument. The first is the folder that holds our package: `-I` leaves out the
# user's site-packages and a checkout that is not installed.
_BOOTSTRAP = (
    "import runpy, site, sys; folder, module = sys.argv[1:3]; del sys.argv[1:3]; "
    "folder in sys.path or site.addsitedir(folder); runpy.run_module(module, run_name='__main__', alter_sys=True)"
)
IMPORTED_FROM = Path(__file__).resolve().parents[3]
"""The folder with our package: site-packages, or a checkout that is not installed. In a kernel the package is a link,
and what it links to lies among its own dependencies."""
# Variables that lead to the kernel's own environment. With `-I` Python ignores its own; uv and others do not.
_PRIVATE = ("PYTHON", "VIRTUAL_ENV", "CONDA_PREFIX", VARIABLE)


def is_apart() -> bool:
    """Whether this process must not import the clients, but start processes of haversack's own Python for them."""
    return os.environ.get(VARIABLE) == "process"


def command(module: str) -> list[str]:
    """Return the command that runs our `module` as a program in haversack's own Python; arguments may follow."""
    return [place.interpreter(), "-I", "-c", _BOOTSTRAP, str(IMPORTED_FROM), module]


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return `inherited`, a kernel's environment variables, without those that lead to the kernel's own packages."""
    return {name: value for name, value in inherited.items() if not name.startswith(_PRIVATE)}
