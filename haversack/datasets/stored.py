"""Data sets on any file system that fsspec opens: a drive, an object store, another archive.

An archive is read by ranges into a sparse file, as one on Kaggle is; the files of a folder are fetched one by one,
whole, and kept. What a file system tells of a file (its hash, else its time and size) decides whether what is kept is
still of use. Of a whole archive every member's CRC is compared, for few file systems tell a hash.
"""

from __future__ import annotations

import filecmp
import hashlib
import logging
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from filelock import FileLock

from haversack import disk, progress
from haversack.archive.writer import pack
from haversack.blocks.sparse import SparseFile, require_space
from haversack.datasets.contents import DatasetFile, PlainFile, occupied, put_whole
from haversack.errors import ExtraMissing, Forbidden, HaversackError, InputError, IntegrityError, NotFound, RemoteError

log = logging.getLogger(__name__)

# So many calls are made side by side, each for so many bytes at most.
_CONNECTIONS = 8
_RANGE = 8 << 20
# What file systems call a tag that changes with a file's bytes; times, where they have nothing better.
_TAGS = ("md5", "md5Hash", "ETag", "etag", "crc32c", "mtime", "LastModified", "last_modified", "updated", "created")


def opened(url: str, hub: str | None) -> tuple[Any, str]:
    """The file system and the path in it that an fsspec URL names. `hub` is for `drive://` URLs.

    Raises `InputError` for a URL of no file system, `ExtraMissing` where its library is not installed.
    """
    options = {"hub": hub} if url.startswith("drive://") else {}
    try:
        system, path = fsspec.core.url_to_fs(url, **options)
    except HaversackError:
        raise
    except ImportError as error:
        raise ExtraMissing(f"{url} cannot be opened: {error}.", "Install that library.") from error
    except ValueError as error:
        raise InputError(f"{url} is no data set: {error}.", "Give a URL that fsspec opens, such as s3://…") from error
    return system, str(path)


def is_folder(system: Any, path: str, source: str) -> bool:
    """Whether there is a folder, not a file. Raises `NotFound` where there is neither."""
    with _said(source):
        return bool(system.info(path)["type"] == "directory") if path.strip("/") else True


def matching(system: Any, pattern: str, source: str) -> list[str]:
    """The files whose names fit a pattern such as `folder/*.zip`, sorted."""
    with _said(source):
        found = system.glob(pattern, detail=True)
    return sorted(path for path, about in found.items() if about["type"] == "file")


def check_free(system: Any, folder: str, archives: Sequence[Path], source: str) -> None:
    """Raise `InputError` where a zip archive lies in `folder` that is none of those."""
    own = {archive.name for archive in archives}
    try:
        there = [name.rpartition("/")[2] for name in matching(system, f"{folder}/*.zip", source)]
    except NotFound:
        return
    if other := sorted(set(there) - own):
        raise InputError(f"{source} has an archive of its own: {other[0]}.", "Remove it, or name another folder.")


def put(system: Any, here: Path, there: str, source: str) -> None:
    """Have the file `here` also at `there`, verified by its hash where that is told, else by its size."""

    def is_there() -> bool:
        system.invalidate_cache()
        about = system.info(there)
        told = about.get("md5") or about.get("md5Hash")
        return bool(about["size"] == here.stat().st_size and (not told or told == disk.md5(here)))

    with _said(source):
        if system.exists(there) and is_there():
            return
        system.makedirs(there.rpartition("/")[0], exist_ok=True)
        system.put_file(str(here), there)
        if not is_there():
            raise IntegrityError(f"What is at {source} now is not what was put there.", "Put it again.")


