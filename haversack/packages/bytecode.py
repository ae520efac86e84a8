"""Compile an environment's modules in the background, so that later jobs import them fast.

uv installs no bytecode. A job would compile what it imports (10 s for pandas, scikit-learn and seaborn) and lose it
with its private view, each time anew; to compile everything before the first job takes 40 s. So a process of the lowest
priority, which outlives its parent, compiles each environment once: it makes hard links of the tree, which share every
file, compiles beside them, and publishes them by a rename as the folder `compiled`. Running jobs keep their tree; later
jobs take the compiled one.

What every kernel imports before its first cell is compiled at once, while the environment is made (`compile_kernel`):
each kernel would compile it again until the background has compiled everything, which takes 2 s.

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
# Prints the files of a kernel's modules, below the folder of packages.
_LIST_KERNEL = """
import re, sys
import ipykernel_launcher, IPython.extensions.storemagic
from ipykernel import kernelapp, zmqshell, debugger
for module in list(sys.modules.values()):
    if found := re.search(r"(?:site|dist)-packages/(.*\\.py)$", getattr(module, "__file__", None) or ""):
        print(found[1])
"""
_TIMEOUT = 120  # seconds


def start(folder: Path, key: str) -> None:
    """Start compiling the environment `key` in the store `folder`, in the background; a second one ends at once."""
    command = [sys.executable, "-m", __name__, str(folder), key]
    nothing = subprocess.DEVNULL
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    subprocess.Popen(
        command, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True, cwd="/",
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


def compile_kernel(tree: Path) -> None:
    """Compile what a kernel imports in the new environment `tree`. Ignores failures.

    Its files are those that the ipykernel beside haversack imports: no code of the environment runs.
    """
    packages = next(tree.glob("lib/python*/site-packages"))
    with suppress(subprocess.TimeoutExpired):
        listed = subprocess.run(
            [sys.executable, "-c", _LIST_KERNEL], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=_TIMEOUT, check=False,
        )  # fmt: skip
        files = [path for name in listed.stdout.splitlines() if (path := packages / name).is_file()]
        if not files:
            return  # compileall without files compiles all of sys.path
        # -I ignores PYTHONDONTWRITEBYTECODE and PYTHONPYCACHEPREFIX, -S .pth files.
        python = [str(tree / "bin" / "python"), "-I", "-S", "-m", "compileall", "-q", "-i", "-"]
        subprocess.run(
            python, input="\n".join(map(str, files)), capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )


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
        packages = next(making.glob("lib/python*/site-packages"))
        # Its exit status is 1 for files that do not compile, such as templates; Python would not import them either. It
        # is negative if the process was killed, for example for memory.
        python = [str(making / "bin" / "python"), "-I", "-S", "-m", "compileall", "-q", "-j", "1", str(packages)]
        if subprocess.run(python, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode < 0:
            return False
        added = sum(path.stat().st_blocks * 512 for path in packages.rglob("*.pyc"))
        about = json.loads((folder / key / "about.json").read_text())
        making.rename(folder / key / COMPILED)
        disk.write(folder / key / "about.json", json.dumps({**about, "size": about["size"] + added}), durable=False)
        return True
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _link(source: str, target: str) -> None:
    os.link(source, target, follow_symlinks=False)


def main() -> None:
    os.nice(19)
    folder, key = sys.argv[1:]
    compile_tree(Path(folder), key)


if __name__ == "__main__":
    main()
