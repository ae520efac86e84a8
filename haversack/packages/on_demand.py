"""In a running kernel: an import of the notebook's own code that finds nothing is installed, then imported.

    import seaborn    # prints: haversack: installed seaborn 0.13.2 (import seaborn, 2.1 s)

A finder at the end of `sys.meta_path` is asked when every other finder has failed. It installs only if all of this
holds:

- The import statement is the notebook's own: of a cell, or of a module below its folder. A library that looks whether
  another one is there (`find_spec`, an import in a `try`) must get the answer "no", not a package.
- The curated table names the project. A guessed name can be a squatted one.
- No `try` that handles ImportError encloses it, or Colab preinstalls the package. `try: import x` with `except
  ImportError: !pip install x` is the notebook's own decision, and the branch that runs should be the one that runs on
  Colab: the `try` for what Colab has, the `except` for what it has not.

Every distribution of which a module is imported stays at its version: replaced under a running process, it would be
half old and half new. If that or anything else prevents the installation, one line says why, and the import fails with
Python's own ModuleNotFoundError. Installations are serialized: Python holds its global import lock while it asks a
finder, so imports in other threads wait. The date of `--as-of` limits them, and not pip cells, which say themselves
what they install.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import linecache
import os
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import FrameType, ModuleType

from haversack.errors import InputError
from haversack.packages import pip_command, pip_hook, torch_build, uv_pip
from haversack.packages.companions import companions_of
from haversack.packages.imports import handles_import_error
from haversack.packages.pip_settings import uv_settings
from haversack.packages.table import Provider, normalized, provider_of
from haversack.packages.uv_pip import Outcome, PackageChanges

AS_OF = "HAVERSACK_AS_OF"
"""The variable by which the parent passes the day of `--as-of` to the kernel."""
_NO = ("no", "off", "false", "0")
_IMPORT_SYSTEM = ("<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>")
_IMPORT_MODULE = importlib.import_module.__code__


def install(content: Path, environment: Mapping[str, str] = os.environ) -> None:
    """Install on demand in this process from now on; `content` is the folder of the notebook's own modules.

    Does nothing with `HAVERSACK_INSTALL=no`, where there is no uv, in an environment that is not a job's own, and if it
    is called a second time.
    """
    is_off = environment.get("HAVERSACK_INSTALL", "").lower() in _NO or not environment.get("HAVERSACK_UV")
    if is_off or not pip_hook.is_written(Path(sysconfig.get_paths()["purelib"])):
        return
    if not any(isinstance(finder, OnDemandFinder) for finder in sys.meta_path):
        sys.meta_path.append(OnDemandFinder(content))


@dataclass(frozen=True)
class _Statement:
    """An import statement: the dotted `module`, whether a `try` for ImportErrors is around it, its cell's `source`."""

    module: str
    guarded: bool
    source: str


class OnDemandFinder(MetaPathFinder):
    """Finds a module by installing its project.

    `_failed` has the requirements that could not be installed, which are not tried again. It is guarded by Python's
    import lock, which the import system holds while it asks a finder.
    """

    def __init__(self, content: Path) -> None:
        self._content = content.resolve()
        self._failed: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        statement = self._statement(fullname, sys._getframe(1))
        if statement is None:
            return None
        provider = provider_of(statement.module)
        if provider is None or not provider.requirement or (statement.guarded and not provider.colab):
            return None
        if not f"{provider.module}.".startswith(f"{fullname}."):
            return None  # a submodule that its project, which is there, does not have
        # Another thread may have installed it while this one waited for the import lock.
        found = PathFinder.find_spec(fullname, path)
        if found is None and provider.requirement not in self._failed:
            self._install(provider, statement)
            importlib.invalidate_caches()
            found = PathFinder.find_spec(fullname, path)
        return found

    def _statement(self, fullname: str, frame: FrameType | None) -> _Statement | None:
        """Return the notebook's own import statement that leads to `fullname`; None if the import is another's."""
        while frame is not None and (frame.f_code.co_filename in _IMPORT_SYSTEM or frame.f_code is _IMPORT_MODULE):
            frame = frame.f_back
        if frame is None or not self._is_own(frame):
            return None
        source = "".join(linecache.getlines(frame.f_code.co_filename, frame.f_globals))
        module = _imported(source, frame.f_lineno, fullname)
        return _Statement(module, self._is_guarded(frame), source)

    def _is_own(self, frame: FrameType) -> bool:
        """Whether the notebook's code runs in `frame`: a cell's, or a module's that lies below its folder."""
        if frame.f_globals.get("__name__") == "__main__":
            return True
        if not os.path.isabs(frame.f_code.co_filename):
            return False  # "<frozen importlib.util>", for example
        file = Path(frame.f_code.co_filename).resolve()
        return file.is_relative_to(self._content) and not {"site-packages", "dist-packages"} & set(file.parts)

    def _is_guarded(self, frame: FrameType | None) -> bool:
        """Whether a `try` of the notebook's handles an ImportError of `frame`, its callers included.

        Code without a source, such as that of `exec`, may have one.
        """
        while frame is not None and self._is_own(frame):
            source = "".join(linecache.getlines(frame.f_code.co_filename, frame.f_globals))
            if not source or any(_guards(node, frame.f_lineno) for node in _nodes(source)):
                return True
            frame = frame.f_back
        return False

    def _install(self, provider: Provider, statement: _Statement) -> None:
        """Install what `provider` names and what its use in the cell needs, and print one line."""
        needed = [one.project for one in companions_of({statement.module}, statement.source)]
        requirements = [provider.requirement, *(project for project in needed if not _is_installed(project))]
        start = time.monotonic()
        try:
            outcome = _run(requirements)
        except (OSError, InputError) as error:  # no uv, no room for its constraints, or a pip.conf that is none
            outcome = Outcome(1, PackageChanges(), (f"error: {error}",))
        took = time.monotonic() - start
        if outcome.status:
            self._failed.add(provider.requirement)
            print(f"haversack: {provider.requirement} was not installed (import {provider.module}): {_why(outcome)}")
            return
        pip_command.record(outcome.changes)
        installed = outcome.changes.installed
        names = [name for name in map(normalized, requirements) if name in installed] or sorted(installed)
        shown = ", ".join(f"{name} {installed[name]}" for name in names)
        if shown:
            print(f"haversack: installed {shown} (import {provider.module}, {took:.1f} s)")