class StoredFile:
    """One file of an fsspec file system, kept in part or whole at `kept`; `Elsewhere` for an archive."""

    def __init__(self, system: Any, there: str, kept: Path, source: str) -> None:
        self.path = kept
        self._system = system
        self._there = there
        self._source = source
        self._ahead = _ReadAhead()
        with _said(source):
            about = system.info(there)
        if about.get("size") is None:
            raise RemoteError(f"It is not told how large {source} is.", "Copy it to this machine first.")
        self._sparse = SparseFile(kept, int(about["size"]), _tag(about))

    @property
    def size(self) -> int:
        return self._sparse.size

    @property
    def tag(self) -> str:
        return self._sparse.tag

    @property
    def present(self) -> int:
        return self._sparse.present

    def read_at(self, offset: int, size: int) -> bytes:
        for start, stop in self._missing([(offset, offset + size)]):
            self._bring(start, stop)
        return self._sparse.read_at(offset, size)

    def want(self, ranges: Iterable[tuple[int, int]]) -> None:
        self._ahead.begin([partial(self._bring, start, stop) for start, stop in ranges])

    def fetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        missing = self._missing(ranges)
        needed = sum(stop - start for start, stop in missing)
        require_space(self.path.parent, needed)
        with progress.bar(self._source, needed) as advance:

            def bring(part: tuple[int, int]) -> None:
                self._bring(*part)
                advance(part[1] - part[0])

            _side_by_side(bring, missing)

    def complete(self, check: Callable[[Path], None]) -> Path:
        if not self._sparse.complete:
            with FileLock(self.path.with_name(f"{self.path.name}.filling")):
                self.fetch([(0, self.size)])
                self._verify(check)
                self._sparse.finish()
        return self.path

    def mend(self, start: int, stop: int) -> None:
        self._sparse.forget(start, stop)

    def close(self) -> None:
        self._ahead.close()
        self._sparse.close()

    def _verify(self, check: Callable[[Path], None]) -> None:
        if self._sparse.complete:
            return
        try:
            self._system.invalidate_cache()
            with _said(self._source):
                about = self._system.info(self._there)
            if (about["size"], _tag(about)) != (self.size, self.tag):
                raise IntegrityError(f"{self._source} changed while it was fetched.", "Fetch it again.")
            check(self._sparse.part)
        except IntegrityError:
            size, tag = self.size, self.tag
            self._sparse.discard()
            self._sparse = SparseFile(self.path, size, tag)
            raise

    def _missing(self, ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """The ranges that are not here, each once, none too large for one call."""
        missing: dict[tuple[int, int], None] = {}
        for start, stop in ranges:
            for begin, end in self._sparse.missing(start, stop):
                missing.update(((at, min(at + _RANGE, end)), None) for at in range(begin, end, _RANGE))
        return list(missing)

    def _bring(self, start: int, stop: int) -> None:
        for begin, end in list(self._sparse.missing(start, stop)):
            with _said(self._source):
                data = self._system.cat_file(self._there, start=begin, end=end)
            if len(data) != end - begin:
                raise IntegrityError(f"{self._source} became shorter while it was read.", "Open it again.")
            self._sparse.write(begin, data)
            self._sparse.keep(begin, end)


class StoredFolder:
    """The files of a folder on an fsspec file system; what was fetched of them is kept below `cache`."""

    def __init__(self, system: Any, root: str, cache: Path, source: str) -> None:
        self._system = system
        self._cache = cache
        self._source = source
        self._ahead = _ReadAhead()
        with _said(source):
            found = system.find(root, detail=True)
        self._there = {
            _name(path, root, source): (path, about) for path, about in found.items() if not path.endswith("/")
        }
        self.files: Mapping[str, DatasetFile] = {
            name: PlainFile(name, int(about["size"])) for name, (_, about) in sorted(self._there.items())
        }

    @cached_property
    def size(self) -> int:
        return sum(file.size for file in self.files.values())

    @cached_property
    def content(self) -> str:
        known = hashlib.sha256(self._source.encode())
        for name, file in self.files.items():
            known.update(f"\n{name} {file.size} {_tag(self._there[name][1])}".encode())
        return known.hexdigest()[:16]

    def read(self, name: str) -> bytes:
        here = self._here(name)
        if here.exists():
            return here.read_bytes()
        there, _ = self._there[name]
        with _said(self._source):
            data = cast(bytes, self._system.cat_file(there))
        self._check(name, len(data))
        return data

    def open(self, name: str) -> BinaryIO:
        return open(self.path(name), "rb")

    def path(self, name: str) -> Path:
        here = self._here(name)
        if not here.exists():
            here.parent.mkdir(parents=True, exist_ok=True)
            require_space(here.parent, self.files[name].size)
            put_whole(here, lambda aside: self._bring(name, aside))
        return here

    def write(self, name: str, target: Path) -> None:
        if self._here(name).exists():
            shutil.copyfile(self._here(name), target)
        else:
            self._bring(name, target)

    def is_at(self, name: str, path: Path) -> bool:
        return path.stat().st_size == self.files[name].size and filecmp.cmp(self.path(name), path, shallow=False)

    def want(self, names: Iterable[str]) -> None:
        self._ahead.begin([partial(self.path, name) for name in names])

    def fetch(self, names: Iterable[str]) -> None:
        missing = [name for name in names if not self._here(name).exists()]
        needed = sum(self.files[name].size for name in missing)
        self._cache.mkdir(parents=True, exist_ok=True)
        require_space(self._cache, needed)
        with progress.bar(self._source, needed) as advance:

            def bring(name: str) -> None:
                self.path(name)
                advance(self.files[name].size)

            _side_by_side(bring, missing)

    def complete(self) -> None:
        self.fetch(self.files)

    def save(self, target: Path) -> None:
        if target.exists():
            raise occupied(target)
        self.complete()
        target.parent.mkdir(parents=True, exist_ok=True)
        pack(self._files_here, target)

    def info(self) -> dict[str, object]:
        here = [file.size for name, file in self.files.items() if self._here(name).exists()]
        return {"files_here": len(here), "size_here": sum(here)}

    def close(self) -> None:
        self._ahead.close()

    @cached_property
    def _files_here(self) -> Path:
        return self._cache / "files" / self.content

    def _here(self, name: str) -> Path:
        return self._files_here / name

    def _bring(self, name: str, target: Path) -> None:
        with _said(self._source):
            self._system.get_file(self._there[name][0], str(target))
        self._check(name, target.stat().st_size)

    def _check(self, name: str, size: int) -> None:
        if size != self.files[name].size:
            raise IntegrityError(f"{name} in {self._source} changed while it was read.", "Open it again.")


class _ReadAhead:
    """Calls made before their answers are asked for. What cannot be had is told to who asks for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: deque[Callable[[], object]] = deque()
        self._threads: list[threading.Thread] = []

    def begin(self, calls: Sequence[Callable[[], object]]) -> None:
        """Make these calls, in this order, in place of those before that were not made yet."""
        with self._lock:
            self._wanted = deque(calls)
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            # Daemons: the end of a program does not wait for what it will not read any more.
            new = [
                threading.Thread(target=self._work, daemon=True, name="haversack-ahead")
                for _ in range(min(_CONNECTIONS - len(self._threads), len(calls)))
            ]
            self._threads += new
        for thread in new:
            thread.start()

    def close(self) -> None:
        with self._lock:
            self._wanted.clear()
            threads = list(self._threads)
        for thread in threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    return
                call = self._wanted.popleft()
            try:
                call()
            except (HaversackError, OSError) as error:
                log.debug("Nothing is fetched ahead: %s", error)
                with self._lock:
                    self._wanted.clear()


def _side_by_side(call: Callable[[Any], None], arguments: Iterable[Any]) -> None:
    """Make all the calls, a few at a time; the first failure ends it."""
    with ThreadPoolExecutor(_CONNECTIONS, "haversack-fetch") as pool:
        running: set[Future[None]] = set()
        for argument in arguments:
            # No more are begun than can run: the end of a program waits for those that were.
            if len(running) == _CONNECTIONS:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
            running.add(pool.submit(call, argument))
        for future in running:
            future.result()


def _tag(about: Mapping[str, Any]) -> str:
    return next((f"{key} {about[key]}" for key in _TAGS if about.get(key)), "")


def _name(path: str, root: str, source: str) -> str:
    """A file's name in the folder. Raises `InputError` for one that would leave it."""
    name = path.removeprefix(root).lstrip("/")
    if not name or "\\" in name or "\0" in name or not {"", ".", ".."}.isdisjoint(name.split("/")):
        raise InputError(f"{source} has a file that would leave its folder: {path!r}.", "Rename it there.")
    return name


@contextmanager
def _said(source: str) -> Iterator[None]:
    """Failures of a file system in words of our own."""
    try:
        yield
    except HaversackError:
        raise
    except FileNotFoundError as error:
        raise NotFound(f"There is no {source}.", "Check its name.", status=404) from error
    except PermissionError as error:
        raise Forbidden(f"{source} is not open to you.", "Ask its owner, or sign in.", status=403) from error
    except Exception as error:
        # Each file system's library has exceptions of its own.
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise RemoteError(f"{source} cannot be read: {reason}.", "Check its address and your sign-in there.") from error
