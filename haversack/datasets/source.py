"""`haversack.dataset`: a data set by its name, used where it lies.

A set on Kaggle or on a hub is one zip archive. Looking into it fetches the archive's end, reading a file fetches that
file's range, and only `save` and `extract` bring it whole. What was fetched stays under the cache folder, by server,
owner, name and version, and is shared by processes. A zip archive or a folder on this machine is used in the same way.
"""

from __future__ import annotations

import asyncio
import difflib
import hashlib
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from fsspec.asyn import get_loop

from haversack import credentials, settings
from haversack.archive.reader import LocalFile
from haversack.archive.writer import pack
from haversack.blocks.ranges import RemoteFile
from haversack.blocks.sparse import whole_file
from haversack.credentials import Server
from haversack.datasets.contents import Archived, Contents, File, Folder
from haversack.datasets.extraction import extract
from haversack.datasets.kaggle import KaggleApi, Name
from haversack.datasets.locks import lock_of
from haversack.errors import ArchiveInvalid, InputError, NotFound
from haversack.http import Http, wait

if TYPE_CHECKING:
    from haversack.datasets.images import Images

_UNDERSTOOD = "Understood are kaggle:owner/name, kaggle:owner/name@version, a zip archive, and a folder."
_ARCHIVE = "archive.zip"
# Near names are looked for among this many; difflib takes about a second for them.
_MOST_COMPARED = 5_000


class Dataset:
    """The files of a data set. Made by `dataset`; may be used by several threads, and as a context manager.

    `source` names it, with its version.
    """

    def __init__(self, source: str, name: str, contents: Contents, hub: str | None = None) -> None:
        self.source = source
        self._hub = hub
        self._name = name
        self._contents = contents
        try:
            self._size = contents.size
        except ArchiveInvalid as error:
            raise ArchiveInvalid(f"{source} cannot be read. {error.what}", error.next_step) from error

    @property
    def members(self) -> list[File]:
        """The files, each with its `name` and `size` in bytes, in the archive's order."""
        return list(self._contents.files.values())

    @property
    def files(self) -> list[str]:
        """The files' names, with slashes."""
        return list(self._contents.files)

    def read(self, name: str) -> bytes:
        """One file's bytes, verified. Raises `NotFound` for a name that is not in `files`."""
        return self._contents.read(self._known(name))

    def want(self, names: Iterable[str]) -> None:
        """Begin to fetch these files, in this order, in place of those wanted before; returns at once."""
        self._contents.want(map(self._known, names))

    def fetch(self) -> None:
        """Have the whole set on this machine, verified. Raises `DiskFull` before anything is fetched."""
        self._contents.complete()

    @property
    def content(self) -> str:
        """A tag that changes with the files' bytes."""
        return self._contents.content

    def open(self, name: str) -> BinaryIO:
        """One file as a binary file object that can be seeked in; verified when its end is reached."""
        return self._contents.open(self._known(name))

    def path(self, name: str) -> Path:
        """One file on this machine's disk, for libraries that want a path. Do not write to it."""
        return self._contents.path(self._known(name))

    def extract(self, to: str | Path = ".") -> Path:
        """Lay out every file below the folder `to`; returns it. See `datasets.extraction`."""
        return extract(self._contents, Path(to), self.source)

    def save(self, to: str | Path = ".") -> Path:
        """Put the whole, verified archive into the folder `to`, or at `to` if that ends with .zip; returns its path.

        Raises `InputError` where another file of that name is.
        """
        to = Path(to).expanduser().absolute()
        target = to if to.suffix == ".zip" and not to.is_dir() else to / f"{self._name}.zip"
        self._contents.save(target)
        return target

    def images(self, **arguments: Any) -> Images:
        """The images of the data set as batches to train on; see `datasets.images`.

        Args:
            size: (height, width) in pixels; (224, 224) by default.
            channels: 1 for grey, 3 for RGB (the default), 4 for RGBA; `datasets.decode` has the rule.
            labels: "folder" (the default), a table's name or (table, image column, label column), a dict, a function
                of an image's name, or None; see `datasets.labels.of`.
            names: which files; a list, or a function that says so of a name. By default all with an image's suffix.
            batch_size: of all hosts together; 32 by default.
            seed, shuffle: of the order, another in each epoch (`datasets.order`).
            augment: a `haversack.Augmentation`, or a function of (image, random generator) that gives an image.
            fit: "stretch" (the default), "crop" or "pad".
            corrupt: what to do with an image that cannot be read: "raise" (the default), "skip" or "blank".
            cache: "disk" (the default) keeps decoded pixels, None does not.
            dtype: "float32" (the default), from 0 to 1, or "uint8".
            rank, world: which host this is, of how many.

        Raises `InputError` for arguments that do not go together and for images without a label, `ImageInvalid` when a
        batch has one that cannot be read.
        """
        from haversack.datasets.images import images

        return images(self, **arguments)

    def info(self) -> dict[str, Any]:
        """What is known of the set: its source, number of files, their size, and what of it is on this machine."""
        return {"source": self.source, "files": len(self._contents.files), "size": self._size, **self._contents.info()}

    def close(self) -> None:
        """Let go of files and connections; what was fetched stays in the cache."""
        self._contents.close()

    def __enter__(self) -> Dataset:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        return dataset, (self.source, self._hub)

    def __repr__(self) -> str:
        return f"<Dataset {self.source}: {len(self._contents.files):,} files, {self._size / 1e6:,.1f} MB>"

    def _known(self, name: str) -> str:
        names = self._contents.files
        if name in names:
            return name
        base = name.rsplit("/", 1)[-1].lower()
        near = [each for each in names if each.rsplit("/", 1)[-1].lower() == base][:3]
        near = near or difflib.get_close_matches(name, list(names)[:_MOST_COMPARED], 3)
        hint = f"Near it are {', '.join(near)}." if near else "See `.files` for what there is."
        raise NotFound(f"There is no file {name!r} in {self.source}.", hint, status=404)


