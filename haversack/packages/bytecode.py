"""Compile an environment's modules in the background, so that later jobs import them fast.

uv installs no bytecode. A job would compile what it imports (10 s for pandas, scikit-learn and seaborn) and lose it
with its private view, each time anew; to compile everything before the first job takes 40 s. So a process of the lowest
priority, which outlives its parent, compiles each environment once: it makes hard links of the tree, which share every
file, compiles beside them, and publishes them by a rename as the folder `compiled`. Running jobs keep their tree; later
jobs take the compiled one.

What every kernel imports before its first cell is compiled at once, while the environment is made (`compile_kernel`):
each kernel would compile it again until the background has compiled everything, which takes 1 s.

Where another environment has compiled the same file, its bytecode is linked (`reuse`). uv installs by hard links, so
the same file is the same inode, and its bytecode, which records the modification time, holds for both.

A failure is not reported: the environment works without bytecode, and the next job that uses it starts this again.

    python -m haversack.packages.bytecode FOLDER KEY
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from haversack import disk

COMPILED = "compiled"
"""The folder of an environment's compiled tree, beside its `tree`."""
_LOCK = "compile"
_CACHE = "__pycache__"
# Prints the files of a kernel's modules, below the folder of packages. A job's kernel does without debugpy.
_LIST_KERNEL = """
import re, sys
sys.modules["debugpy"] = None
import ipykernel_launcher, IPython.extensions.storemagic
from ipykernel import kernelapp, zmqshell, debugger
for module in list(sys.modules.values()):
    if found := re.search(r"(?:site|dist)-packages/(.*\\.py)$", getattr(module, "__file__", None) or ""):
        print(found[1])
"""
_TIMEOUT = 120  # seconds
_MAX_COMPILERS = 4  # processes that compile what a kernel imports


def start(folder: Path, key: str) -> None:
    """Start compiling the environment `key` in the store `folder`, in the background; a second one ends at once."""
    command = [sys.executable, "-m", __name__, str(folder), key]
    nothing = subprocess.DEVNULL
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    subprocess.Popen(
        command, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True, cwd="/",
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


def kernel_modules() -> list[str]:
    """Return the files that a kernel imports before its first cell, below the folder of packages; [] on a failure.

    They are those that the ipykernel beside haversack imports, which takes half a second.
    """
    with suppress(subprocess.TimeoutExpired):
        return subprocess.run(
            [sys.executable, "-c", _LIST_KERNEL], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=_TIMEOUT, check=False,
        ).stdout.splitlines()  # fmt: skip
    return []


def compile_kernel(tree: Path, modules: list[str]) -> None:
    """Compile the files `modules` in the new environment `tree`, where they are not yet. Ignores failures.

    No code of the environment runs.
    """
    packages = _packages(tree)
    files = [path for name in modules if (path := packages / name).is_file() and not _is_compiled(path)]
    if not files:
        return  # compileall without files compiles all of sys.path
    workers = str(min(os.cpu_count() or 1, _MAX_COMPILERS))
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(
            [*_compileall(tree), "-j", workers, "-i", "-"], input="\n".join(map(str, files)), capture_output=True,
            text=True, timeout=_TIMEOUT, check=False,
        )  # fmt: skip


def reuse(tree: Path, compiled: Path) -> None:
    """Link the bytecode of the environment `compiled` into the new one `tree`, for the files that are the same.

    Both are of the same Python. Ignores failures.
    """
    target, source = _packages(tree), _packages(compiled)
    for folder, folders, names in os.walk(source):
        below = target / Path(folder).relative_to(source)
        folders[:] = [name for name in folders if name != _CACHE and (below / name).is_dir()]
        with suppress(OSError):
            files = {entry.name: entry for entry in os.scandir(Path(folder, _CACHE))}
            same = {name.removesuffix(".py") for name in names if _is_same(Path(folder, name), below / name)}
            taken = [name for name in files if name.partition(".")[0] in same]
            if taken:
                (below / _CACHE).mkdir(exist_ok=True)
            for name in taken:
                os.link(Path(folder, _CACHE, name), below / _CACHE / name)


def compile_tree(folder: Path, key: str) -> bool:
    """Compile the environment `key` in the store `folder`; return whether this process did it.

    False if it is compiled already, if another process does it, if the compiler was killed, and if the environment was
    deleted. Raises `OSError` if the disk is full.
    """
    lock = os.open(folder / f"{key}.{_LOCK}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return not (folder / key / COMPILED).exists() and _compile(folder, key)
    except (BlockingIOError, FileNotFoundError):
        return False
    finally:
        os.close(lock)


def _compile(folder: Path, key: str) -> bool:
    """Compile and publish; return whether that was done.

    Race: another process may delete the environment at any time. Then this raises `FileNotFoundError`.
    """
    # The name begins as the lock's does, so that nobody deletes it as a leftover while the lock is held.
    making = folder / f"{disk.TEMPORARY}{key}.{_LOCK}-{secrets.token_hex(4)}"
    try:
        shutil.copytree(folder / key / "tree", making, symlinks=True, copy_function=_link)
        packages = _packages(making)
        # Its exit status is 1 for files that do not compile, such as templates; Python would not import them either. It
        # is negative if the process was killed, for example for memory.
        command = [*_compileall(making), "-j", "1", str(packages)]
        if subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode < 0:
            return False
        added = sum(path.stat().st_blocks * 512 for path in packages.rglob("*.pyc"))
        about = json.loads((folder / key / "about.json").read_text())
        making.rename(folder / key / COMPILED)
        disk.write(folder / key / "about.json", json.dumps({**about, "size": about["size"] + added}), durable=False)
        return True
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _packages(tree: Path) -> Path:
    """The folder of the packages of the environment `tree`."""
    return next(tree.glob("lib/python*/site-packages"))


def _compileall(tree: Path) -> list[str]:
    """The beginning of a command that compiles with the Python of the environment `tree`.

    -I ignores PYTHONDONTWRITEBYTECODE and PYTHONPYCACHEPREFIX, -S .pth files.
    """
    return [str(tree / "bin" / "python"), "-I", "-S", "-m", "compileall", "-q"]


def _is_compiled(path: Path) -> bool:
    return any((path.parent / _CACHE).glob(f"{path.stem}.*.pyc"))


def _is_same(one: Path, other: Path) -> bool:
    """Whether both paths are hard links of one Python file."""
    try:
        return one.suffix == ".py" and other.samefile(one)
    except OSError:
        return False


def _link(source: str, target: str) -> None:
    os.link(source, target, follow_symlinks=False)


def main() -> None:
    os.nice(19)
    folder, key = sys.argv[1:]
    compile_tree(Path(folder), key)


if __name__ == "__main__":
    main()
