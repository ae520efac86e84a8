"""Environments made from locks, in the user's cache: one immutable tree for each lock, which jobs only read.

    environments/KEY/tree/       the environment, made by uv; nobody writes to it once it is complete
    environments/KEY/compiled/   the same with compiled modules, made later in the background (`bytecode`)
    environments/KEY/lock.txt    its lock
    environments/KEY/about.json  when and how it was made (`StoredEnvironment`); written last
    environments/KEY.lock        locked (flock) exclusively by who makes or deletes it, shared by who uses it; its
                                 modification time is when the environment was last used
    environments/.haversack-…    one that is being made

The key is a hash of the lock, the interpreter, the platform and the accelerator. An environment is made in a temporary
folder and published by a rename, so it is complete or absent; what a killed process left is deleted when the next one
is made. A lock is held on a file that uv's process inherits, so a uv that outlives its killed parent is waited for.

The files are hard links to uv's cache where both are on one disk, so several environments share them. A job must not
write through such a link: it gets an overlay or a copy (`notebook.place.environment`).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from haversack import disk, progress
from haversack.errors import DiskFull, InputError, NotFound
from haversack.packages import bytecode
from haversack.packages.lock import Lock
from haversack.packages.python import Python
from haversack.packages.uv import DISK_FULL, Uv

_TREE, _LOCK, _ABOUT = "tree", "lock.txt", "about.json"
_POLL = 0.1  # seconds between two tries to get a lock


@dataclass(frozen=True)
class StoredEnvironment:
    """An environment in the store.

    Attributes:
        key: its name.
        folder: its folder.
        python: the version of Python, such as "3.11.7".
        packages: the number of packages.
        size: the bytes that it takes on the disk by itself; what it shares with uv's cache counts too.
        seconds: how long it took to make.
        used: when it was last used, in seconds since 1970.
        in_use: whether a process uses it.
    """

    key: str
    folder: Path
    python: str
    packages: int
    size: int
    seconds: float
    used: float = 0.0
    in_use: bool = False

    @property
    def tree(self) -> Path:
        """The folder of the virtual environment: the one with compiled modules, once it is there."""
        return self.folder / (bytecode.COMPILED if self.is_compiled else _TREE)

    @property
    def is_compiled(self) -> bool:
        """Whether its modules are compiled."""
        return (self.folder / bytecode.COMPILED).exists()

    @property
    def lock(self) -> Lock:
        """Its lock. Raises `OSError` if the environment was deleted."""
        return Lock.decode((self.folder / _LOCK).read_text())

    def json(self) -> dict[str, object]:
        """Return all fields as a JSON object."""
        return {**asdict(self), "folder": str(self.folder)}


@dataclass
class Held:
    """An environment that this process uses: it is not deleted until `release`.

    Attributes:
        environment: the environment.
        from_store: whether it was there before.
        seconds: how long it took to get it.
    """

    environment: StoredEnvironment
    from_store: bool
    seconds: float
    _descriptor: int = -1

    def release(self) -> None:
        """Let the environment be deleted. A second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Store:
    """The environments in `folder`, kept within `budget` bytes by LRU eviction; those in use are never evicted.

    Any number of processes may use one folder; the files `KEY.lock` order them. With `compiles`, modules are compiled
    in the background by a process that may outlive this one.
    """

    def __init__(self, folder: Path, budget: int, uv: Uv, *, compiles: bool = True) -> None:
        self._compiles = compiles
        self._folder = folder
        self._budget = budget
        self._uv = uv

    def get(self, lock: Lock, python: Python, wheels: Path | None = None) -> Held:
        """Return the environment of `lock` on `python`, held; make it if it is not there.

        With `wheels`, a folder that has all wheels of the lock, no index is asked. If another process is making it,
        wait for that process. Raises what `Uv.run` raises, `DiskFull` if the disk is full, and `OSError` if the folder
        cannot be written. On an error and on `KeyboardInterrupt` nothing is left behind.
        """
        started = time.monotonic()
        key = key_of(lock, python)
        self._folder.mkdir(parents=True, exist_ok=True)
        held = self._hold(key)
        if held is None:
            with self._locked(key) as descriptor:
                # Race: another process may have made it before this one got the lock.
                made = self.find(key) is None
                if made:
                    self._make(key, lock, python, descriptor, wheels)
            held = self._hold(key)
            if held is None:
                # Race: another process evicted or removed it between the rename and this process's shared lock.
                raise InputError(f"Another process deleted the environment {key} after it was made.", "Try again.")
            held.from_store = not made
            if made:
                self.evict()
        if self._compiles and not (self._folder / key / bytecode.COMPILED).exists():
            bytecode.start(self._folder, key)
        held.seconds = time.monotonic() - started
        return held

    def find(self, key: str) -> StoredEnvironment | None:
        """Return the environment `key`; None if it is not there or its interpreter is gone."""
        folder = self._folder / key
        try:
            about = json.loads((folder / _ABOUT).read_text())
            used = (self._folder / f"{key}.lock").stat().st_mtime
        except (OSError, ValueError):
            return None
        if not (folder / _TREE / "bin" / "python").exists():
            return None
        return StoredEnvironment(**{**about, "folder": folder}, used=used)

    def all(self) -> list[StoredEnvironment]:
        """Return all environments, the one used last first."""
        keys = [path.parent.name for path in self._folder.glob(f"*/{_ABOUT}")]
        found = [replace(one, in_use=self._is_in_use(key)) for key in keys if (one := self.find(key)) is not None]
        return sorted(found, key=lambda one: one.used, reverse=True)

    def remove(self, key: str) -> StoredEnvironment:
        """Delete the environment whose key begins with `key`, and return it as it was.

        Raises `NotFound` if there is none, and `InputError` if there are several or a process uses it.
        """
        matching = [one for one in self.all() if one.key.startswith(key)] if key else []
        if not matching:
            raise NotFound(f"There is no environment {key}.", "List them with: haversack env ls")
        if len(matching) > 1:
            raise InputError(f"{len(matching)} environments begin with {key}.", "Give more of the key.")
        if not self._delete(matching[0].key):
            raise InputError(f"The environment {matching[0].key} is in use.", "Wait for the end of its job.")
        return matching[0]

    def evict(self) -> None:
        """Delete the least recently used environments until the others fit the budget, but none in use."""
        environments = self.all()
        total = sum(one.size for one in environments)
        for one in reversed(environments):
            if total <= self._budget:
                return
            if self._delete(one.key):
                total -= one.size

    # Making one

    def _make(self, key: str, lock: Lock, python: Python, descriptor: int, wheels: Path | None) -> None:
        """Make the environment `key` and publish it. The caller holds its lock, whose file is `descriptor`."""
        self._delete_leftovers(key)
        if (self._folder / key).exists():
            shutil.rmtree(self._folder / key)  # its interpreter is gone
        making = self._folder / f"{disk.TEMPORARY}{key}-{secrets.token_hex(4)}"
        making.mkdir()
        started = time.monotonic()
        try:
            self._install(making, lock, python, descriptor, wheels)
            size = _size(making)
            about = StoredEnvironment(key, making, python.version, len(lock.packages), size, time.monotonic() - started)
            written = {name: value for name, value in about.json().items() if name not in ("folder", "used", "in_use")}
            disk.write(making / _ABOUT, json.dumps(written), durable=False)
            making.rename(self._folder / key)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise DiskFull(*DISK_FULL) from None
        finally:
            shutil.rmtree(making, ignore_errors=True)

    def _install(self, making: Path, lock: Lock, python: Python, descriptor: int, wheels: Path | None) -> None:
        """Install the packages of `lock` into the new environment `making/tree`."""
        (making / _LOCK).write_text(lock.text)
        tree = making / _TREE
        venv = ["venv", "--relocatable", "--no-project", "--prompt", "haversack", "-q", "-p", str(python.path), _TREE]
        self._uv.run(*venv, cwd=making, keep=(descriptor,))
        command = ["pip", "install", "--no-deps", "-r", _LOCK, "-p", str(tree / "bin" / "python")]
        # The lock says where packages come from; what it was made with besides counts too.
        command += self._uv.settings.arguments
        if wheels is not None:
            command += ["--offline", "--no-index", "--find-links", str(wheels)]
        elif lock.torch:
            command += ["--torch-backend", lock.torch]
        total = len(lock.packages)
        self._uv.show(f"installing {_count(total)}")
        with ThreadPoolExecutor(1) as pool:
            modules = pool.submit(bytecode.kernel_modules)
            self._uv.run(
                *command, cwd=making, watch=_progress_of(tree, total), keep=(descriptor,), offline_first=not lock.torch
            )
        if (other := self._compiled_like(python)) is not None:
            bytecode.reuse(tree, other)
        bytecode.compile_kernel(tree, modules.result())

    def _compiled_like(self, python: Python) -> Path | None:
        """Return the tree of the environment used last that has compiled modules of this Python; None if none has."""
        return next((one.tree for one in self.all() if one.python == python.version and one.is_compiled), None)

    def _delete_leftovers(self, held: str) -> None:
        """Delete the temporary folders of killed processes: those whose lock no process holds.

        The caller holds the lock of the key `held`.
        """
        for left in self._folder.glob(f"{disk.TEMPORARY}*-*"):
            key = left.name.removeprefix(disk.TEMPORARY).rpartition("-")[0]
            with suppress(BlockingIOError), nullcontext() if key == held else self._try_lock(key):
                shutil.rmtree(left, ignore_errors=True)

    def _delete(self, key: str) -> bool:
        """Delete an environment, unless a process uses it; return whether it is gone."""
        try:
            with self._try_lock(key):
                # Rename first, so that no process finds half of it.
                doomed = self._folder / f"{disk.TEMPORARY}{key}-{secrets.token_hex(4)}"
                with suppress(FileNotFoundError):
                    (self._folder / key).rename(doomed)
                    shutil.rmtree(doomed, ignore_errors=True)
                return True
        except BlockingIOError:
            return False

    # Locks

    def _hold(self, key: str) -> Held | None:
        """Return the environment `key`, held; None if it is not there."""
        if self.find(key) is None:
            return None
        descriptor = self._open(key)
        # This blocks for a moment only: a complete environment is locked exclusively to delete it or to test its use,
        # never to make it.
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        environment = self.find(key)  # again: race, it may have been deleted before the lock was taken
        if environment is None:
            os.close(descriptor)
            return None
        os.utime(descriptor)
        return Held(environment, True, 0.0, descriptor)

    def _is_in_use(self, key: str) -> bool:
        try:
            with self._try_lock(key):
                return False
        except BlockingIOError:
            return True

    @contextmanager
    def _locked(self, key: str) -> Iterator[int]:
        """Hold the lock of `key` exclusively, and yield its file's descriptor; wait while another process has it."""
        descriptor = self._open(key)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    self._uv.show("waiting for another job that makes this environment")
                    time.sleep(_POLL)
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _try_lock(self, key: str) -> Iterator[None]:
        """Hold the lock of `key` exclusively. Raises `BlockingIOError` if another process holds it."""
        descriptor = self._open(key)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(descriptor)

    def _open(self, key: str) -> int:
        return os.open(self._folder / f"{key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def key_of(lock: Lock, python: Python) -> str:
    """Return the name of the environment of `lock` on `python`: 16 hexadecimal digits."""
    parts = (lock.pins, lock.platform, lock.accelerator, lock.torch, python.version, str(python.path))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _progress_of(tree: Path, total: int) -> Callable[[], str]:
    """Return a function that reports how many of the `total` packages are in the environment `tree`."""

    def line() -> str:
        count = sum(1 for _ in tree.glob("lib/python*/site-packages/*.dist-info"))
        return f"installing {_count(total)} {count}/{total}" if count else ""

    return line


def _count(packages: int) -> str:
    return f"{packages} package{'' if packages == 1 else 's'}"


def _size(folder: Path) -> int:
    """The bytes that the files below `folder` take on the disk."""
    total = 0
    for at, _, files in os.walk(folder):
        total += sum(os.lstat(os.path.join(at, name)).st_blocks * 512 for name in files)
    return total


def as_text(environments: list[StoredEnvironment]) -> str:
    """Return a listing of environments, one a line."""
    lines = [
        f"{one.key}  Python {one.python:<8} {_count(one.packages):>13} {progress.size(one.size):>10}  "
        f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(one.used))}{'  in use' if one.in_use else ''}"
        for one in environments
    ]
    return "\n".join(lines)
