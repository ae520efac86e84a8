"""`haversack.dataset`: a data set by its name, used where it lies.

A set on Kaggle or on a hub is one zip archive. Looking into it fetches the archive's end, reading a file fetches that
file's range, and only `save` and `extract` bring it whole; of a folder in it (`subset`) no more than its files. What
was fetched stays in the cache folder (`cache`), by server, owner, name and version, and is shared by processes.
Archives elsewhere on the web, archives and folders on a drive or an object store (`stored`), and those on this machine
are used in the same way. A drive is one of fsspec's file systems here, and nothing else is known of it.
"""

from __future__ import annotations

import asyncio
import base64
import difflib
import hashlib
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal
from urllib.parse import unquote, urlsplit

from fsspec.asyn import get_loop

from haversack import credentials, settings
from haversack.archive.reader import LocalFile
from haversack.blocks.ranges import RemoteFile
from haversack.blocks.sparse import whole_file
from haversack.credentials import Server
from haversack.datasets import stored
from haversack.datasets.cache import folder_for, kept, note
from haversack.datasets.contents import Archived, Contents, DatasetFile, FolderContents
from haversack.datasets.extraction import extract
from haversack.datasets.joined import Joined, check_complete
from haversack.datasets.kaggle import Competition, KaggleApi, Name, from_page, parsed
from haversack.datasets.subset import Subset
from haversack.errors import ArchiveInvalid, ConnectionFailed, InputError, NotFound
from haversack.http import Http, wait

if TYPE_CHECKING:
    from haversack.datasets.augment import Augment
    from haversack.datasets.decode import Fit
    from haversack.datasets.images import Images
    from haversack.datasets.labels import Given
    from haversack.datasets.loader import Corrupt

_UNDERSTOOD = (
    "Understood are kaggle:owner/name, also with @version and /folder, kaggle:c/competition, a zip archive's address,"
    " drive:/My Drive/x and other URLs of fsspec's, a zip archive, a folder, and several archives: folder/*.zip."
)
_ARCHIVE = "archive.zip"
# Near names are looked for among this many; difflib takes about a second for them.
_MOST_COMPARED = 5_000


