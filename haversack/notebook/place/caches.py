"""The caches that a user's jobs share: models and data sets that libraries download to HOME outlive the session.

Runs in the process of `haversack run`. The shared folder `cache/libraries` is laid out like a HOME. A session's new
HOME gets links into the shared folder at the paths that the libraries use by default, so `HF_HOME`, `TORCH_HOME`,
`KERAS_HOME` and the like, set by the user or the notebook, take precedence. JAX keeps what it compiled only where a
variable says (`VARIABLES`), so that a training that resumes in the next session compiles nothing again. What lies
beside the caches stays the job's own: the tokens of Hugging Face, `keras.json`, the settings of accelerate.

Two kinds of folders are shared:

    whole     of libraries that download to another name and rename what is complete, or that check what they read, as
              JAX does. The folder is a link.
    by file   of all others: Keras writes to a file's final name, and a kill leaves half of it there. The folder is the
              job's own, with a link for each shared file. `adopt` moves new files to the shared folder once the cell
              that wrote them has ended. Subfolders of Keras's are unpacked archives, which notebooks change: only the
              archive is shared.

Eviction is LRU, by the newest access or change within an entry, and an entry is deleted whole: a model, a data set, a
tool's folder below `.cache`, else a file. A job holds a shared file lock (flock(2)) on the shared folder, and so does
its kernel, which inherits it and may outlive a killed parent. Only a process that gets the exclusive lock evicts, so
nothing is deleted while any job runs.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from haversack import disk

_HUGGING_FACE = ".cache/huggingface"
_WHOLE = (
    f"{_HUGGING_FACE}/hub",
    f"{_HUGGING_FACE}/datasets",
    f"{_HUGGING_FACE}/assets",
    f"{_HUGGING_FACE}/xet",
    ".cache/jax",
    ".cache/torch/hub/checkpoints",
    "nltk_data",
    "tensorflow_datasets",
)
VARIABLES = {"JAX_COMPILATION_CACHE_DIR": ".cache/jax"}
"""The environment variables that name a cache, and its path in HOME."""
# The folders shared by file, and how many folders deep.
_BY_FILE = {".keras/datasets": 1, ".keras/models": 1, "scikit_learn_data": 8, ".cache": 8}
# Folders of `.cache` that are not shared by file. kagglehub's does not name the server that its data came from; gdown's
# has cookies; the repositories in torch's would stay at their first version; the others have variables of their own in
# a job.
_PRIVATE = frozenset({"gdown", "huggingface", "jax", "kagglehub", "matplotlib", "pip", "torch", "uv"})
# A folder of `.cache` with more files is not shared: a link for each would take longer than a second.
_MAX_FILES = 1000
# Files of at most this many bytes are searched for secrets, as keys and tokens are small.
_MAX_SEARCHED_SIZE = 1 << 20
# Names under which tools keep sign-ins.
_SIGN_IN = re.compile(r"(?i)[._]?(stored_)?(tokens?|credentials?|cookies?|secrets?|passwords?|netrc)(\.\w+)?")
# What eviction deletes whole, relative to the shared folder; everything else is deleted file by file.
_ENTRIES = (
    f"{_HUGGING_FACE}/hub/*",
    f"{_HUGGING_FACE}/datasets/*",
    f"{_HUGGING_FACE}/assets",
    f"{_HUGGING_FACE}/xet",
    "nltk_data/*/*",
    "tensorflow_datasets/*",
)
_SHARED_WITH_OTHERS = (PurePath(".cache/huggingface"), PurePath(".cache/torch"))
# Times in inodes are taken from a clock that may be so much behind the time that a program reads, in seconds.
_CLOCK_TICK = 0.02
_SMALLEST_DEFAULT = 256 << 20


@dataclass(frozen=True)
class _Entry:
    """What eviction deletes whole: its path, its last use in seconds since 1970, its bytes on the disk."""

    path: Path
    used: float
    size: int


class SharedCaches:
    """The shared folder, locked against eviction from `open` to `close`.

    Attributes:
        lock: the file descriptor of the lock, for the kernel to inherit.
    """

    def __init__(self, folder: Path, limit: int | None, lock: int) -> None:
        self.lock = lock
        self._folder = folder
        self._limit = limit

    @classmethod
    def open(cls, folder: Path, limit: int | None = None) -> SharedCaches:
        """Create `folder` if missing, lock it and return the caches; waits while another process evicts.

        `limit` is the most bytes that they may use; None stands for a fifth of the disk's space that is free or theirs,
        at least 256 MiB. Raises `OSError`.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_SH)
        return cls(folder, limit, lock)

    def link(self, home: Path) -> None:
        """Give the new, empty HOME `home` links to the shared caches. Raises `OSError`."""
        for name in _WHOLE:
            (self._folder / name).mkdir(parents=True, exist_ok=True)
            _link(home / name, self._folder / name)
        for name, depth in _BY_FILE.items():
            (home / name).mkdir(parents=True, exist_ok=True)
            for file in _files(self._folder / name, depth):
                _link(home / file.relative_to(self._folder), file)

    def adopt(self, home: Path, before: float, mask: Callable[[str], str]) -> None:
        """Move the files that a session has added to its HOME to the shared folder. No process of it may run.

        What changed at or after `before`, in seconds since 1970, may be half a file: it is not adopted, and if it was
        written through a link, it is deleted from the shared folder. Files that hold a secret, which is what `mask`
        changes, stay. Raises `OSError`.
        """
        before -= _CLOCK_TICK
        for name, depth in _BY_FILE.items():
            for file in _files(home / name, depth):
                shared = self._folder / file.relative_to(home)
                if file.is_symlink():
                    if _is_link_to(file, shared) and _changed(shared) >= before:
                        shared.unlink(missing_ok=True)
                elif _changed(file) < before and not _holds_secret(file, mask):
                    shared.parent.mkdir(parents=True, exist_ok=True)
                    _move(file, shared)

    def close(self) -> str:
        """Unlock the caches and evict down to nine tenths of the limit if they exceed it and no other job runs.

        Return a sentence for the user if they exceed it and other jobs run, else "". Raises `OSError`.
        """
        entries = list(_entries(self._folder))
        used = sum(entry.size for entry in entries)
        limit = self._limit
        if limit is None:
            limit = max(_SMALLEST_DEFAULT, (shutil.disk_usage(self._folder).free + used) // 5)
        notice = self._evict(entries, used, limit) if used > limit else ""
        os.close(self.lock)
        return notice

    def _evict(self, entries: list[_Entry], used: int, limit: int) -> str:
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return (
                f"The caches that jobs share use {used / 1e9:.1f} GB of {limit / 1e9:.1f} GB; they are cut down when "
                f"no other job runs (setting caches)."
            )
        for entry in sorted(entries, key=lambda entry: entry.used):
            if used <= limit * 9 // 10:
                break
            _delete(entry.path)
            used -= entry.size
        return ""


def _link(place: Path, target: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target, target_is_directory=target.is_dir())


def _is_link_to(link: Path, target: Path) -> bool:
    return os.readlink(link) == str(target)


def _changed(file: Path) -> float:
    """When the file's content or inode last changed, in seconds since 1970; 0 if it is gone. No program can set it."""
    try:
        return file.stat().st_ctime
    except FileNotFoundError:
        return 0.0


def _files(folder: Path, depth: int) -> Iterator[Path]:
    """Yield the files and links to files below `folder`, at most `depth` folders deep.

    Of `.cache`, the files in folders that are private or have too many files are left out.
    """
    if folder.name != ".cache":
        yield from _walk(folder, depth)
        return
    for child in _children(folder):
        if child.is_dir(follow_symlinks=False) and child.name not in _PRIVATE:
            files = list(_walk(Path(child.path), depth - 1))
            yield from files if len(files) <= _MAX_FILES else ()


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    for child in _children(folder):
        if child.is_dir(follow_symlinks=False):
            if depth > 1:
                yield from _walk(Path(child.path), depth - 1)
        elif child.is_file():
            yield Path(child.path)


def _children(folder: Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder; an empty list if it is missing."""
    try:
        with os.scandir(folder) as children:
            return list(children)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _holds_secret(file: Path, mask: Callable[[str], str]) -> bool:
    """Whether the file has the name of a sign-in, or is small and contains something that `mask` changes."""
    if _SIGN_IN.fullmatch(file.name) or file.stat().st_size > _MAX_SEARCHED_SIZE:
        return bool(_SIGN_IN.fullmatch(file.name))
    text = file.read_text(errors="replace")
    return mask(text) != text


def _move(file: Path, shared: Path) -> None:
    """Put `file` in the place of `shared` by a rename, across file systems by a copy that is renamed."""
    try:
        file.replace(shared)
    except OSError:
        with disk.replacing(shared, durable=False) as copy:
            shutil.copyfile(file, copy)


def _entries(folder: Path) -> Iterator[_Entry]:
    """Yield the entries of the shared folder."""
    for path in _entry_paths(folder, PurePath()):
        statuses = [path.lstat(), *(file.lstat() for file in path.rglob("*"))]
        # Of folders nothing counts: who lists one, as this function does, sets its time of access.
        files = [status for status in statuses if not stat.S_ISDIR(status.st_mode)]
        used = max((max(status.st_atime, status.st_mtime) for status in files), default=0.0)
        yield _Entry(path, used, sum(status.st_blocks * 512 for status in statuses))


def _entry_paths(folder: Path, relative: PurePath) -> Iterator[Path]:
    for child in _children(folder / relative):
        inner = relative / child.name
        if _is_entry(inner) or not child.is_dir(follow_symlinks=False):
            yield folder / inner
        else:
            yield from _entry_paths(folder, inner)


def _is_entry(relative: PurePath) -> bool:
    """Whether what is at `relative` is deleted whole. A tool's folder is, since its files may name each other."""
    if relative.parent == PurePath(".cache"):
        return relative not in _SHARED_WITH_OTHERS
    return any(relative.match(pattern) and len(relative.parts) == pattern.count("/") + 1 for pattern in _ENTRIES)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