@dataclass(frozen=True)
class Published:
    """What `put` made: the source to use it by, its version, and its web address."""

    source: str
    version: int
    url: str


def dataset(source: str, hub: str | None = None) -> Dataset:
    """The data set that `source` names: `kaggle:owner/name`, with `@version` if need be, a zip archive, or a folder.

    Where `hub` (or `HAVERSACK_HUB`) names a hub, Kaggle's sets are looked for there. Raises `InputError` for a source
    that is not understood, `NotFound`, `Forbidden`, `SignInError` and `ConnectionFailed` by what the server says, and
    `ArchiveInvalid` for an archive that cannot be trusted.
    """
    source = str(source)
    if source.startswith("kaggle:"):
        return _from_kaggle(Name.parse(source), hub)
    path = Path(source).expanduser().absolute()
    if path.is_dir():
        return Dataset(str(path), path.name, Folder(path))
    if path.is_file():
        return Dataset(str(path), path.stem, Archived(LocalFile(path), settings.load().cache / "datasets" / "local"))
    raise InputError(f"{source!r} is no data set.", _UNDERSTOOD)


def put(path: str | Path, destination: str, *, title: str | None = None, hub: str | None = None) -> Published:
    """Publish the folder or zip archive `path` as `kaggle:owner/name`: a new private set, or its next version.

    An upload that was cut off, also by the end of the process, goes on when the same files are put again. Raises
    `InputError` for what cannot be published, and what the server's answers mean.
    """
    name = Name.parse(destination)
    if name.version is not None:
        raise InputError("A version is numbered by the server.", f"Write kaggle:{name.owner}/{name.name}.")
    path = Path(path).expanduser().absolute()
    if not path.exists():
        raise InputError(f"There is no {path}.", "Give a folder, or a zip archive.")
    server = credentials.kaggle(hub)
    states = settings.load().data / "uploads"
    states.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = hashlib.sha256(f"{path} {server.url} {name}".encode()).hexdigest()[:16]
    with lock_of(key):
        if path.is_dir():
            packed = states / f"{key}.zip"
            try:
                pack(path, packed)
                version, url = _publish(name, packed, title, server, states)
            finally:
                packed.unlink(missing_ok=True)
        else:
            dataset(str(path)).close()
            version, url = _publish(name, path, title, server, states)
    return Published(f"kaggle:{name}@{version}", version, url)


def _from_kaggle(name: Name, hub: str | None) -> Dataset:
    server = credentials.kaggle(hub)
    cache = settings.load().cache / "datasets" / _server_key(server) / name.owner / name.name
    here = name.version is not None and whole_file(cache / str(name.version) / _ARCHIVE) is not None
    http = (
        Http(server, attempts=2) if here else Http(server)
    )  # what is here does not wait long for a server that is away
    api = KaggleApi(http)
    try:
        name = replace(name, version=name.version or wait(api.current_version(name)))
        cache = cache / str(name.version)
        file = RemoteFile(http, lambda: api.download_address(name), cache / _ARCHIVE, f"kaggle:{name}")
        opened = Dataset(f"kaggle:{name}", name.name, Archived(file, cache), hub)
    except BaseException:
        _close(http)
        raise
    weakref.finalize(opened, _close, http)
    return opened


def _publish(name: Name, archive: Path, title: str | None, server: Server, states: Path) -> tuple[int, str]:
    http = Http(server)
    try:
        return wait(KaggleApi(http).publish(name, archive, title, states))
    finally:
        _close(http)


def _close(http: Http) -> None:
    """Close the connections without waiting: this may run on the loop's own thread, when garbage is collected."""
    asyncio.run_coroutine_threadsafe(http.close(), get_loop())


def _server_key(server: Server) -> str:
    """A folder's name for a server. The embedded hub's port changes with every start, its folder does not."""
    if server.folder is not None:
        return f"embedded-{hashlib.sha256(server.source.encode()).hexdigest()[:8]}"
    return urlsplit(server.url).netloc.replace(":", "_")
