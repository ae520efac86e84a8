"""The command pip in a job's environment: served by uv where `pip` can translate the call, else by pip itself.

    serve(["install", "-q", "pandas"], pip)    # pip's exit status; `pip(arguments)` is the real pip

uv's own lines are printed, and around them those of pip's that readers and programs look for: `Requirement already
satisfied`, `Successfully installed a-1.0 b-2.0`, and the conflicts that an installation leaves behind. Errors and
warnings go to the standard error, the rest to the standard output. The exit status is 1 for every failure.

When uv fails to resolve or to build, pip does not try the same again: it would ask the same indexes for the same
versions and call the same build backend, and fail minutes later. Two failures are different, and uv itself tries again:

- The index cannot be reached: what is in the cache is installed (`--offline`).
- A build imports a module that is installed in the environment but not in uv's isolated build environment. The pip that
  Colab has builds projects without a `pyproject.toml` in the environment itself, so their setup.py may import torch.

`HAVERSACK_PIP=pip` leaves every call to pip. pip's own child processes have it, since pip calls itself to build.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from haversack.errors import InputError
from haversack.packages import torch_build, uv_pip
from haversack.packages.pip import LeftToPip, UvCall, translated
from haversack.packages.pip_settings import UvSettings, uv_settings
from haversack.packages.table import normalized, project_of
from haversack.packages.uv_pip import Outcome, PackageChanges

# In the folder of the environment: a JSON line for each call that changed it.
CHANGES = "haversack-changes.jsonl"
_BY_PIP = "HAVERSACK_PIP"
_CONFIGURATION_ERROR = 2
_ABSENT_MODULE = re.compile(r"ModuleNotFoundError: No module named '([\w]+)")
_FAILED_BUILD = re.compile(r"[Ff]ailed to build `([A-Za-z0-9][\w.-]*)")


def serve(arguments: Sequence[str], pip: Callable[[list[str]], int]) -> int:
    """Do what pip would do for `arguments`, in the environment of this process, and return the exit status.

    `pip` is the real pip. Raises `KeyboardInterrupt` on an interrupt.
    """
    if os.environ.get(_BY_PIP) == "pip":
        return pip(list(arguments))
    call, uv = translated(arguments), uv_pip.uv_program()
    if isinstance(call, LeftToPip):
        if call.verbose:
            _print(f"haversack: pip does this itself, not uv: {call.reason}.")
        return _by_pip(arguments, pip)
    if uv is None:
        return _by_pip(arguments, pip)
    try:
        service = _Service(uv, call)
    except InputError as error:
        # pip would print the line that is wrong, which may hold a password, and end with the same status.
        _print(f"ERROR: {error}", error=True)
        return _CONFIGURATION_ERROR
    return service.run()


def _by_pip(arguments: Sequence[str], pip: Callable[[list[str]], int]) -> int:
    os.environ[_BY_PIP] = "pip"
    try:
        return pip(list(arguments))
    finally:
        del os.environ[_BY_PIP]


class _Service:
    """One call, served by uv."""

    def __init__(self, uv: str, call: UvCall) -> None:
        self._uv = uv
        self._call = call
        self._settings: UvSettings = uv_settings()
        self._installs = call.command == "install"
        self._in_error = False

    def run(self) -> int:
        chosen = torch_build.choose(self._command(), self._variables()) if self._installs else torch_build.Choice()
        if chosen.notice:
            _print(f"haversack: {chosen.notice}")
        outcome = self._uv_pip(*chosen.words)
        if outcome.status and (again := _another_way(outcome)):
            sentence, options = again
            _print(f"haversack: {sentence}")
            self._in_error = False
            outcome = self._uv_pip(*chosen.words, *options)
        if outcome.status == 0:
            self._finish(outcome.changes)
        return 1 if outcome.status > 0 else outcome.status and 128 - outcome.status

    def _uv_pip(self, *words: str) -> Outcome:
        return uv_pip.run(self._command(*words), self._variables(), self._show)

    def _command(self, *words: str) -> list[str]:
        configured = self._settings.arguments if self._installs else ()
        options = ["--python", sys.executable, *configured, *self._call.arguments, *words]
        return [self._uv, "pip", self._call.command, *options]

    def _variables(self) -> dict[str, str]:
        return self._call.variables(self._settings.variables)

    def _show(self, line: str) -> None:
        """Print a line of uv's, as far as pip's `-q` lets it through."""
        self._in_error = self._in_error or line.startswith("error: ")
        if self._in_error:
            _print(line, error=True)
        elif line.startswith("warning: "):
            if self._call.quiet < 2:
                _print(line, error=True)
        elif not self._call.quiet or self._call.command in ("list", "freeze"):
            _print(line)

    def _finish(self, changes: PackageChanges) -> None:
        """Print pip's last lines, and record what changed."""
        lines = []
        if "--dry-run" in self._call.arguments:
            lines = [f"Would install {_named(changes.installed)}"] if changes.installed else []
        elif self._installs:
            lines = [] if self._call.elsewhere else _satisfied(self._call.requirements, changes)
            lines += [f"Successfully installed {_named(changes.installed)}"] if changes.installed else []
        elif self._call.command == "uninstall":
            lines = [f"Successfully uninstalled {name}-{version}" for name, version in changes.removed.items()]
        for line in () if self._call.quiet else lines:
            _print(line)
        if not self._call.elsewhere and "--dry-run" not in self._call.arguments:
            self._settle(changes)

    def _settle(self, changes: PackageChanges) -> None:
        record(changes)
        if changes.installed and self._call.quiet < 2:
            for conflict in self._conflicts(changes):
                _print(f"ERROR: {conflict}", error=True)

    def _conflicts(self, changes: PackageChanges) -> list[str]:
        """What the changed packages no longer agree with, in uv's words. pip installs all the same."""
        command = [self._uv, "pip", "check", "--python", sys.executable]
        lines = uv_pip.run(command, {}, lambda line: None).lines
        return [line for line in lines if any(f"`{name}" in line for name in changes.installed) and "requires" in line]


