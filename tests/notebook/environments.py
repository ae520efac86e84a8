"""Kernels' environments that hold what a notebook needs and nothing of haversack's, made by uv as a lock would be."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import uv

from haversack import settings
from haversack.notebook.clients import interpreter
from haversack.notebook.place import environment, kernel_path

BARE = ("ipykernel", "pip")
# The versions that the tests run with are in uv's cache already.
KERAS = (*BARE, *(f"{name}=={importlib.metadata.version(name)}" for name in ("keras", "jax", "numpy")))
OLD = (*BARE, "ipykernel==6.17.1", "ipython==7.34.0")


def make(folder: Path, *requirements: str, compiled: str = "ipykernel.kernelapp") -> Path:
    """Make the virtual environment `folder` with these requirements, and return it.

    It takes the bytecode of files that the tests run with too, and executes `import {compiled}` once, so that not every
    job that gets a copy compiles those modules anew: Keras takes half a minute.
    """
    program = uv.find_uv_bin()
    subprocess.run([program, "venv", "--quiet", "--relocatable", str(folder)], check=True)
    command = [program, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python")]
    subprocess.run([*command, *requirements], check=True)
    _take_bytecode(next(folder.glob("lib/python*/site-packages")))
    variables = {**os.environ, "KERAS_BACKEND": "jax"}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run([folder / "bin" / "python", "-c", f"import {compiled}"], env=variables, check=True)
    return folder


def _take_bytecode(packages: Path) -> None:
    """Copy the bytecode of every file in `packages` that is the same in this process's environment.

    Python uses a `.pyc` if it names the time and size of its source, which uv keeps.
    """
    ours = Path(sysconfig.get_paths()["purelib"])
    for source in packages.rglob("*.py"):
        same = ours / source.relative_to(packages)
        bytecode, target = (Path(importlib.util.cache_from_source(str(path))) for path in (same, source))
        if bytecode.exists() and _version(same) == _version(source):
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(bytecode, target)


def _version(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_mtime_ns, found.st_size


def adopted_copy(prepared: Path, folder: Path) -> environment.Environment:
    """Copy a prepared environment to a job's `folder`, by hard links, and return it ready for the job's kernel."""
    shutil.copytree(prepared, folder, symlinks=True, copy_function=os.link)
    path, packages = folder.with_name("kernel-path"), next(folder.glob("lib/python*/site-packages"))
    assert kernel_path.make(path, folder, settings.load().cache) == ""
    kernel_path.add(path, packages)
    return Apart(folder, folder, packages.relative_to(folder), is_own=True)


class Apart(environment.Environment):
    """An environment of a notebook that does not import haversack."""

    def variables(self, cache: Path, *, trusted: bool = True) -> dict[str, str]:
        return {**super().variables(cache, trusted=trusted), interpreter.VARIABLE: "process"}
