"""Which backend Keras runs on in a job: the one that it would run on in Colab, unless the user has chosen another.

Keras takes TensorFlow if nobody chooses, and fails to import without it. So where TensorFlow is there, nothing is set;
elsewhere `KERAS_BACKEND` names a framework that is there. The user chooses by the environment variable, in a cell
before Keras is imported, or in `keras.json`; a notebook that calls `haversack.fit` or `haversack.distribute` has chosen
JAX, on which these train.

The choice is made before the kernel starts, from the notebook's cells and from what its environment holds. Nothing is
imported for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from haversack.packages.imports import Needs, needs
from haversack.packages.table import project_of, provider_of

VARIABLE = "KERAS_BACKEND"
FRAMEWORKS = ("tensorflow", "jax", "torch")
"""The modules that Keras can train on, in the order in which they are preferred."""
_NAMES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
# How a cell sets the variable, in Python as `ast.unparse` writes it. A variable of a command or of another process does
# not count.
_SET_IN_CELL = re.compile(
    rf"environ\['{VARIABLE}'\]\s*=(?!=)"
    rf"|environ(\.update\(|\s*\|=)[^\n]*\b{VARIABLE}'?\s*[:=]"
    rf"|(setdefault|putenv)\('{VARIABLE}'"
    rf"|run_line_magic\('(set_)?env', '{VARIABLE}\b"
)
_TRAINS_WITH_HAVERSACK = re.compile(r"\bhaversack\.(fit|distribute)\b|\bfrom haversack import .*\b(fit|distribute)\b")
# Nothing but these words in a cell can decide.
_DECISIVE = re.compile(rf"{VARIABLE}|tensorflow|haversack|\bpip")


@dataclass(frozen=True)
class KerasBackend:
    """The backend of a job.

    Attributes:
        name: "tensorflow", "jax" or "torch"; "" if the notebook sets it or no framework is known to be there.
        why: the reason, in words.
        variable: the value to give `KERAS_BACKEND`; None to leave the variable as it is.
    """

    name: str
    why: str
    variable: str | None = None


def keras_backend(
    cells: Sequence[str], environ: Mapping[str, str], available: Collection[str], configured: str | None = None
) -> KerasBackend:
    """Return the backend for a notebook whose code cells are `cells`.

    Args:
        cells: the sources of its code cells.
        environ: the user's environment variables.
        available: those of `FRAMEWORKS` that the kernel can import from the start; see `importable`.
        configured: the backend in the user's `keras.json`; see `configured_backend`.
    """
    if environ.get(VARIABLE):
        return KerasBackend(environ[VARIABLE], f"the environment variable {VARIABLE} is set")
    needed = needs(cells) if any(_DECISIVE.search(cell) for cell in cells) else Needs()
    if _SET_IN_CELL.search(needed.source):
        return KerasBackend("", f"the notebook sets {VARIABLE}")
    there = {*available, *_brought_by(needed)}
    if configured in there:
        return KerasBackend(configured, "keras.json names it", None if configured == "tensorflow" else configured)
    if _TRAINS_WITH_HAVERSACK.search(needed.source) and "jax" in there:
        return KerasBackend("jax", "the notebook trains with haversack, which trains on JAX", "jax")
    if "tensorflow" in there:
        imported = any(one.top == "tensorflow" for one in needed.imports)
        return KerasBackend("tensorflow", "the notebook imports it" if imported else "it is Keras's default")
    other = next((name for name in FRAMEWORKS if name in there), None)
    if other is None:
        return KerasBackend("", "no framework that Keras runs on is installed")
    return KerasBackend(other, f"TensorFlow is not installed, and {_NAMES[other]} is", other)


def importable() -> set[str]:
    """Return those of `FRAMEWORKS` that this process could import; they are looked up, not imported."""
    # A folder without code, which an uninstalled package may leave behind, has no origin.
    return {name for name in FRAMEWORKS if (spec := find_spec(name)) is not None and spec.origin is not None}


def provided_by(projects: Collection[str]) -> set[str]:
    """Return those of `FRAMEWORKS` that an environment with these normalized `projects` has."""
    providers = {name: provider_of(name) for name in FRAMEWORKS}
    return {name for name, provider in providers.items() if provider and provider.projects & set(projects)}


def configured_backend(environ: Mapping[str, str], home: Path) -> str | None:
    """Return the backend in the user's `keras.json`, below `KERAS_HOME` or `home`/.keras; None if there is none.

    Keras itself writes that file, with its default, when it is first imported.
    """
    folder = Path(environ["KERAS_HOME"]) if environ.get("KERAS_HOME") else home / ".keras"
    try:
        content = json.loads((folder / "keras.json").read_text())
    except (OSError, ValueError):
        return None  # Keras, too, goes on with its defaults
    backend = content.get("backend") if isinstance(content, dict) else None
    return backend if isinstance(backend, str) else None


def _brought_by(needed: Needs) -> set[str]:
    """Return those of `FRAMEWORKS` that the notebook's pip cells install, or that a cell of it must import."""
    brought = provided_by({project_of(one.requirement) for one in needed.installations})
    return brought | {one.top for one in needed.imports if one.required and one.top in FRAMEWORKS}
