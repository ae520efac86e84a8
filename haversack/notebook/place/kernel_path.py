"""The folder with what of haversack a kernel can import, when its environment holds only what its notebook needs.

It stands last on the kernel's `sys.path`, so that the notebook's packages take precedence. It has links to our package,
which in such a kernel needs the standard library and IPython only, and to the few packages that durable trainings need
(`PACKAGES`). It has no metadata, so pip sees none of them and installs its own where a notebook asks for one.

The links lead to the packages of this process's Python. For a kernel of another Python version uv installs the same
versions, once for all jobs, in the cache folder.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from haversack.errors import JobError
from haversack.notebook.clients import interpreter
from haversack.packages import uv
from haversack.packages.pip_settings import UvSettings

PACKAGES = ("fsspec", "xxhash")
"""The packages of ours that durable trainings need: the file systems of stores, and the hash of checkpoints."""
PTH = "haversack.pth"


def make(folder: Path, environment: Path, cache: Path, settings: UvSettings | None = None) -> str:
    """Make `folder`, which must not exist, for the kernel of an environment; return a sentence for the user, or "".

    The sentence says that `PACKAGES` cannot be had for the environment's Python, so that its trainings do not resume.

    Args:
        folder: the folder to make.
        environment: the kernel's virtual environment.
        cache: haversack's cache folder.
        settings: pip's configuration; None for none.

    Raises `OSError` if the folder cannot be written.
    """
    folder.mkdir()
    (folder / "haversack").symlink_to(interpreter.IMPORTED_FROM / "haversack", target_is_directory=True)
    tag, notice = python_tag(environment), ""
    try:
        packages = _own() if tag == _OWN_TAG else _installed(environment, tag, cache, settings or UvSettings())
    except JobError as error:
        packages, notice = {}, f"Trainings of this notebook do not resume: {error}"
    for name, package in packages.items():
        (folder / name).symlink_to(package, target_is_directory=True)
    return notice


def add(folder: Path, packages: Path) -> None:
    """Put `folder` at the end of the path of the Pythons whose site-packages are `packages`: a kernel, its children.

    A `.pth` file does that (https://docs.python.org/3/library/site.html). PYTHONPATH would come before the notebook's
    own packages, and reach Pythons of other environments too. Raises `OSError`.
    """
    packages.mkdir(parents=True, exist_ok=True)  # an overlay's upper folder is empty at first
    (packages / PTH).write_text(f"{folder}\n")


def python_tag(environment: Path) -> str:
    """Return the version of an environment's Python as its folder in `lib/` spells it, such as "python3.11"."""
    return next(environment.glob("lib/*/site-packages")).parent.name


_OWN_TAG = f"python{sys.version_info.major}.{sys.version_info.minor}{getattr(sys, 'abiflags', '')}"


def _own() -> dict[str, Path]:
    """Return the folders of `PACKAGES` that this process would import."""
    specs = {name: importlib.util.find_spec(name) for name in PACKAGES}
    return {name: Path(spec.origin).parent for name, spec in specs.items() if spec is not None and spec.origin}


def _installed(environment: Path, tag: str, cache: Path, settings: UvSettings) -> dict[str, Path]:
    """Return the folders of `PACKAGES` for another Python, in our versions; uv installs them if no job did before.

    Raises `JobError` if uv cannot.
    """
    pinned = [f"{name}=={importlib.metadata.version(name)}" for name in PACKAGES]
    target = cache / "kernel-path" / "-".join([tag, *(one.replace("==", "-") for one in pinned)])
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
            _install(environment, pinned, Path(temporary, "packages"), settings)
            try:
                os.rename(Path(temporary, "packages"), target)
            except OSError:
                if not target.is_dir():  # another job was faster
                    raise
    return {name: target / name for name in PACKAGES}


def _install(environment: Path, pinned: Sequence[str], target: Path, settings: UvSettings) -> None:
    """Let uv install requirements into the folder `target`. Raises `JobError` with the last line that uv printed."""
    command = [uv.program(), "pip", "install", "--no-deps", "--quiet", "--target", str(target), *settings.arguments]
    # The interpreter itself: uv starts it, and no package of the environment may run here, by a `.pth` file.
    command += ["--python", os.path.realpath(environment / "bin" / "python"), *pinned]
    variables = {**os.environ, **settings.variables}
    done = subprocess.run(command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2].strip()
        raise JobError(f"{' and '.join(pinned)} cannot be installed for its Python: {reason}")
