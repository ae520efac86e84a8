"""A package index of tiny wheels, which pip's configuration names, with stand-ins for what every kernel holds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from haversack.environment.lock import Locker
from haversack.environment.requirements import Requirements, requirements_of
from haversack.environment.store import Store
from haversack.environment.uv import Uv
from tests.environment.wheels import index, wheel

BUDGET = 10**9


class Workshop:
    """The index, and what makes locks and environments from it.

    Attributes:
        wheels: the folder of the index's wheels.
        shown: the lines of progress so far.
        notices: the sentences so far.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wheels = folder / "wheels"
        self.cache = folder / "cache"
        self.shown: list[str] = []
        self.notices: list[str] = []
        for name in ("ipykernel", "pip"):
            wheel(self.wheels, name, "20.0")
        self.publish()

    def publish(self, *wheels: Path) -> str:
        """Put all wheels made so far into the index, and return its address."""
        return index(self.folder / "index", *self.wheels.glob("*.whl"))

    @property
    def uv(self) -> Uv:
        return Uv.make(self.cache, self.shown.append, self.notices.append)

    @property
    def locker(self) -> Locker:
        return Locker(self.cache / "environments" / "locks", self.uv)

    def store(self, budget: int = BUDGET) -> Store:
        return Store(self.cache / "environments", budget, self.uv)


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    made = Workshop(tmp_path)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", made.publish())
    return made


def needs(*requirements: str, python: str = "", lock: str = "", block: str = "") -> Requirements:
    """What a notebook with these requirements in a PEP 723 block needs."""
    listed = ", ".join(f'"{one}"' for one in requirements)
    version = f'# requires-python = "{python}"\n' if python else ""
    cell = f"# /// script\n{version}# dependencies = [{listed}]\n# ///"
    return requirements_of([cell], {"uv.lock": lock} if lock else {})
