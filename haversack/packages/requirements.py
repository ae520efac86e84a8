"""From a notebook to the list of packages that it needs, and where each came from.

In this order: the list that the notebook brings (`recipe`), then its imports by the curated table, less what its own
pip cells install, and the packages that these imports use unseen (`companions`). A PEP 723 block or a lock is complete,
so imports add nothing to it. A module that is in no table is never guessed: `Requirements.check` names all at once.

Nothing is resolved, locked or installed here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from haversack.errors import InputError
from haversack.packages import imports
from haversack.packages.companions import companions_of
from haversack.packages.declared import Declaration
from haversack.packages.imports import Installation, Needs
from haversack.packages.recipe import Recipe, recipe_of
from haversack.packages.table import Provider, normalized, project_of, provider_of, table


@dataclass(frozen=True)
class Requirement:
    """One package to install: `text` as pip takes it, its normalized `project` ("" for a path), and `why`, in words."""

    text: str
    project: str
    why: str


@dataclass(frozen=True)
class Module:
    """An imported module and who provides it.

    Attributes:
        name: the module, as the table or, if that has none, the import names it.
        cells: the numbers of the code cells that import it.
        required: whether one of these imports runs whenever its cell runs.
        state: "install" (by the table), "listed" (in the notebook's own list), "pip cell", "kernel", "haversack",
            "local", "maybe" (in no table, but cells or packages may bring it) or "unknown".
        why: who provides it, in words.
    """

    name: str
    cells: tuple[int, ...]
    required: bool
    state: str
    why: str

    @property
    def missing(self) -> bool:
        """Whether a cell will stop at this import."""
        return self.required and self.state == "unknown"


@dataclass(frozen=True)
class Requirements:
    """What one notebook needs.

    Attributes:
        requirements: the packages that must be there before the first cell.
        modules: the imported modules, in order.
        installations: what the notebook's own pip cells install.
        python: the Python version that the notebook asks for, as a PEP 440 specifier; "" for none.
        options: options for the resolver from `requirements.txt`, such as `--index-url URL`.
        lock: the `uv.lock` that the notebook carries; "" if there is none.
        block: the TOML text of its PEP 723 block; "" if there is none.
        environment: what its calls of `haversack.environment` describe; the packages are among `requirements`.
        files: the files and folders beside the notebook that it imports or runs, name → path.
    """

    requirements: tuple[Requirement, ...]
    modules: tuple[Module, ...]
    installations: tuple[Installation, ...]
    python: str = ""
    options: tuple[str, ...] = ()
    lock: str = ""
    block: str = ""
    environment: Declaration = field(default_factory=Declaration)
    files: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Raise an `InputError` that names every required import of which nobody knows the package; None otherwise."""
        missing = [module for module in self.modules if module.missing]
        if not missing:
            return
        named = ", ".join(f"{module.name} ({_cells(module.cells)}{_reason(module)})" for module in missing)
        count = "an import" if len(missing) == 1 else f"{len(missing)} imports"
        raise InputError(
            f"The table of packages does not provide {count} of this notebook: {named}.", _next_step(missing)
        )

    @property
    def uses_haversack(self) -> bool:
        """Whether the notebook imports haversack itself."""
        return any(module.state == "haversack" and module.name.startswith("haversack") for module in self.modules)

    @property
    def page(self) -> Requirements:
        """What its calls of `haversack.environment` need, without the notebook's own imports."""
        listed = set(self.environment.packages)
        requirements = tuple(one for one in self.requirements if one.text in listed)
        modules = tuple(module for module in self.modules if module.name.partition(".")[0] == "haversack")
        return replace(self, requirements=requirements, modules=modules, installations=())

    def encode(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def decode(cls, text: str) -> Requirements:
        """Return what `encode` wrote. Raises `ValueError`, `TypeError` or `KeyError` for anything else."""
        values = json.loads(text)
        values["requirements"] = tuple(Requirement(**one) for one in values["requirements"])
        values["modules"] = tuple(Module(**{**one, "cells": tuple(one["cells"])}) for one in values["modules"])
        values["installations"] = tuple(Installation(**one) for one in values["installations"])
        values["options"] = tuple(values["options"])
        values["environment"] = Declaration.decode(values["environment"])
        return cls(**values)


def requirements_of(
    cells: Sequence[str],
    metadata: Mapping[str, Any],
    folder: Path | None = None,
    pages: Mapping[str, Path] | None = None,
) -> Requirements:
    """Return what a notebook needs.

    `cells` are its code cells that are not empty, `metadata` is the notebook's, `folder` the folder that it lies in, or
    None, and `pages` notebooks elsewhere that it runs, by name. Raises `InputError` if the notebook's own list or an
    environment that it describes cannot be read.
    """
    needs = imports.needs(cells, folder, pages)
    return _Search(needs, recipe_of(cells, metadata, folder, needs.environment)).result()


class _Search:
    """The search for the providers of one notebook's imports."""

    def __init__(self, needs: Needs, recipe: Recipe) -> None:
        self._needs = needs
        self._recipe = recipe
        self._listed = {project_of(one) for one in recipe.dependencies} - {""}
        self._installed: dict[str, int] = {}
        for one in needs.installations:
            if one.certain:
                self._installed.setdefault(project_of(one.requirement), one.cell)
        self._found = {
            text: Requirement(text, project_of(text), recipe.origin) for text in dict.fromkeys(recipe.dependencies)
        }

    def result(self) -> Requirements:
        groups: dict[str, list[imports.Import]] = {}
        for one in self._needs.imports:
            if name := self._name(one):
                groups.setdefault(name, []).append(one)
        modules = [self._module(name, group) for name, group in groups.items()]
        if not self._recipe.complete:
            self._add_companions()
        return Requirements(
            tuple(self._found.values()),
            tuple(self._reconsidered(module) for module in modules),
            tuple(self._needs.installations),
            self._recipe.python,
            tuple(self._recipe.options),
            self._recipe.lock,
            self._recipe.block,
            self._needs.environment,
            {name: str(path) for name, path in self._needs.files.items()},
        )

    def _name(self, one: imports.Import) -> str:
        """Return the name by which an import is looked up; "" for one of a shared package alone, such as `google`."""
        if one.top in self._needs.local:
            return one.top
        if provider := provider_of(one.module):
            return provider.module
        module = one.module.removesuffix(".*")
        return "" if _is_shared(module) else module if _is_shared(one.top) else one.top

    def _module(self, name: str, group: list[imports.Import]) -> Module:
        cells = tuple(sorted({one.cell for one in group}))
        state, why = self._provided(name, cells)
        return Module(name, cells, any(one.required for one in group), state, why)

    def _provided(self, name: str, cells: tuple[int, ...]) -> tuple[str, str]:
        """Return the state of the module `name` and why; add its project to what is found if the table provides it."""
        if name in self._needs.local:
            return "local", "a module of the notebook's own"
        provider = provider_of(name)
        if provider and provider.how in ("kernel", "haversack"):
            return provider.how, "part of every kernel" if provider.how == "kernel" else "provided by haversack"
        projects = provider.projects if provider else {normalized(name)}
        if listed := sorted(projects & self._listed):
            return "listed", f"{listed[0]}, from the {self._recipe.origin}"
        if installed := sorted(projects & self._installed.keys()):
            return "pip cell", f"{installed[0]}, which cell {self._installed[installed[0]]} installs"
        if self._recipe.complete:
            return "maybe", f"not in the {self._recipe.origin}; a package of it may bring it"
        if provider and provider.requirement:
            self._add(provider.requirement, f"import {name} ({_cells(cells)})")
            return "install", f"{provider.project}{_preinstalled(provider)}"
        if name in self._needs.folders:
            return "local", "a folder beside the notebook"
        return "unknown", _absent(provider)

    def _add(self, text: str, why: str) -> None:
        self._found.setdefault(text, Requirement(text, project_of(text), why))

    def _add_companions(self) -> None:
        local = self._needs.local
        modules = {one.module for one in self._needs.imports if one.top not in local}
        known = self._listed | self._installed.keys() | {one.project for one in self._found.values()}
        for one in companions_of(modules, self._needs.source):
            provider = next((row for row in table().values() if normalized(one.project) in row.projects), None)
            if not (provider.projects if provider else {normalized(one.project)}) & known:
                self._add(one.project, f"{one.module} needs it" + (f": {one.because}" if one.because else ""))

    def _reconsidered(self, module: Module) -> Module:
        """`module` with the state "maybe" if it is in no table, but something in the notebook may bring it.

        Colab's list holds whatever its packages depend on, so a package in it brings no module unknown to the table.
        """
        if module.state != "unknown":
            return module
        brought = [f"the code that cell {number} brings" for number in self._needs.code_cells]
        sources = [(one.requirement, project_of(one.requirement)) for one in self._needs.installations]
        sources += [(one.text, one.project) for one in self._found.values()]
        brought += [text for text, project in sources if project not in _closed()]
        if not brought:
            return module
        why = f"{module.why}; it may come from {brought[0]}" + (f" or {len(brought) - 1} more" if brought[1:] else "")
        return Module(module.name, module.cells, module.required, "maybe", why)


@cache
def _closed() -> frozenset[str]:
    """The projects that Colab has, with all that they depend on."""
    return frozenset(project for row in table().values() if row.colab for project in row.projects)


def _is_shared(name: str) -> bool:
    """Whether `name` is only the first name of modules that several projects have, such as `google`."""
    return provider_of(name) is None and any(module.startswith(f"{name}.") for module in table())


def _preinstalled(provider: Provider) -> str:
    places = [f"Colab has {'it' if provider.colab == 'yes' else provider.colab}"] if provider.colab else []
    places += ["Kaggle has it"] if provider.kaggle else []
    return f" ({', '.join(places)})" if places else ""


def _absent(provider: Provider | None) -> str:
    if provider is None:
        return "in no table"
    if provider.how == "kaggle":
        return "part of Kaggle's own notebooks only"
    return f"Ubuntu's package {provider.how.removeprefix('apt:')}, which Colab installs with apt"


def _reason(module: Module) -> str:
    return "" if provider_of(module.name) is None else f", {module.why}"


def _next_step(missing: Sequence[Module]) -> str:
    """What to do about imports of which no package is known, and about those whose package pip cannot install."""
    unknown = [module.name for module in missing if provider_of(module.name) is None]
    others = [module.name for module in missing if module.name not in unknown]
    steps = []
    if unknown:
        which = f"the package of {', '.join(unknown)}" if len(unknown) == 1 else f"the packages of {', '.join(unknown)}"
        steps.append(f"Install {which} in a cell before, by the name on PyPI: %pip install PACKAGE …")
    if others:
        steps.append(f"Import {', '.join(others)} in a `try` with `except ImportError`: pip does not provide it.")
    return " ".join(steps)


def _cells(cells: Sequence[int]) -> str:
    return f"cell {cells[0]}" if len(cells) == 1 else f"cells {', '.join(map(str, cells))}"