class Dataset:
    """The files of a data set. Made by `dataset`; may be used by several threads, and as a context manager.

    `source` names it, with its version.
    """

    def __init__(
        self,
        source: str,
        name: str,
        contents: Contents,
        given: str | None = None,
        hub: str | None = None,
        about: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self.source = source
        self._name = name
        self._contents = contents
        # A web address may sign in by what is not shown of it.
        self._given = given or source
        self._hub = hub
        self._about = about
        try:
            self._size = contents.size
        except ArchiveInvalid as error:
            raise ArchiveInvalid(f"{source} cannot be read. {error.what}", error.next_step) from error

    @property
    def members(self) -> list[DatasetFile]:
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

    def images(
        self,
        *,
        size: tuple[int, int] = (224, 224),
        channels: int = 3,
        labels: Given = "folder",
        names: Sequence[str] | Callable[[str], bool] | None = None,
        batch_size: int = 32,
        seed: int = 0,
        shuffle: bool = True,
        augment: Augment | None = None,
        fit: Fit = "stretch",
        corrupt: Corrupt = "raise",
        cache: Literal["disk"] | None = "disk",
        dtype: Literal["float32", "uint8"] = "float32",
        rank: int = 0,
        world: int = 1,
    ) -> Images:
        """The images of the data set as batches to train on.

        Args:
            size: (height, width) in pixels.
            channels: 1 for grey, 3 for RGB, 4 for RGBA; `datasets.decode` has the rules of conversion.
            labels: "folder" (the name of the folder that an image is in), a table's name or (table, image column,
                label column), a dict, a function of an image's name, or None for no labels; see `datasets.labels.of`.
            names: which files, as a list or as a predicate of a name. By default all with an image's suffix.
            batch_size: images in a batch, over all hosts.
            seed: determines the order of the images and their augmentation.
            shuffle: whether each epoch has an order of its own (`datasets.order`).
            augment: a `haversack.Augmentation`, or a function of (image, numpy `Generator`) that returns an image of
                the same shape; images are uint8 arrays of shape (height, width, channels).
            fit: how an image is made to have `size`: stretched, cropped in the middle, or padded.
            corrupt: what to do with an image that cannot be decoded: raise, skip it, or use a black one.
            cache: "disk" caches decoded pixels, None does not.
            dtype: "float32", scaled to the range 0 to 1, or "uint8".
            rank, world: this host's number, from 0, and the number of hosts; each gets its part of every batch.

        Raises `InputError` for arguments that contradict each other and for images without a label. A batch raises
        `ImageInvalid` for an image that cannot be decoded.
        """
        from haversack.datasets.pipeline import images

        return images(
            self,
            size=size,
            channels=channels,
            labels=labels,
            names=names,
            batch_size=batch_size,
            seed=seed,
            shuffle=shuffle,
            augment=augment,
            fit=fit,
            corrupt=corrupt,
            cache=cache,
            dtype=dtype,
            rank=rank,
            world=world,
        )

    def info(self) -> dict[str, Any]:
        """What is known of the set: its source, number of files, their size in bytes, and what of it is here.

        Of one on Kaggle or a hub also its version, title, licence, page, and which sign-in was used.
        """
        pixels = sum(one.pixels for one in kept(self.source) if one.source == self.source)
        known = {"source": self.source, "files": len(self._contents.files), "size": self._size, **self._about()}
        return {**known, **self._contents.info(), "pixels_here": pixels}

    def close(self) -> None:
        """Let go of files and connections; what was fetched stays in the cache."""
        self._contents.close()

    def __enter__(self) -> Dataset:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        return dataset, (self._reopened, self._hub)

    @property
    def _reopened(self) -> str:
        """What opens the same version again."""
        return self.source if self.source.startswith("kaggle:") else self._given

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


def dataset(source: str | Path, hub: str | None = None) -> Dataset:
    """The data set that `source` names.

    Args:
        source: kaggle:owner/name, with @version or /folder if need be, or the link to its page; kaggle:c/competition;
            the web address of a zip archive; drive:/My Drive/x and any other URL of fsspec's, an archive or a folder;
            a zip archive or a folder on this machine; folder/*.zip, there or at a URL, for several archives as one.
        hub: the hub that Kaggle's sets and the drive are on; None for what the settings say.

    Raises `InputError` for a source that is not understood, `NotFound`, `Forbidden`, `RulesNotAccepted`, `SignInError`
    and `ConnectionFailed` by what the server says, and `ArchiveInvalid` for an archive that cannot be trusted.
    """
    name = named(source)
    if name.startswith("kaggle:"):
        return _from_kaggle(name, hub)
    if name.startswith(("http://", "https://")) and "::" not in name:
        return _from_web(name, hub)
    if "://" in name:
        return _from_store(name, hub)
    path = Path(name)
    if path.is_dir():
        return Dataset(name, path.name, FolderContents(path))
    if path.is_file():
        return Dataset(name, path.stem, Archived(LocalFile(path), folder_for(name)))
    if "*" in path.name:
        return _joined(name, {str(one): Archived(LocalFile(one), folder_for(str(one))) for one in _here(path)})
    raise InputError(f"{str(source)!r} is no data set.", _UNDERSTOOD)


def named(source: str | Path) -> str:
    """The source in the form that `Dataset.source` has it in: a link to kaggle.com as kaggle:…, a path in full."""
    given = str(source)
    if (of_page := from_page(given)) is not None:
        return of_page
    if given.startswith("drive:") and not given.startswith("drive://"):
        return "drive://" + given.removeprefix("drive:").lstrip("/")
    if given.startswith("file://"):
        given = urlsplit(given).path
    is_address = given.startswith("kaggle:") or "://" in given
    return given if is_address else str(Path(given).expanduser().absolute())


def _from_kaggle(source: str, hub: str | None) -> Dataset:
    name, folder = parsed(source)
    server = credentials.kaggle(hub)
    start = ("datasets", _server_key(server))
    pinned = isinstance(name, Name) and name.version is not None
    here = pinned and whole_file(settings.load().cache.joinpath(*start, *_place(name), _ARCHIVE)) is not None
    # What is here does not wait long for a server that is away.
    http = Http(server, attempts=2) if here else Http(server)
    api = KaggleApi(http)
    try:
        if isinstance(name, Name) and not pinned:
            name = replace(name, version=wait(api.current_version(name)))
        cache = settings.load().cache.joinpath(*start, *_place(name))
        file = RemoteFile(http, lambda: api.download_address(name), cache / _ARCHIVE, f"kaggle:{name}")
        note(cache, f"kaggle:{name}")
        contents: Contents = Archived(file, cache)
        called = f"kaggle:{name}"
        if folder:
            contents, called = Subset(contents, folder, called), f"{called}/{folder}"

        def about() -> dict[str, Any]:
            version = {"version": name.version} if isinstance(name, Name) else {}
            who = {"server": server.url, "signed_in_by": server.source if server.authorization else None}
            try:
                return {**version, **wait(api.about(name)), **who}
            except ConnectionFailed:
                return {**version, **who}  # the server is away, and the set is read from this machine's copy

        opened = Dataset(called, (folder or name.name).rpartition("/")[2], contents, source, hub, about)
    except BaseException:
        _close(http)
        raise
    weakref.finalize(opened, _close, http)
    return opened


def _place(name: Name | Competition) -> tuple[str, ...]:
    """Where a set lies in the folder of its server. No owner's name has a dot in it, so competitions are apart."""
    if isinstance(name, Competition):
        return ".competitions", name.name
    return name.owner, name.name, str(name.version)


def _from_web(link: str, hub: str | None) -> Dataset:
    """A zip archive at a web address. What signs in, in the address, is shown nowhere."""
    parts = urlsplit(link)
    if not parts.hostname:
        raise InputError(f"{link!r} is no data set.", _UNDERSTOOD)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    host += f":{parts.port}" if parts.port else ""
    address = parts._replace(netloc=host, fragment="").geturl()
    shown = parts._replace(netloc=host, query="", fragment="").geturl()
    login = base64.b64encode(unquote(f"{parts.username}:{parts.password or ''}").encode()).decode()
    signing = f"Basic {login}" if parts.username else None
    http = Http(Server(f"server {host}", f"{parts.scheme}://{host}", shown, signing, secrets=(login,)))

    async def locate() -> str:
        return address

    try:
        # What is asked for after the "?" may be another file: it has a folder of its own.
        cache = folder_for(shown, "web", hashlib.sha256(address.encode()).hexdigest()[:16])
        contents = Archived(RemoteFile(http, locate, cache / _ARCHIVE, shown), cache)
        opened = Dataset(shown, Path(unquote(parts.path)).stem or parts.hostname, contents, link, hub)
    except BaseException:
        _close(http)
        raise
    weakref.finalize(opened, _close, http)
    return opened


def _from_store(url: str, hub: str | None) -> Dataset:
    """An archive or a folder on a file system that fsspec opens, or several archives."""
    system, path = stored.opened(url, hub)
    contents: Contents
    if "*" in path.rpartition("/")[2]:
        start = url.rpartition("/")[0]
        there = {f"{start}/{one.rpartition('/')[2]}": one for one in stored.matching(system, path, url)}
        parts: dict[str, Contents] = {}
        for each, one in there.items():
            cache = folder_for(each)
            parts[each] = Archived(stored.StoredFile(system, one, cache / _ARCHIVE, each), cache)
        return _joined(url, parts, hub)
    if stored.is_folder(system, path, url):
        contents = stored.StoredFolder(system, path, folder_for(url), url)
    else:
        cache = folder_for(url)
        contents = Archived(stored.StoredFile(system, path, cache / _ARCHIVE, url), cache)
    name = Path(url.partition("::")[0].rstrip("/"))
    return Dataset(url, name.stem if name.suffix == ".zip" else name.name, contents, url, hub)


def _here(pattern: Path) -> list[Path]:
    return sorted(one for one in pattern.parent.glob(pattern.name) if one.is_file())


def _joined(source: str, parts: dict[str, Contents], hub: str | None = None) -> Dataset:
    """Several archives as one data set."""
    if not parts:
        raise NotFound(f"There is no archive {source}.", "Check its name.", status=404)
    check_complete((name.rpartition("/")[2] for name in parts), source)
    return Dataset(source, source.split("/")[-2] or "archives", Joined(parts, source), source, hub)


def _close(http: Http) -> None:
    """Close the connections without waiting: this may run on the loop's own thread, when garbage is collected."""
    asyncio.run_coroutine_threadsafe(http.close(), get_loop())


def _server_key(server: Server) -> str:
    """A folder's name for a server. The embedded hub's port changes with every start, its folder does not."""
    if server.folder is not None:
        return f"embedded-{hashlib.sha256(server.source.encode()).hexdigest()[:8]}"
    return urlsplit(server.url).netloc.replace(":", "_")
