"""`haversack.environment(packages=…, apt=…, env=…, run=…)` in a notebook's cells, read without executing them.

The environment is made before the first cell, so the call's arguments must be literals. `imports` finds the calls.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from haversack.errors import InputError

_EXAMPLE = 'haversack.environment(packages=["pandas==2.3.*"], env={"SEED": "1"})'


@dataclass(frozen=True)
class Declaration:
    """An environment as the calls of one notebook describe it.

    Attributes:
        packages: requirements, each a line of a requirements file.
        apt: names of Debian packages.
        env: environment variables, name → value.
        run: shell commands that are executed once, when the environment is made.
        cells: the numbers of the cells with a call, from 1.
    """

    packages: tuple[str, ...] = ()
    apt: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    run: tuple[str, ...] = ()
    cells: tuple[int, ...] = ()

    def __add__(self, other: Declaration) -> Declaration:
        """Return both together; where both set a variable, the value of `other` counts."""
        return Declaration(
            self.packages + other.packages,
            self.apt + other.apt,
            {**self.env, **other.env},
            self.run + other.run,
            tuple(dict.fromkeys(self.cells + other.cells)),
        )

    @classmethod
    def decode(cls, values: Mapping[str, Any]) -> Declaration:
        """Return the declaration of which `values` is the JSON object. Raises `TypeError` for anything else."""
        sequences = {name: tuple(values[name]) for name in ("packages", "apt", "run", "cells")}
        return cls(**{**values, **sequences})


def declaration(call: ast.Call, cell: int) -> Declaration:
    """Return what one call of `haversack.environment` in the cell of that number describes.

    Raises `InputError` if an argument is unknown, no literal, or of the wrong type.
    """
    if call.args:
        raise _wrong(cell, "an argument without a name")
    values = {argument.arg or "**": _literal(argument, cell) for argument in call.keywords}
    if unknown := values.keys() - {"packages", "apt", "env", "run"}:
        raise _wrong(cell, f"the unknown argument `{min(unknown)}`")
    for name in values.keys() & {"packages", "apt", "run"}:
        if not _are_texts(values[name], list | tuple):
            raise _wrong(cell, f"`{name}` that is not a list of strings")
    env = values.get("env", {})
    if not _are_texts(env, dict) or not _are_texts(list(env.values()), list):
        raise _wrong(cell, "`env` that is not a dict from string to string")
    texts = {name: tuple(values.get(name, ())) for name in ("packages", "apt", "run")}
    return Declaration(**texts, env=env, cells=(cell,))


def _literal(argument: ast.keyword, cell: int) -> Any:
    try:
        return ast.literal_eval(argument.value)
    except ValueError:
        name = f"`{argument.arg}`" if argument.arg else "`**`"
        raise _wrong(cell, f"{name} that is not a literal, though it is read before any cell is executed") from None


def _are_texts(values: Any, kind: Any) -> bool:
    return isinstance(values, kind) and all(isinstance(one, str) for one in values)


def _wrong(cell: int, what: str) -> InputError:
    return InputError(f"haversack.environment in cell {cell} has {what}.", f"Write for example {_EXAMPLE}.")
