"""Random work on a mount, done to an ordinary folder beside it, which says what must come out.

Everything that the POSIX table in docs/drive.md promises is in it: reading, writing in the middle, sparse and appending
writes, truncation, mapped memory, times, renames over files and of folders, deletion of what is open, folders. One seed
is one history.

    python -m tests.drive.exerciser MOUNT/"My Drive"/folder --operations 20000 --seed 7
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

_NAMES = [f"{stem}{ending}" for stem in ("a", "b", "c d", "é", "long" * 20) for ending in ("", ".txt", ".tar.gz")]
_LARGEST = 300_000
_FLAGS = (
    os.O_RDONLY,
    os.O_RDWR,
    os.O_RDWR | os.O_CREAT,
    os.O_RDWR | os.O_TRUNC,
    os.O_RDWR | os.O_CREAT | os.O_EXCL,
    os.O_RDONLY | os.O_CREAT | os.O_EXCL,
)


class Exerciser:
    """Does each operation in `mount` and in `model`, two folders that start empty."""

    def __init__(self, mount: Path, model: Path, seed: int, largest: int = _LARGEST) -> None:
        self.mount, self.model = mount, model
        self.largest = largest
        self.random = random.Random(seed)
        self.done = 0
        self._open: list[tuple[int, int]] = []

    def run(self, operations: int) -> None:
        """So many operations; raises `AssertionError` at the first difference, and compares everything at the end."""
        actions = [
            *(self.write, self.write, self.overwrite, self.overwrite, self.append, self.append, self.truncate),
            *(self.read, self.read, self.look, self.rename, self.rename, self.unlink, self.make_folder),
            *(self.remove_folder, self.open, self.use_open, self.use_open, self.close, self.list_folder, self.date),
        ]
        for _ in range(operations):
            action = self.random.choice(actions)
            action()
            self.done += 1
        while self._open:
            self.close()
        self.compare()

    def compare(self) -> None:
        def contents(folder: Path) -> dict[str, bytes | None]:
            return {
                str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
                for path in sorted(folder.rglob("*"))
            }

        assert contents(self.mount) == contents(self.model)

    # What is done

    def write(self) -> None:
        path, data = self._path(), self._bytes()
        self._both(lambda root: (root / path).write_bytes(data))

    def overwrite(self) -> None:
        path, data, at = self._path(), self._bytes(20_000), self.random.randrange(self.largest)
        self._both(lambda root: self._at(root / path, "r+b", at, data))

    def append(self) -> None:
        path, data = self._path(), self._bytes(20_000)
        self._both(lambda root: self._at(root / path, "ab", None, data))

    def truncate(self) -> None:
        path, size = self._path(), self.random.choice([0, 1, self.random.randrange(self.largest)])
        self._both(lambda root: os.truncate(root / path, size))

    def read(self) -> None:
        path = self._path()
        self._both(lambda root: (root / path).read_bytes())

    def look(self) -> None:
        path = self._path()

        def looked(root: Path) -> tuple[bool, int]:
            status = os.stat(root / path)
            is_folder = (root / path).is_dir()
            return is_folder, 0 if is_folder else status.st_size

        self._both(looked)

    def date(self) -> None:
        path, modified = self._path(), self.random.randrange(1 << 31)

        def dated(root: Path) -> int:
            os.utime(root / path, (modified, modified + 0.125))
            return os.stat(root / path).st_mtime_ns // 1_000_000

        self._both(dated)

    def rename(self) -> None:
        old, new = self._path(), self._path()
        self._both(lambda root: os.rename(root / old, root / new))

    def unlink(self) -> None:
        path = self._path()
        self._both(lambda root: os.unlink(root / path))

    def make_folder(self) -> None:
        path = self._path()
        self._both(lambda root: os.mkdir(root / path))

    def remove_folder(self) -> None:
        path = self._path()
        self._both(lambda root: os.rmdir(root / path))

    def list_folder(self) -> None:
        """Names with what is told of each, as the kernel has it from the listing."""
        path = self._folder()

        def listed(root: Path) -> list[tuple[str, int | None]]:
            with os.scandir(root / path) as entries:
                return sorted((entry.name, None if entry.is_dir() else entry.stat().st_size) for entry in entries)

        self._both(listed)

    def open(self) -> None:
        """A file that stays open over what else happens to it."""
        path, flags = self._path(), self.random.choice(_FLAGS)
        opened = self._both(lambda root: os.open(root / path, flags, 0o600), equal=False)
        if opened is not None:
            self._open.append(opened)
        if opened is not None and stat.S_ISDIR(os.fstat(opened[1]).st_mode):
            self._close(len(self._open) - 1)  # a removed folder is the one thing that cannot be looked at any more
        if len(self._open) > 8:
            self.close()

    def use_open(self) -> None:
        if not self._open:
            return
        handles = self.random.choice(self._open)
        at, data, more = self.random.randrange(self.largest), self._bytes(5_000), self._bytes()
        for act in self.random.sample(
            [
                lambda one: os.pread(one, 50_000, at),
                lambda one: os.pwrite(one, data, at),
                lambda one: os.fstat(one).st_size,
                lambda one: os.ftruncate(one, at),
                lambda one: os.pwrite(one, more, os.fstat(one).st_size),
                lambda one: self._map(one, at, data),
            ],
            2,
        ):
            self._same(act, *handles)

    def close(self) -> None:
        if self._open:
            self._close(self.random.randrange(len(self._open)))

    # How

    def _close(self, number: int) -> None:
        for one in self._open.pop(number):
            os.close(one)

    def _both(self, act: Callable[[Path], object], equal: bool = True) -> tuple | None:
        return self._same(act, self.mount, self.model, equal=equal)

    def _same(self, act: Callable, mount: object, model: object, *, equal: bool = True) -> tuple | None:
        """Both do it, or both refuse it with the same errno; what they say is the same."""
        said = []
        for where in (mount, model):
            try:
                said.append((0, act(where)))
            except OSError as error:
                said.append((error.errno, None))
        assert said[0][0] == said[1][0], f"operation {self.done}: {said}"
        assert not equal or said[0] == said[1], f"operation {self.done}: the mount and the model differ"
        return (said[0][1], said[1][1]) if said[0][0] == 0 else None

    def _at(self, path: Path, mode: str, at: int | None, data: bytes) -> None:
        with open(path, mode, buffering=0) as file:
            if at is not None:
                file.seek(at)
            file.write(data)

    def _map(self, one: int, at: int, data: bytes) -> bytes:
        """Write through mapped memory as much of `data` as the file has room for; what the file is then."""
        size = os.fstat(one).st_size
        if not size:
            return b""
        with mmap.mmap(one, size) as memory:
            data = data[: max(size - at, 0)]
            memory[at : at + len(data)] = data
            memory.flush()
            return memory[:]

    def _folder(self) -> str:
        folders = [os.path.join(at, name) for at, names, _ in os.walk(self.model) for name in names]
        return self.random.choice([".", ".", *sorted(os.path.relpath(folder, self.model) for folder in folders)])

    def _path(self) -> str:
        """A name that is there, more often than not."""
        folder = self._folder()
        there = sorted(path.name for path in (self.model / folder).iterdir())
        name = self.random.choice(there) if there and self.random.random() < 0.6 else self.random.choice(_NAMES)
        return os.path.join(folder, name)

    def _bytes(self, most: int | None = None) -> bytes:
        return self.random.randbytes(self.random.choice([0, 1, self.random.randrange(most or self.largest)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder in a mount; it is made, or has to be empty")
    parser.add_argument("--operations", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--largest", type=int, default=_LARGEST, help="bytes in one write at most")
    wanted = parser.parse_args()
    wanted.folder.mkdir(exist_ok=True)
    if any(wanted.folder.iterdir()):
        parser.error(f"{wanted.folder} is not empty")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as model:
        exerciser = Exerciser(wanted.folder, Path(model), wanted.seed, wanted.largest)
        exerciser.run(wanted.operations)
    print(f"{exerciser.done:,} operations in {time.monotonic() - began:.0f} s, no difference")


if __name__ == "__main__":
    main()
