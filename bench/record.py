"""Where benchmarks put what they measured: one JSON file each, an entry by name, with the machine and the versions."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


class Record:
    """The results in `bench/results/NAME.json`; `packages` are those whose versions matter."""

    def __init__(self, name: str, packages: tuple[str, ...]) -> None:
        self._path = Path(__file__).with_name("results") / f"{name}.json"
        self._packages = packages

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """What was measured before; {} where nothing was."""
        return self._all().get(kind, {}).get(name, {})

    def put(self, kind: str, name: str, measured: dict[str, Any]) -> None:
        """Put one result among the others."""
        every = self._all()
        every.setdefault(kind, {})[name] = {**measured, "machine": self._machine()}
        self._path.parent.mkdir(exist_ok=True)
        self._path.write_text(json.dumps(_rounded(every), indent=1, ensure_ascii=False) + "\n")

    def _all(self) -> dict[str, Any]:
        return json.loads(self._path.read_text()) if self._path.exists() else {}

    def _machine(self) -> dict[str, Any]:
        """What the figures were taken on; a load above the number of cores makes them rough."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        versions = {name: _version(name) for name in self._packages}
        return {
            "cores": os.cpu_count(),
            "GB of memory": memory // 10**9,
            "load": os.getloadavg()[0],
            "python": platform.python_version(),
            **{name: found for name, found in versions.items() if found},
        }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _rounded(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _rounded(value) for key, value in values.items()}
    if isinstance(values, list):
        return [_rounded(value) for value in values]
    return round(values, 4) if isinstance(values, float) else values