def _print(line: str, error: bool = False) -> None:
    """Print a line. Once nobody reads any more, as after `pip install … | head -1`, the rest is not printed."""
    stream = sys.stderr if error else sys.stdout
    try:
        print(line, file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _another_way(outcome: Outcome) -> tuple[str, list[str]] | None:
    """Return why and with which options uv may succeed after this failure; None if it would fail again."""
    if uv_pip.UNREACHABLE.search(outcome.error):
        return "The package index cannot be reached: trying again with what is in the cache.", ["--offline"]
    absent = _ABSENT_MODULE.search(outcome.error)
    if absent and importlib.util.find_spec(absent[1]) and _has_backend(outcome.error):
        built = _FAILED_BUILD.search(outcome.error)
        options = ["--no-build-isolation-package", built[1]] if built else ["--no-build-isolation"]
        what = built[1] if built else "It"
        return f"{what} needs {absent[1]} to be built, which is installed: building it in this environment.", options
    return None


def _has_backend(error: str) -> bool:
    """Whether a project without a build backend of its own, which `error` tells, can be built in this environment."""
    return "__legacy__" not in error or importlib.util.find_spec("setuptools") is not None


def _satisfied(requirements: Sequence[str], changes: PackageChanges) -> list[str]:
    """pip's line for each requirement that was satisfied before."""
    changed = {normalized(name) for name in changes.installed}
    lines = []
    for text in requirements:
        project = project_of(text)
        if not project or project in changed:
            continue
        try:
            found = importlib.metadata.distribution(project)
        except importlib.metadata.PackageNotFoundError:
            continue  # a marker excludes it from this Python
        lines.append(f"Requirement already satisfied: {text} in {found.locate_file('')} ({found.version})")
    return lines


def _named(packages: dict[str, str]) -> str:
    return " ".join(f"{name}-{version}" for name, version in sorted(packages.items()))


def record(changes: PackageChanges) -> None:
    """Append the changes, if there are any, to the record of this process's environment, for its kernel."""
    if not changes.installed and not changes.removed:
        return
    line = json.dumps({"installed": changes.installed, "removed": changes.removed})
    with open(Path(sys.prefix) / CHANGES, "a") as file:
        file.write(f"{line}\n")
