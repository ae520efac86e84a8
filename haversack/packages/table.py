"""Which project provides a module, from the curated table `table.tsv`.

The table has the modules that Colab and Kaggle preinstall. A project is never guessed from a module's name: a name that
looks right can be a dead project, or one that somebody registered to be installed by mistake.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class Provider:
    """A row of the table: what provides the module `module`.

    Attributes:
        module: a module's name, dotted where several projects share its first name.
        project: the project on PyPI, or "" if none provides it.
        colab: the version that Colab has; "yes" if it has one of no known version; "" if it has none.
        kaggle: whether Kaggle preinstalls it.
        how: "" to install `project` by its name; "kernel" if every kernel has the module; "haversack"; "kaggle" if it
            exists in Kaggle's own notebooks only; "apt:NAME" if Ubuntu's package NAME has it; else the requirement to
            install.
        others: normalized names of other projects that provide the same module.
    """

    module: str
    project: str
    colab: str
    kaggle: bool
    how: str
    others: frozenset[str]

    @property
    def requirement(self) -> str:
        """What to install, as pip takes it; "" if nothing is to be installed."""
        if self.how in ("kernel", "haversack", "kaggle") or self.how.startswith("apt:"):
            return ""
        return self.how or self.project

    @property
    def projects(self) -> frozenset[str]:
        """The normalized names of all projects that provide the module."""
        return self.others | ({normalized(self.project)} if self.project else set())


def provider_of(module: str) -> Provider | None:
    """Return the row for the dotted `module`, or for the longest of its parents that has one; None if there is none."""
    parts = module.split(".")
    rows = table()
    return next((rows[name] for count in range(len(parts), 0, -1) if (name := ".".join(parts[:count])) in rows), None)


@cache
def table() -> dict[str, Provider]:
    """Return all rows by module."""
    text = (resources.files("haversack.packages") / "table.tsv").read_text(encoding="utf-8")
    rows = csv.DictReader((line for line in text.splitlines() if not line.startswith("#")), delimiter="\t")
    return {row["import"]: _provider(row) for row in rows}


def _provider(row: dict[str, str | None]) -> Provider:
    value = {name: "" if text in (None, "-") else str(text) for name, text in row.items()}
    others = frozenset(name for name in value["others"].split(",") if name)
    return Provider(value["import"], value["project"], value["colab"], value["kaggle"] == "yes", value["how"], others)


def project_of(requirement: str) -> str:
    """Return the normalized name of the project that `requirement`, as pip takes it, installs.

    For an address or a file of a wheel that is its name; "" for a path, and where the name is not a literal.
    """
    if named := re.match(
        r"([A-Za-z0-9]([\w.-]*[A-Za-z0-9])?)\s*(\[[^]]*\])?\s*(@|[<>=!~;(]|\s--|$)", requirement.strip()
    ):
        return normalized(named[1])
    if wheel := re.search(r"(?:^|/)([A-Za-z0-9_.]+)-\d[^/]*\.(?:whl|tar\.gz|zip)", requirement):
        return normalized(wheel[1])
    if egg := re.search(r"#egg=([\w.-]+)", requirement):
        return normalized(egg[1])
    if repository := re.match(r"git\+\S+?/([\w.-]+?)(\.git)?(@[^/]+)?(#.*)?$", requirement):
        return normalized(repository[1])
    return ""


def normalized(name: str) -> str:
    """Return a project's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