def _run(requirements: Sequence[str]) -> Outcome:
    """Let uv install `requirements` beside what is imported."""
    settings = uv_settings()
    variables = {**settings.variables, "UV_INDEX_STRATEGY": "unsafe-best-match"}
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(constraints()))
        file.flush()
        options = ["--python", sys.executable, *settings.arguments, "--constraints", file.name]
        options += uv_pip.until(os.environ.get(AS_OF, ""))
        command = [os.environ["HAVERSACK_UV"], "pip", "install", *options, *requirements]
        chosen = torch_build.choose(command, variables)
        if chosen.notice:
            print(f"haversack: {chosen.notice}", flush=True)
        return uv_pip.run([*command, *chosen.words], variables, lambda line: None)


def constraints() -> list[str]:
    """Return `NAME==VERSION` for each installed distribution of which a module is imported in this process."""
    distributions = importlib.metadata.packages_distributions()
    loaded = {name.partition(".")[0] for name in list(sys.modules)}
    names = {normalized(project) for module in loaded for project in distributions.get(module, ())}
    return sorted(f"{name}=={importlib.metadata.version(name)}" for name in names)


def _is_installed(project: str) -> bool:
    try:
        importlib.metadata.version(project)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _why(outcome: Outcome) -> str:
    """uv's reason on one line, without its conclusion."""
    cause = outcome.error.partition("cause: ")[2] or outcome.error.removeprefix("error: ")
    reason = cause.partition(", we can conclude")[0].rstrip(".")
    return f"{reason}." if reason else f"uv ended with status {outcome.status}."


def _nodes(source: str) -> Iterator[ast.AST]:
    try:
        return ast.walk(ast.parse(source))
    except (SyntaxError, ValueError):
        return iter(())


def _imported(source: str, line: int, fullname: str) -> str:
    """Return the module that the statement on this line imports when it asks for `fullname`.

    `from google.cloud import storage` first asks for `google.cloud`, which several projects have; the statement tells
    that it is `google.cloud.storage`. Where the source does not tell, the result is `fullname`.
    """
    names = [
        name
        for node in _nodes(source)
        if isinstance(node, ast.Import | ast.ImportFrom) and _spans(node, line)
        for name in _names(node)
        if f"{name}.".startswith(f"{fullname}.")
    ]
    return names[0] if names else fullname


def _names(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [f"{node.module}.{alias.name}" for alias in node.names]


def _spans(node: ast.stmt, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or node.lineno)


def _guards(node: ast.AST, line: int) -> bool:
    """Whether `node` is a `try` that handles an ImportError of this line, or a `with suppress(ImportError)`."""
    if isinstance(node, ast.Try):
        return any(_spans(one, line) for one in node.body) and any(map(handles_import_error, node.handlers))
    if isinstance(node, ast.With):
        suppressed = " ".join(ast.unparse(item) for item in node.items)
        return _spans(node, line) and "suppress(" in suppressed and ("Error" in suppressed or "Exception" in suppressed)
    return False
