"""Kernels' environments that hold what a notebook needs and nothing of haversack's, made by uv as a lock would be."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
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

    It executes `import {compiled}` once, so that not every job that gets a copy compiles those modules anew: Keras
    takes half a minute.
    """
    program = uv.find_uv_bin()
    subprocess.run([program, "venv", "--quiet", "--relocatable", str(folder)], check=True)
    command = [program, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python")]
    subprocess.run([*command, *requirements], check=True)
    variables = {**os.environ, "KERAS_BACKEND": "jax"}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run([folder / "bin" / "python", "-c", f"import {compiled}"], env=variables, check=True)
    return folder


def adopted_copy(prepared: Path, folder: Path) -> environment.Environment:
    """Copy a prepared environment to a job's `folder`, by hard links, and return it ready for the job's kernel."""
    shutil.copytree(prepared, folder, symlinks=True, copy_function=os.link)
    path, packages = folder.with_name("kernel-path"), next(folder.glob("lib/python*/site-packages"))
    assert kernel_path.make(path, folder, settings.load().cache) == ""
    kernel_path.add(path, packages)
    return Apart(folder, folder, packages.relative_to(folder), is_own=True)


class Apart(environment.Environment):
    """An environment of a notebook that does not import haversack."""

    def variables(self, cache: Path) -> dict[str, str]:
        return {**super().variables(cache), interpreter.VARIABLE: "process"}
