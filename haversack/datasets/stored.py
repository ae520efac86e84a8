"""Data sets on any file system that fsspec opens: a drive, an object store, another archive.

An archive is read by ranges into a sparse file, like one on Kaggle. The files of a folder are fetched one by one,
whole, and cached. Cached bytes are stale if the file's size or tag differs; the tag is the first of `_TAGS` that the
file system reports. A complete archive is verified by the CRC of every member, because few file systems report a hash.

Exceptions of a file system become `NotFound`, `Forbidden` or another `RemoteError`; those that are a `HaversackError`
already, such as `SignInError` and `ConnectionFailed` of a drive, stay as they are. Messages call a file or folder
`source`, because its path on the file system may not be what the user gave.
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
from haversack.datasets.contents import DatasetFile, PlainFile, target_exists
from haversack.errors import ExtraMissing, Forbidden, HaversackError, InputError, IntegrityError, NotFound, RemoteError

log = logging.getLogger(__name__)

# Parallel calls to a file system.
_CONNECTIONS = 8
# The largest range of one call, in bytes.
_MAX_RANGE = 8 << 20
# Keys of a file's info that change with its bytes, in order of preference; times are the last resort.
_TAGS = ("md5", "md5Hash", "ETag", "etag", "crc32c", "mtime", "LastModified", "last_modified", "updated", "created")


def open_filesystem(url: str, hub: str | None) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it.

    `hub` selects the drive of a `drive://` URL: a hub's URL, "google", "embedded", or None for the default. Raises
    `InputError` if fsspec knows no such file system, `ExtraMissing` if its library is not installed.
    """
    options = {"hub": hub} if url.startswith("drive://") else {}
    try:
        system, path = fsspec.core.url_to_fs(url, **options)
    except HaversackError:
        raise
    except ImportError as error:
        raise ExtraMissing(f"{url} cannot be opened: {error}.", "Install the library for it with pip.") from error
    except ValueError as error:
        raise InputError(f"{url} is no data set: {error}.", "Use a URL that fsspec opens, such as s3://…") from error
    return system, str(path)


def is_folder(system: Any, path: str, source: str) -> bool:
    """Return whether `path` is a folder of the fsspec file system `system`; an empty path is its root.

    Messages call it `source`. Raises `NotFound` if nothing is at `path`, and `Forbidden` or another `RemoteError`.
    """
    with _translated_errors(source):
        return bool(system.info(path)["type"] == "directory") if path.strip("/") else True


def glob_files(system: Any, pattern: str, source: str) -> list[str]:
    """Return the sorted paths of the files on the fsspec file system `system` that match `pattern`: `folder/*.zip`.

    Messages call the pattern `source`. Raises `NotFound`, `Forbidden` or another `RemoteError` if it cannot be listed.
    """
    with _translated_errors(source):
        found = system.glob(pattern, detail=True)
    return sorted(path for path, about in found.items() if about["type"] == "file")


def check_no_other_archives(system: Any, folder: str, archives: Sequence[Path], source: str) -> None:
    """Raise `InputError` if `folder` on the file system `system` has a zip file that is not named as one of `archives`.

    A folder that does not exist has none. Messages call it `source`. Raises `Forbidden` or another `RemoteError` if it
    cannot be listed.
    """
    own = {archive.name for archive in archives}
    try:
        existing = [name.rpartition("/")[2] for name in glob_files(system, f"{folder}/*.zip", source)]
    except NotFound:
        return
    if other := sorted(set(existing) - own):
        raise InputError(f"{source} has another archive already: {other[0]}.", "Remove it, or choose another folder.")


def upload(system: Any, local: Path, path: str, source: str) -> None:
    """Upload the file `local` to `path` on the fsspec file system `system`; create the folder of `path`.

    Does nothing if a file of the same size, and of the same MD5 if the file system reports one, is at `path`; a
    different one is overwritten. The upload is verified in the same way: `IntegrityError` if it differs. Messages call
    it `source`. Raises `NotFound`, `Forbidden` or another `RemoteError` if the file system fails.
    """

    def is_uploaded() -> bool:
        system.invalidate_cache()
        about = system.info(path)
        md5 = about.get("md5") or about.get("md5Hash")
        return bool(about["size"] == local.stat().st_size and (not md5 or md5 == disk.md5(local)))

    with _translated_errors(source):
        if system.exists(path) and is_uploaded():
            return
        system.makedirs(path.rpartition("/")[0], exist_ok=True)
        system.put_file(str(local), path)
        if not is_uploaded():
            raise IntegrityError(f"The file at {source} differs from the one that was uploaded.", "Upload it again.")


