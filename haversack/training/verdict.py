"""Whether a framework in versions that haversack was not tested with resumes exactly: a canary is run once, and noted.

A private name that is still there may have changed its meaning. So a tiny training is interrupted and resumed in a
process of its own, and the verdict is kept in the cache folder, once for each set of versions.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from haversack import disk, settings

VARIABLE = "HAVERSACK_CANARY"
"""The environment variable that only a canary's own process has."""
_TIMEOUT = 300  # seconds

Range = tuple[tuple[int, int], tuple[int, int]]
"""Versions from the first (included) to the last (excluded), as major and minor number."""


def failure_of(canary: str, versions: Mapping[str, str], title: str, variables: Mapping[str, str]) -> str:
    """Return why the module `canary` failed with these versions, "" if it passed; from the cache if it is there.

    `title` names the versions in a line that is printed before it runs; `variables` are added to its environment.
    """
    python = ".".join(map(str, sys.version_info[:2]))
    name = "-".join(f"{package}-{version}" for package, version in versions.items())
    known = settings.load().cache / "canary" / f"{name}-python-{python}"
    if known.exists():
        return known.read_text()
    print(
        f"haversack: checking whether trainings resume exactly with {title}; this is done once for these versions",
        file=sys.stderr,
        flush=True,
    )
    try:
        done = _run(canary, variables)
    except subprocess.TimeoutExpired:
        return f"no result within {_TIMEOUT} s"
    if done.returncode not in (0, 1):
        return f"it ended with status {done.returncode}"  # killed, for example: the next session tries again
    failure = done.stderr.strip().splitlines()[-1] if done.returncode else ""
    with suppress(OSError):  # without room for the verdict, the next session finds it again
        known.parent.mkdir(parents=True, exist_ok=True)
        disk.write(known, failure, durable=False)
    return failure


def exists(module: str, name: str) -> bool:
    """Whether the dotted `name` is an attribute of the module."""
    try:
        found = importlib.import_module(module)
        for attribute in name.split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError):
        return False
    return True


def is_in(version: str, tested: Range) -> bool:
    first, after = tested
    return first <= tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < after


def _run(canary: str, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HAVERSACK_")}
    path = {VARIABLE: "1", "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    return subprocess.run(
        [sys.executable, "-m", canary],
        env={**kept, **path, **variables},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
    )