class StoredFile:
    """The file `remote_path` of the fsspec file system `system` as `RemoteBytes`, cached in the sparse file `path`.

    Messages call it `source`. Raises `NotFound`, `Forbidden` or another `RemoteError` if the file system does not
    report the file and its size.
    """

    def __init__(self, system: Any, remote_path: str, path: Path, source: str) -> None:
        self.path = path
        self._system = system
        self._remote_path = remote_path
        self._source = source
        self._read_ahead = _ReadAhead()
        with _translated_errors(source):
            about = system.info(remote_path)
        if about.get("size") is None:
            raise RemoteError(
                f"The file system does not report the size of {source}.", "Copy it to this machine first."
            )
        self._sparse = SparseFile(path, int(about["size"]), _tag(about))

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
        for start, stop in self._missing_ranges([(offset, offset + size)]):
            self._fetch_range(start, stop)
        return self._sparse.read_at(offset, size)

    def want(self, ranges: Iterable[tuple[int, int]]) -> None:
        self._read_ahead.prefetch([partial(self._fetch_range, start, stop) for start, stop in ranges])

    def fetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        missing = self._missing_ranges(ranges)
        needed = sum(stop - start for start, stop in missing)
        require_space(self.path.parent, needed)
        with progress.bar(self._source, needed) as advance:

            def fetch_part(part: tuple[int, int]) -> None:
                self._fetch_range(*part)
                advance(part[1] - part[0])

            _run_parallel(fetch_part, missing)

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
        self._read_ahead.close()
        self._sparse.close()

    def _verify(self, check: Callable[[Path], None]) -> None:
        """Verify the fetched file by its size and tag on the file system, and by `check`.

        Does nothing if another process has completed it. If the file is wrong, discard it and raise `IntegrityError`.
        """
        if self._sparse.complete:
            return
        try:
            self._system.invalidate_cache()
            with _translated_errors(self._source):
                about = self._system.info(self._remote_path)
            if (about["size"], _tag(about)) != (self.size, self.tag):
                raise IntegrityError(f"{self._source} changed while it was being fetched.", "Fetch it again.")
            check(self._sparse.part)
        except IntegrityError:
            size, tag = self.size, self.tag
            self._sparse.discard()
            self._sparse = SparseFile(self.path, size, tag)
            raise

    def _missing_ranges(self, ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the parts of `ranges` that are not cached, without duplicates, each of at most `_MAX_RANGE` bytes."""
        missing: dict[tuple[int, int], None] = {}
        for start, stop in ranges:
            for begin, end in self._sparse.missing(start, stop):
                missing.update(((at, min(at + _MAX_RANGE, end)), None) for at in range(begin, end, _MAX_RANGE))
        return list(missing)

    def _fetch_range(self, start: int, stop: int) -> None:
        """Fetch and store the missing blocks of [start, stop). Raises `IntegrityError` if the file is too short."""
        for begin, end in list(self._sparse.missing(start, stop)):
            with _translated_errors(self._source):
                data = self._system.cat_file(self._remote_path, start=begin, end=end)
            if len(data) != end - begin:
                raise IntegrityError(f"{self._source} was truncated while it was being read.", "Open it again.")
            self._sparse.write(begin, data)
            self._sparse.keep(begin, end)


class StoredFolder:
    """`Contents` of the folder `root` of the fsspec file system `system`; fetched files are cached below `cache`.

    The folder is listed once, at construction. Messages call it `source`. Raises `NotFound`, `Forbidden` or another
    `RemoteError` if it cannot be listed, `InputError` if it has a file whose name would leave the folder.
    """

    def __init__(self, system: Any, root: str, cache: Path, source: str) -> None:
        self._system = system
        self._cache = cache
        self._source = source
        self._read_ahead = _ReadAhead()
        with _translated_errors(source):
            found = system.find(root, detail=True)
        # Each file's path on the file system and its info, by its name.
        self._remote = {
            _relative_name(path, root, source): (path, about) for path, about in found.items() if not path.endswith("/")
        }
        self.files: Mapping[str, DatasetFile] = {
            name: PlainFile(name, int(about["size"])) for name, (_, about) in sorted(self._remote.items())
        }

    @cached_property
    def size(self) -> int:
        return sum(file.size for file in self.files.values())

    @cached_property
    def content(self) -> str:
        known = hashlib.sha256(self._source.encode())
        for name, file in self.files.items():
            known.update(f"\n{name} {file.size} {_tag(self._remote[name][1])}".encode())
        return known.hexdigest()[:16]

    def read(self, name: str) -> bytes:
        cached = self._cached_path(name)
        if cached.exists():
            return cached.read_bytes()
        remote_path, _ = self._remote[name]
        with _translated_errors(self._source):
            data = cast(bytes, self._system.cat_file(remote_path))
        self._check_size(name, len(data))
        return data

    def open(self, name: str) -> BinaryIO:
        return open(self.path(name), "rb")

    def path(self, name: str) -> Path:
        cached = self._cached_path(name)
        if not cached.exists():
            cached.parent.mkdir(parents=True, exist_ok=True)
            require_space(cached.parent, self.files[name].size)
            with disk.replacing(cached) as temporary:
                self._fetch_file(name, temporary)
        return cached

    def write(self, name: str, target: Path) -> None:
        if self._cached_path(name).exists():
            shutil.copyfile(self._cached_path(name), target)
        else:
            self._fetch_file(name, target)

    def matches(self, name: str, path: Path) -> bool:
        return path.stat().st_size == self.files[name].size and filecmp.cmp(self.path(name), path, shallow=False)

    def prefetch(self, names: Iterable[str]) -> None:
        self._read_ahead.prefetch([partial(self.path, name) for name in names])

    def fetch(self, names: Iterable[str]) -> None:
        missing = [name for name in names if not self._cached_path(name).exists()]
        needed = sum(self.files[name].size for name in missing)
        self._cache.mkdir(parents=True, exist_ok=True)
        require_space(self._cache, needed)
        with progress.bar(self._source, needed) as advance:

            def fetch_file(name: str) -> None:
                self.path(name)
                advance(self.files[name].size)

            _run_parallel(fetch_file, missing)

    def complete(self) -> None:
        self.fetch(self.files)

    def save(self, target: Path) -> None:
        if target.exists():
            raise target_exists(target)
        self.complete()
        target.parent.mkdir(parents=True, exist_ok=True)
        pack(self._cached_files, target)

    def info(self) -> dict[str, object]:
        cached = [file.size for name, file in self.files.items() if self._cached_path(name).exists()]
        return {"files_here": len(cached), "size_here": sum(cached)}

    def close(self) -> None:
        self._read_ahead.close()

    @cached_property
    def _cached_files(self) -> Path:
        return self._cache / "files" / self.content

    def _cached_path(self, name: str) -> Path:
        return self._cached_files / name

    def _fetch_file(self, name: str, target: Path) -> None:
        with _translated_errors(self._source):
            self._system.get_file(self._remote[name][0], str(target))
        self._check_size(name, target.stat().st_size)

    def _check_size(self, name: str, size: int) -> None:
        if size != self.files[name].size:
            raise IntegrityError(f"{name} in {self._source} changed while it was being read.", "Open it again.")


class _ReadAhead:
    """A queue of calls that prefetch something, which up to 8 background threads make.

    A call that fails is only logged, and the rest of the queue is dropped: the reader's own call raises the error.
    """

    def __init__(self) -> None:
        # Guards both fields below.
        self._lock = threading.Lock()
        self._queue: deque[Callable[[], object]] = deque()
        self._threads: list[threading.Thread] = []

    def prefetch(self, calls: Sequence[Callable[[], object]]) -> None:
        """Replace the queue by `calls`, which are started in this order; return at once.

        Calls of the old queue that have started still end.
        """
        with self._lock:
            self._queue = deque(calls)
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            # Daemons, so that the program's exit does not wait for prefetched data.
            new = [
                threading.Thread(target=self._work, daemon=True, name="haversack-ahead")
                for _ in range(min(_CONNECTIONS - len(self._threads), len(calls)))
            ]
            self._threads += new
        for thread in new:
            thread.start()

    def close(self) -> None:
        """Empty the queue, and wait for the calls that have started."""
        with self._lock:
            self._queue.clear()
            threads = list(self._threads)
        for thread in threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    return
                call = self._queue.popleft()
            try:
                call()
            except (HaversackError, OSError) as error:
                log.debug("Prefetching stopped: %s", error)
                with self._lock:
                    self._queue.clear()


def _run_parallel(call: Callable[[Any], None], arguments: Iterable[Any]) -> None:
    """Make a call with each argument, `_CONNECTIONS` at a time; at the first failure start no more and raise it."""
    with ThreadPoolExecutor(_CONNECTIONS, "haversack-fetch") as pool:
        running: set[Future[None]] = set()
        for argument in arguments:
            # Submit no more calls than can run: the pool's exit waits for every submitted call.
            if len(running) == _CONNECTIONS:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
            running.add(pool.submit(call, argument))
        for future in running:
            future.result()


def _tag(about: Mapping[str, Any]) -> str:
    """Return a tag that changes with the file's bytes, or "" if the file system reports none."""
    return next((f"{key} {about[key]}" for key in _TAGS if about.get(key)), "")


def _relative_name(path: str, root: str, source: str) -> str:
    """Return a file's name relative to `root`. Raises `InputError` for one that would leave the folder."""
    name = path.removeprefix(root).lstrip("/")
    if not name or "\\" in name or "\0" in name or not {"", ".", ".."}.isdisjoint(name.split("/")):
        raise InputError(f"{source} has a file that would leave its folder: {path!r}.", "Rename it there.")
    return name


@contextmanager
def _translated_errors(source: str) -> Iterator[None]:
    """Convert a file system's exceptions in the block to `NotFound`, `Forbidden` or `RemoteError`, about `source`."""
    try:
        yield
    except HaversackError:
        raise
    except FileNotFoundError as error:
        raise NotFound(f"There is no {source}.", "Check its name.", status=404) from error
    except PermissionError as error:
        raise Forbidden(f"You may not open {source}.", "Ask its owner for access, or sign in.", status=403) from error
    except Exception as error:
        # Each file system's library has exceptions of its own.
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise RemoteError(f"{source} cannot be read: {reason}.", "Check its address and your sign-in there.") from error
